"""The paper: every number follows from named cells, hostile text is printed and not obeyed, studies that lack a part still typeset."""

import json
import os
import re
import shutil
import subprocess
import zlib
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopstat import assumptions, latex, paper, paper_study, paper_tables, paper_text, sourced, tables

HOSTILE = r"\input{/etc/passwd} 100% $5 a_b #1 {x} ~ ^ & | < > \" ` é" + "\n\x00\\\\"
needs_latex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")


@given(st.text(max_size=40))
def test_escape_leaves_nothing_that_latex_acts_on(text):
    out = latex.escape(text)
    rest = re.sub(r"\\text[a-z]+\{\}|\\[&%$#_{}]", "", out)
    assert not set(rest) & set('\\&%$#_{}~^<>|"`')
    assert out.isascii()
    assert out.isprintable()
    plain = "".join(c for c in text if c.isascii() and c.isalnum())
    assert all(c in out for c in plain)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1, "1.00"),
        (12.345, "12.3"),
        (-2.5, "-2.50"),
        (99_999, "99999"),
        (0.00123, "0.00123"),
        (123456, r"$1.23\times10^{5}$"),
        (1.5e-7, r"$1.50\times10^{-7}$"),
        (float("nan"), "--"),
        (float("inf"), "--"),
        (5e-324, r"$4.94\times10^{-324}$"),
        (1.7e308, r"$1.70\times10^{308}$"),
        (999_999.0, r"$1.00\times10^{6}$"),
        (-2.5e7, r"$-2.50\times10^{7}$"),
    ],
)
def test_number(value, text):
    assert latex.number(value) == text


@given(st.floats(1e-12, 1e15))
def test_number_is_right_to_its_digits(value):
    text = latex.number(value).strip("$").replace(r"\times10^{", "e").replace("}", "")
    assert float(text) == pytest.approx(value, rel=6e-3)
    assert re.fullmatch(r"\d+(\.\d+)?(e-?\d+)?", text)
    assert float(text.split("e")[0]) < (10 if "e" in text else 1e5 + 1)


@pytest.mark.parametrize(
    ("operation", "cells", "text"),
    [
        ("times 100, 1 decimal", [["0.12345"]], "12.3"),
        ("times 100, 1 decimal", [["-0.12345"]], "$-$12.3"),
        ("times 100, 1 decimal", [["-0.0001"]], "0.0"),
        ("significant, 3 digits", [["-2.5e7"]], r"$-2.50\times10^{7}$"),
        ("times 100, 1 decimal", [[""]], "--"),
        ("times 100 ln 2, 2 decimals", [["0.02"]], "1.39"),
        ("significant, 3 digits", [["inf"]], "--"),
        ("number of rows", [["", ""]], "2"),
        ("number of distinct values", [["a", "b", "a"]], "2"),
        ("number below 1", [["0.5", "1", "", "0.99"]], "2"),
        ("sum", [["1", "2"]], "3"),
        ("first less the others", [["9"], ["2"], ["3"]], "4"),
        ("100 times sum over sum, 1 decimal", [["1", "2"], ["4", "4"]], "37.5"),
        ("text", [["a_b κ"]], r"a\_b \textsymkappa{}"),
    ],
)
def test_operations(operation, cells, text):
    assert sourced.OPERATIONS[operation](cells) == text


def test_an_operation_on_one_cell_refuses_two():
    with pytest.raises(ValueError, match="one cell is wanted"):
        sourced.OPERATIONS["integer"]([["1", "2"]])


