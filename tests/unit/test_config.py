"""Configuration: shipped files resolve, broken ones are refused with one line that names the key."""

import subprocess
import sys

import pytest
import yaml

from flopstat import cli, config, precisions
from flopstat.errors import InputError

ROOT = config.ROOT
BASE = ROOT / "config" / "config.yaml"
STUDIES = sorted((ROOT / "config" / "studies").glob("*.yaml"))
PERSONAS = sorted((ROOT / "config" / "personas").glob("*.yaml"))
QWEN = ROOT / "config" / "studies" / "qwen2.5-gsm8k.yaml"
SHIPPED = [(BASE,), *((BASE, s) for s in STUDIES), *((BASE, QWEN, p) for p in PERSONAS)]
BROKEN = sorted((ROOT / "tests" / "config" / "broken").glob("*.yaml"))
SMALL = {
    "study": "s",
    "dataset": {"source": "ladder"},
    "models": [{"name": "m", "source": "ladder", "precisions": ["fp32"]}],
    "budgets": {"T": [32, 8]},
    "sampling": {"samples": 4},
}


@pytest.mark.parametrize("files", SHIPPED, ids=lambda files: "+".join(f.stem for f in files))
def test_shipped_config_resolves(files):
    resolved = config.load(*files)
    precisions.check_models(resolved)
    named = [part["study"] for part in (yaml.safe_load(f.read_text(encoding="utf-8")) for f in files) if "study" in part]
    assert resolved["study"] == named[-1]
    assert len(set(config.arms(resolved))) == sum(len(m["precisions"]) for m in resolved["models"])
    assert config.resolve(resolved) == resolved


def test_shipped_studies_have_names_of_their_own():
    """Two configs of one name would write into one folder; an overlay that only moves the data keeps its study's."""
    names = [yaml.safe_load(f.read_text(encoding="utf-8")).get("study") for f in (BASE, *STUDIES, *PERSONAS)]
    named = [n for n in names if n]
    assert len(set(named)) == len(named) >= 1 + len(STUDIES)


def test_qwen_study_has_exactly_its_two_models():
    names = ["Qwen2.5-1.5B-Instruct", "Qwen2.5-7B-Instruct"]
    for files in [(BASE, QWEN), *((BASE, QWEN, p) for p in PERSONAS)]:
        assert [m["name"] for m in config.load(*files)["models"]] == names


def test_defaults_are_filled_at_every_depth_and_the_input_is_left_alone():
    before = yaml.safe_dump(SMALL)
    resolved = config.resolve(SMALL)
    assert yaml.safe_dump(SMALL) == before
    assert resolved["statistics"] == {"replicates": 2000, "confidence": 0.95}
    assert resolved["calibration"]["batches"] == [1, 8, 64]
    assert resolved["models"][0]["revision"] is None
    assert resolved["prompt"]["instruction"] == "{question}"
    assert resolved["budgets"]["T"] == [8, 32]  # sorted


def test_there_are_broken_configs():
    assert len(BROKEN) >= 12


@pytest.mark.parametrize("path", BROKEN, ids=lambda p: p.stem)
def test_broken_config_ends_with_one_line_that_names_the_key(path, capsys, monkeypatch):
    expected = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# expect: ")
    monkeypatch.setattr(sys, "argv", ["flopstat", "study-name", str(BASE), str(path)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    out, err = capsys.readouterr()
    assert (left.value.code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("flopstat: ")
    assert expected in err
    assert "hunter2" not in err  # the password in all of them that hold one


def numbers(node, name=""):
    """Name, least and greatest of every number that the schema knows."""
    if {"integer", "number"} & set([node["type"]] if isinstance(node.get("type"), str) else node.get("type", [])):
        yield name, node.get("minimum", node.get("exclusiveMinimum")), node.get("maximum")
    for key, child in node.get("properties", {}).items():
        yield from numbers(child, f"{name}.{key}")
    if isinstance(node.get("items"), dict):
        yield from numbers(node["items"], f"{name}[]")


def test_every_number_of_a_config_has_two_limits():
    found = list(numbers(config.schema()))
    assert len(found) > 40
    assert [name for name, *limits in found if None in limits] == []


def test_what_aliases_made_endless_is_refused_whoever_read_it():
    """Snakemake reads configs itself, and takes every alias."""
    inside: list = []
    inside.append(inside)
    many: list = ["x"]
    for _ in range(30):
        many = [many] * 4
    for laws in (inside, many, [["x"] * 1000] * 101):
        with pytest.raises(InputError, match="config: more than 100000 values, or 100 in one another"):
            config.resolve(SMALL | {"laws": laws})
    shared = ["fp32"]
    models = [{"name": name, "source": "ladder", "precisions": shared} for name in "ab"]
    assert config.arms(config.resolve(SMALL | {"models": models})) == ["a@fp32", "b@fp32"]


def test_a_config_longer_than_people_write_is_not_read(tmp_path):
    (tmp_path / "long.yaml").write_text("title: " + "a" * (1 << 20), encoding="utf-8")
    with pytest.raises(InputError, match="longer than 1048576 bytes"):
        config.load(BASE, tmp_path / "long.yaml")


@pytest.mark.parametrize("content", [b"study: \xff\xfe", b"a: b: c\n  - [", b"- a list", b"", b"%PDF-1.5"])
def test_file_that_is_no_config_names_the_file(tmp_path, content):
    path = tmp_path / "noise.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"noise\.yaml"):
        config.load(BASE, path)


def test_study_name_on_the_command_line():
    command = [sys.executable, "-m", "flopstat.cli", "study-name", str(BASE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ladder\n", "")
    done = subprocess.run([*command, "absent.yaml"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == ["flopstat: absent.yaml: no such config file"]
