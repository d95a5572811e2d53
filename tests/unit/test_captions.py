"""Captions of the report: each figure's says what was varied, on how many problems, and what its bars and bands are."""

import re
from types import SimpleNamespace

import jinja2
import pytest
import yaml
from docutils.core import publish_doctree

from flopstat import config
from flopstat.errors import InputError

CATEGORIES = {"1 Headline", "2 Accuracy", "3 Laws", "4 Cost", "5 Data and checks"}
UNIT = re.compile(r"\b(151 study|101 calibration|1200 fresh) (and 101 calibration )?problems\b|\b3 training runs\b|\b7 repeats\b")
NO_INTERVAL = re.compile(r"\bno interval\b|\bwithout an interval\b")


@pytest.fixture(scope="module")
def entries(root):
    """What every `report(...)` of the rule files says: path, caption, category, subcategory, label."""
    found = []
    for path in sorted((root / "workflow" / "rules").glob("*.smk")):
        for block in re.findall(r"report\(\n(.*?)\n {8,16}\)[,\n]", path.read_text(encoding="utf-8"), flags=re.DOTALL):
            target = re.search(r'f"\{RESULTS\}/([^"]+)"', block)
            shape = r'caption="\.\./report/([^"]+)",\s*category=(.+?),\s*subcategory="([^"]+)",\s*labels=(.+)'
            parts = re.search(shape, block, flags=re.DOTALL)
            assert target, block
            assert parts, f"{path.name}: {block}"
            found.append(dict(zip(("target", "caption", "category", "subcategory", "labels"), (target[1], *parts.groups()), strict=True)))
    return found


@pytest.fixture(scope="module")
def seen(root):
    """What a caption sees of its job: numbers that no caption has of itself."""
    with open(root / "config" / "config.yaml", encoding="utf-8") as stream:
        merged = config.resolve(yaml.safe_load(stream))
    merged["dataset"] |= {"n_study": 151, "n_calibration": 101}
    merged["statistics"]["confidence"] = 0.9
    merged["calibration"]["repeats"] = 7
    merged["title"] = "`Broken *title_\n|x|"
    return SimpleNamespace(config=merged, params=SimpleNamespace(n_problems=1200), input=SimpleNamespace(training_logs=["a", "b", "c"]))


@pytest.fixture(scope="module")
def rendered(root, seen):
    """Text of a caption by its file name; a word of the template that means nothing is an error, and so is broken markup."""
    jinja = jinja2.Environment(undefined=jinja2.StrictUndefined)

    def render(name):
        source = (root / "workflow" / "report" / name).read_text(encoding="utf-8")
        text = jinja.from_string(source).render(snakemake=seen)
        publish_doctree(text, settings_overrides={"halt_level": 2, "report_level": 2})
        return text

    return render


def figures(entries):
    return [entry for entry in entries if entry["target"].endswith(".png")]


def test_every_rule_that_plots_is_in_the_report(root, entries):
    files = sorted((root / "workflow" / "rules").glob("*.smk"))
    drawn = {name for path in files for name in re.findall(r'f"\{RESULTS\}/(figures/[^"]+\.png)"', path.read_text(encoding="utf-8"))}
    assert {entry["target"] for entry in figures(entries)} == drawn
    assert len(drawn) >= 17


def test_captions_of_figures_name_what_was_varied_how_many_and_the_interval(entries, rendered):
    for entry in figures(entries):
        text = " ".join(rendered(entry["caption"]).split())
        assert "Varied: " in text, entry["target"]
        assert UNIT.search(text), f"{entry['target']}: neither problems nor runs are counted"
        level = "95% bootstrap intervals over problems" if entry["target"] == "figures/ladder.png" else "90.0%"  # the card's own level
        assert level in text or NO_INTERVAL.search(text), f"{entry['target']}: no level, and not said that there is no interval"
        if level in text:
            assert re.search(r"over (study )?(problems|branches|resampled branches)|of the mean length of a chain", text), entry["target"]


def test_all_captions_are_valid_markup(root, rendered):
    for path in sorted((root / "workflow" / "report").glob("*.rst")):
        assert len(rendered(path.name)) > 60


def test_results_are_grouped_alike_in_all_rule_files(entries):
    for entry in entries:
        for category in re.findall(r'"([^"]+)"', entry["category"]) or [entry["category"]]:
            assert category in CATEGORIES, entry
        assert entry["subcategory"] == ("Figures" if entry["target"].endswith(".png") else "Tables"), entry
        # One label only: of two, the report takes one that splits the results in halves for a switch.
        assert re.findall(r'"(\w+)":', entry["labels"]) == ["result"], entry
    named = [(e["category"], e["subcategory"], e["labels"]) for e in entries if e["target"] != "refusals.csv"]  # made by one of two rules
    assert len(set(named)) == len(named)


def test_no_caption_is_left_over(root, entries):
    used = {entry["caption"] for entry in entries} | {"study.rst"}
    assert {path.name for path in (root / "workflow" / "report").glob("*.rst")} == used


def test_a_study_name_can_not_break_the_markup():
    for name in ("a`b", "x|y|", "*x", "a b", "a\nb"):
        with pytest.raises(InputError):
            config.resolve({"study": name})