def test_cells_are_found_by_key_by_part_of_a_text_by_number_and_in_json(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\nx,1\nx,2\ny,3\n", encoding="utf-8")
    (tmp_path / "t.json").write_text('{"a": {"b": [1.5, null]}}', encoding="utf-8")
    sources = sourced.Sources(tmp_path, ["t.csv", "t.json"])
    assert [row["b"] for row in sources.rows("t.csv", a="x")] == ["1", "2"]
    assert [sources.select(row.cell("b")) for row in sources.rows("t.csv")] == [["1"], ["2"], ["3"]]
    assert sources.select(sourced.Cell("t.csv", (("b ~", "3"),), "a")) == ["y"]
    assert sources.select(sourced.Cell("t.csv", (("a", "x"),), "")) == ["", ""]
    assert sources.select(sourced.Cell("t.json", (("key", "a.b.0"),), "value")) == ["1.5"]
    assert sources.one("t.json", key="a.b.1")["value"] == ""
    with pytest.raises(sourced.InputError, match="not among the files"):
        sources.table("other.csv")
    with pytest.raises(sourced.InputError, match="2 rows with"):
        sources.one("t.csv", a="x")


@pytest.fixture(scope="module")
def source(root):
    return (root / "paper" / "flopstat.tex").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def appendix(study):
    """Small tables of what the synthetic study does not fit, with words that LaTeX would act on."""
    law = {"arm": "all", "T": pd.NA, "certified": False, "verdict": "50% of $x_1$ & {more}"}
    rows = [law | {"law": "surface", "parameter": f"b_{i}", "estimate": -0.1 * i, "low": -1.0, "high": None} for i in range(4)]
    laws = pd.concat([study["tables"]["laws"], pd.DataFrame(rows)], ignore_index=True)
    bits = {"model": "ladder-30k", "n_params": 27072, "precision": "rtn3", "bits_effective": 4.5, "weight_bits": 121_824.0, "T": 64}
    bits |= {"accuracy": 0.2, "accuracy_low": 0.1, "accuracy_high": 0.3, "p_on_frontier": 0.5, "four_bit_effective": True}
    gradient = {"type": "logs", "N": 27072.0, "T": 64.0, "P": 1, "B": 1, "q": 16.0}
    gradient |= {"low": -0.01, "high": 0.03, "inside": False, "flags": None}
    local = {"T": 64, "kappa": 0.01, "low": -0.01, "high": 0.02, "band_low": -0.02, "band_high": 0.03}
    exponent = {"law": "k-bit", "exponent": "b", "estimate": 0.08, "low": 0.07, "high": 0.09, "certified": True, "source": "all & sundry"}
    ratio = {"study": "synthetic", "arm_a": "a", "arm_b": "b", "same_model": True, "T": 64, "n_problems": 12, "n_samples": 8, "ratio": 0.5}
    return study["tables"] | {
        "laws": tables.validate(laws, "laws"),
        "weight_bits": pd.DataFrame([bits | {"arm": "ladder-30k@rtn3", "four_bit_nominal": False}]),
        "surface_gradients": pd.DataFrame([gradient | {"axis": axis, "gradient": 0.02} for axis in ("N", "P")]),
        "local_kappa": pd.DataFrame([local | {"arm": "ladder-30k@fp32", "P": p} for p in (3, 4)]),
        "exponents": pd.DataFrame([exponent]),
        "variance_ratio": pd.DataFrame(
            [ratio | {"low": 0.4, "high": 0.6, "correlation": 0.5, "estimand": "problems like these", "flags": None}]
        ),
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory, study, study_config, appendix, write_paper):
    folder = tmp_path_factory.mktemp("paper")
    (ledger, texts), files = write_paper(folder, study_config, appendix, study["cards"], study["measured"][0])
    return folder, ledger, texts, files


def test_every_number_follows_from_its_cells(built, source):
    folder, ledger, _, files = built
    assert paper.check(folder, files, source) == []
    listed = tables.read("numbers", folder / paper.NUMBERS)
    assert set(listed["number"]) == ledger.numbers.keys()
    assert listed["file"].isin([*files, paper.SETTINGS, paper.ASSUMPTIONS]).all()
    assert len(listed) > 200


def test_macros_and_named_numbers_are_those_of_the_source(built, source):
    _, ledger, texts, _ = built
    body = source.split(r"\begin{document}")[1]
    assert set(re.findall(r"\\(FS[A-Z][A-Za-z]+)", body)) == texts.keys()
    assert {name for name in re.findall(r"\\FS\{([^{}]+)\}", source) if name != "#1"} == {n for n in ledger.numbers if "." not in n}


def test_macros_hold_the_tables_numbers(built, study, as_printed):
    folder, ledger, texts, _ = built
    numbers = {name: number.text for name, number in ledger.numbers.items()}
    assert numbers["Title"] == r"100\% of \$5 \& more\_"
    assert numbers["Processor"] == r"a\_cpu \#1"
    assert [numbers[name] for name in ("NStudy", "NCalibration", "NArms", "K")] == ["12", "12", "4", "8"]
    cells = study["tables"]["configurations"]
    assert int(numbers["NCells"]) == (cells["split"] == "study").sum()
    assert sum(float(numbers[f"Share{name}"]) for name in ("Answered", "NoAnswer", "Truncated")) == pytest.approx(100, abs=0.2)
    assert texts["FSArmRows"].count(r"\\") == 4
    assert 1 <= texts["FSBestRows"].count(r"\\") <= paper_tables.BEST_ROWS
    assert all(body.count("{") == body.count("}") for body in [*texts.values(), *numbers.values()])
    single = cells[(cells["strategy"] == "single") & (cells["split"] == "study") & (cells["T"] == 64) & (cells["arm"] == "ladder-30k@fp32")]
    assert f"{100 * single['accuracy'].iloc[0]:.1f} [" in as_printed(texts["FSArmRows"].split(r"\\")[0], ledger)
    assert r"\FSdraftfalse" in (folder / paper.MACROS).read_text(encoding="utf-8")


def allowed(source: str) -> str:
    """The source without comments, preamble, and where digits are no results: labels, keys, sizes, and 0, 1, 2 and 16 of definitions."""
    body = re.sub(r"(?<!\\)%.*|\\\$", "", source).split(r"\begin{document}")[1]
    body = re.sub(r"\\(vspace|includegraphics|label|ref|citep?t?|cite|FS|bibliography)\*?(\[[^]]*\])?\{[^{}]*\}", "", body)
    body = re.sub(r"\\plot\{[a-z_]+\}\{[\d.]+\}", "", body)
    body = re.sub(r"\\setlength\{[^{}]*\}\{[^{}]*\}|GSM8K|int8|nf4|ln 2|\\kappa\\ln 2", "", body)
    return re.sub(r"\$[^$]*\$", lambda found: re.sub(r"(?<!\d)(0|1|2|16)(?!\d)", "", found[0]), body)


def test_no_result_is_typed_by_hand(source):
    assert re.findall(r".{0,40}\d.{0,20}", allowed(source)) == []
    assert re.search(r"\d", allowed(source.replace(r"\FSAbstractResult", "It answers 73 percent right.")))
    assert re.search(r"\d", allowed(source.replace(r"\FSAbstractResult", "$A=0.73$")))


def changed(folder: Path, file: str, row: dict[str, str], column: str) -> None:
    """Take a fifth off one cell of a table."""
    table = pd.read_csv(folder / file, dtype=str, keep_default_na=False)
    keys = [(table[key] == value) for key, value in row.items() if key != "data row"]
    at = pd.concat(keys, axis=1).all(axis=1).idxmax()
    table.loc[at, column] = str(0.8 * float(table.loc[at, column]))
    table.to_csv(folder / file, index=False, lineterminator="\n")


@pytest.mark.parametrize("file", ["configurations.csv", "laws.csv", "calibration.csv", "frontier.csv"])
def test_a_changed_cell_is_found_and_changes_the_paper(built, source, study_config, tmp_path, file):
    folder, _, _, files = built
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    listed = pd.read_csv(copy / paper.NUMBERS, dtype=str, keep_default_na=False)
    # A value that is printed alone, not the cell that decides which row is shown.
    shown = listed[
        (listed["file"] == file)
        & listed["operation"].str.contains("times 100|significant")
        & ~listed["shown"].isin(["--", "0", "0.0", "0.00"])
    ]
    shown = shown[~shown["column"].isin(["value", "at"]) | (file == "calibration.csv")]
    cell = shown.iloc[-1]
    changed(copy, file, json.loads(cell["row"]), cell["column"])
    wrong = paper.check(copy, files, source)
    assert any(line.startswith(f"{cell['number']}: the paper shows ") and cell["row"] in line for line in wrong)
    before = (copy / paper.MACROS).read_text(encoding="utf-8")
    paper.write(copy, files, study_config, [])
    assert (copy / paper.MACROS).read_text(encoding="utf-8") != before
    assert paper.check(copy, files, source) == []
    if file == "frontier.csv" and shutil.which("pdflatex"):
        texts = [typeset(place, source, place.parent / f"tex{i}") for i, place in enumerate((folder, copy))]
        assert texts[0] != texts[1]


def typeset(folder: Path, source: str, out: Path) -> bytes:
    """One pass of pdflatex over the paper; the text of the PDF."""
    out.mkdir()
    (out / "flopstat.tex").write_text(source, encoding="utf-8")
    line = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "flopstat.tex"]
    env = os.environ | {"TEXINPUTS": f"{folder / 'paper'}:", "SOURCE_DATE_EPOCH": "0", "FORCE_SOURCE_DATE": "1"}
    done = subprocess.run(line, cwd=out, env=env, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:].decode(errors="replace")
    return pdf_text((out / "flopstat.pdf").read_bytes())


def pdf_text(pdf: bytes) -> bytes:
    """All strings in a PDF's streams; the text fonts keep ASCII where it is."""
    out = []
    for raw in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL):
        try:
            content = zlib.decompress(raw)
        except zlib.error:
            continue
        out += re.findall(rb"\(((?:\\.|[^\\()])*)\)", content)
    return b"".join(out)


@needs_latex
def test_hostile_texts_are_printed_and_a_draft_links_to_the_files(tmp_path, study, study_config, appendix, write_paper, source):
    arms = {"arm": {"ladder-30k@fp32": "ladder-30k@fp32"}}
    laws = appendix["laws"].replace(arms).assign(verdict=HOSTILE.replace("\x00", "").replace("\n", " "))
    wanted = study_config | {"title": HOSTILE.replace("\n", ""), "paper": {"draft": True}}
    measured = {"identity": {"fingerprint": {"processor": HOSTILE, "threads": 1}}, "latency": {"held_out_error": 0.1}}
    _, files = write_paper(tmp_path, wanted, appendix | {"laws": laws}, study["cards"], measured)
    assert paper.check(tmp_path, files, source) == []
    printed = (tmp_path / paper.MACROS).read_text(encoding="utf-8")
    assert r"\input" not in printed
    assert r"\FSdrafttrue" in printed
    text = typeset(tmp_path, source, tmp_path / "tex")
    assert text.count(b"etc/passwd") >= 2
    for file in ("frontier.csv", "configurations.csv", "laws.csv", "paper/settings.csv"):
        assert f"../{file}".encode() in text


def test_a_tampered_paper_is_found(built, source, tmp_path):
    folder, ledger, _, files = built
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    path = copy / paper.MACROS
    macros = path.read_text(encoding="utf-8")
    path.write_text(macros.replace(r"\FSnumber{NStudy}{12}", r"\FSnumber{NStudy}{13}"), encoding="utf-8")
    assert [line.split(":")[0] for line in paper.check(copy, files, source)] == ["NStudy"]
    path.write_text(macros + "\\FSnumber{New}{42}{laws.csv}\n", encoding="utf-8")
    assert paper.check(copy, files, source) == ["New: in macros.tex, and in no row of numbers.csv"]
    path.write_text(macros.replace("The cheapest configuration", "About 17 of them. The cheapest"), encoding="utf-8")
    assert ["a digit without a source" in line for line in paper.check(copy, files, source)] == [True]
    path.write_text(macros, encoding="utf-8")
    assert paper.check(copy, files, source + r"\FS{NoSuch}") == ["flopstat.tex: uses NoSuch, which does not exist"]
    assert paper.check(copy, files, source) == []
    assert ledger.numbers["NStudy"].text == "12"


def test_a_study_of_one_model_without_laws(tmp_path, study, study_config, write_paper, source):
    one = "ladder-30k"
    made = dict(study["tables"])
    for name in ("configurations", "frontier", "calibration"):
        made[name] = made[name][made[name]["arm"].str.startswith(one)]
    made["laws"] = made["laws"].iloc[:0]
    single = {"cost": "flops", "small": one, "large": one, "kind": "single", "status": "one_model", "unit": "FLOP"}
    made["crossovers"] = pd.DataFrame([single | dict.fromkeys(("at", "at_low", "at_high", "n_more"), float("nan"))])
    made["configurations"] = made["configurations"].assign(flops_per_correct=float("nan"))
    wanted = study_config | {"models": study_config["models"][:1]}
    wanted["dataset"] = wanted["dataset"] | {"n_calibration": 0}
    (ledger, texts), files = write_paper(tmp_path, wanted, made, study["cards"][:1], study["measured"][0], figures=())
    assert paper.check(tmp_path, files, source) == []
    assert texts["FSVotesSentence"] == paper_text.NO_LAWS
    assert texts["FSCrossoverSentences"].startswith("The study has one model")
    assert not texts["FSLawTables"] + texts["FSExponentRows"] + texts["FSGradientRows"]
    assert r"\FShas{laws}" not in (tmp_path / paper.MACROS).read_text(encoding="utf-8")
    assert ledger.numbers["NArms"].text == "2"
    if shutil.which("pdflatex"):
        assert b"Thestudyhasonemodel,sonocrosso" in typeset(tmp_path, source, tmp_path / "tex")


@pytest.mark.parametrize("status", ["found", "at_entry", "none_in_range", "one_model", "not_separable"])
@pytest.mark.parametrize("known", [True, False])
def test_every_crossover_has_a_sentence(tmp_path, as_printed, status, known):
    at = ["1e6", "1e5", "1e7", "30"] if known or status in ("found", "at_entry") else [""] * 4
    line = ["flops", "a_b", "c", "best", status, "FLOP", *at]
    header = "cost,small,large,kind,status,unit,at,at_low,at_high,n_more"
    (tmp_path / "crossovers.csv").write_text(f"{header}\n{','.join(line)}\n", encoding="utf-8")
    ledger = sourced.Ledger(sourced.Sources(tmp_path, ["crossovers.csv"]))
    sentence = as_printed(paper_text.crossovers(ledger), ledger)
    assert sentence.endswith(".")
    assert "nan" not in sentence
    assert status == "one_model" or r"a\_b" in sentence


@pytest.mark.parametrize(
    ("dataset", "text"),
    [
        ({"source": "ladder", "max_steps": 6}, "chains of one to 6 facts"),
        ({"source": "hub", "repo": "a_b/c", "revision": "0123456789abcdef"}, r"those of a\_b/c, revision \texttt{0123456789ab}."),
        ({"source": "local", "path": "secret/folder/50%_x.jsonl"}, r"the file \texttt{50\%\_x.jsonl}."),
    ],
)
def test_the_problems_origin_is_told(tmp_path, study_config, as_printed, dataset, text):
    wanted = study_config | {"dataset": study_config["dataset"] | dataset}
    tables.write(paper.settings(wanted), "settings", tmp_path / paper.SETTINGS)
    ledger = sourced.Ledger(sourced.Sources(tmp_path, [paper.SETTINGS]))
    printed = as_printed(paper_study.dataset(ledger, wanted), ledger)
    assert text in printed
    assert "secret" not in printed


@pytest.mark.parametrize("name", ["best_of_lowest_window", "weighted_majority", "single"])
def test_names_of_strategies_are_text_for_latex(name):
    assert "_" not in paper_text.strategy(name)


def test_every_assumption_of_the_code_is_a_sentence_of_the_paper(root, built, as_printed):
    found = assumptions.collect()
    marked = subprocess.run(
        [
            "grep",
            "-rnE",
            r"(^|[#[:space:]])ASSUME [^.\"'`]",
            "scripts",
            "workflow",
            "--include=*.py",
            "--include=*.smk",
            "--include=*.yaml",
        ],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert {line.split(":", 2)[0] + ":" + line.split(":", 2)[1] for line in marked if "assumptions.py" not in line} == set(
        found["file"] + ":" + found["line"].astype(str)
    )
    assert len(found) >= 40
    assert not (found["topic"] == assumptions.OTHER).any()  # a new module's topic is to be named
    assert found["text"].str.endswith(".").all()
    assert found["text"].str.match(r"[A-Z]|\w+_\w+").all()
    assert found["text"].str.len().min() > 30
    _, ledger, texts, _ = built
    printed = as_printed(texts["FSAssumptions"], ledger)
    assert all(latex.escape(text) in printed for text in found["text"])


def test_an_assumption_runs_over_the_comment_lines_that_follow(tmp_path):
    (tmp_path / "scripts").mkdir()
    code = '# ASSUME one thing\n# and its end\nX = 1  # ASSUME two\n# not this\n"""Text. # ASSUME three"""\n'
    (tmp_path / "scripts" / "costs.py").write_text(code, encoding="utf-8")
    found = assumptions.collect(tmp_path)
    assert found["text"].tolist() == ["One thing and its end.", "Two.", "Three."]
    assert found["line"].tolist() == [1, 3, 5]
    assert set(found["topic"]) == {"Cost"}
    before = assumptions.digest(tmp_path)
    (tmp_path / "scripts" / "costs.py").write_text("\n" + code, encoding="utf-8")
    assert assumptions.digest(tmp_path) != before


def test_every_citation_was_looked_up_and_every_entry_is_cited(root, source):
    entries = (root / "paper" / "references.bib").read_text(encoding="utf-8")
    keys = re.findall(r"^@\w+\{(\w+),", entries, re.MULTILINE)
    cited = {key for group in re.findall(r"\\cite[pt]?\{([^{}]*)\}", source) for key in group.split(",")}
    assert cited == set(keys)
    assert len(keys) == len(set(keys))
    assert len(re.findall(r"^% .*\(.*\d{8,}.*\).*\n@", entries, re.MULTILINE)) == len(keys)


def test_figures_have_a_caption_that_says_what_was_varied_and_on_what(source):
    found = re.split(r"\\plot\{([a-z_]+)\}\{[\d.]+\}", source.split(r"\begin{document}")[1])
    captions = {name: re.split(r"\n(?:\n|\\plot|\\topic)", text)[0] for name, text in zip(found[1::2], found[2::2], strict=True)}
    assert len(captions) == 16
    for name, caption in captions.items():
        assert "aried" in caption, name
        assert re.search(r"\\FS\{N(Study|Calibration)\}|no problem|fresh problems", caption), name
        assert re.search(r"interval|bands?:|[Bb]ars:|limits", caption), name
