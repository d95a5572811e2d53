"""`flopstat grade`: files from anywhere, states and balance, what is refused and how it is named, and that `evaluate` reads the grades."""

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from flopstat import tables
from flopstat.cli import app
from flopstat.errors import InputError
from flopstat.evaluation import evaluate_grades
from flopstat.submissions import grade_file

GOLDS = ["18", "1,000", "-5"]
TEXTS = {
    "right": ("so\n#### {}", "stop"),
    "wrong": ("#### 7", "eos"),
    "none": ("I cannot tell.", "stop"),
    "cut": ("so 18 and 1000 and", "length"),
    "cut, answered": ("#### {}\nand", "length"),
    "broken": ("", "engine_error"),
    "huge": ("#### " + "9" * 99, None),
}


def rows_of(kinds=tuple(TEXTS), problems=3):
    """One sample of each kind for each problem."""
    return [
        {"problem_id": str(p), "model": "m", "n_params": 7, "precision": "fp32", "sample": s, "text": TEXTS[kind][0].format(GOLDS[p])}
        | ({"finish_reason": TEXTS[kind][1]} if TEXTS[kind][1] else {})
        | {"n_tokens": 10 + s}
        for p in range(problems)
        for s, kind in enumerate(kinds)
    ]


GOOD = rows_of(("right", "wrong"))


@pytest.fixture
def files(tmp_path):
    """Write problems and samples; returns their paths and that of the grades."""
    problems = tmp_path / "problems.jsonl"
    problems.write_text("".join(json.dumps({"question": "q", "answer": f"1+1\n#### {g}"}) + "\n" for g in GOLDS))

    def write(rows, suffix=".jsonl"):
        samples = tmp_path / f"samples{suffix}"
        if suffix == ".parquet":
            pd.DataFrame(rows).to_parquet(samples)
        else:
            samples.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return problems, samples, tmp_path / "grades.csv"

    return write


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_states_balance_and_grades_are_written(files, suffix):
    problems, samples, out = files(rows_of(), suffix)
    lines = grade_file(problems, samples, "gsm8k", out, 1)
    table = tables.validate(
        pd.read_csv(out, dtype={"problem_id": str, "answer": str}).assign(prompt_tokens=0, mean_logprob=0.0), "submission_grades"
    )
    assert list(pd.read_csv(out).columns[:8]) == ["problem_id", "model", "precision", "sample", "T", "answer", "state", "correct"]
    assert table["state"].tolist() == ["answered", "answered", "no_answer", "truncated", "answered", "engine_error", "invalid"] * 3
    assert table["correct"].tolist() == [True, False, False, False, True, False, False] * 3
    assert table["answer"].dropna().tolist()[:6] == ["18", "7", "18", "1000", "7", "1000"]
    assert (table["T"] == 16).all()
    text = "\n".join(lines)
    assert "asked 21 = answered 9 + no_answer 3 + truncated 3 + failed 6 (timeout 0, invalid 3, engine_error 3)" in text
    assert "answered = correct 6 + wrong 3" in text
    found = re.search(r"accuracy ([\d.]+) \[([\d.]+), ([\d.]+)\]", text)
    accuracy, low, high = (float(x) for x in found.groups())
    assert low < accuracy < high
    assert accuracy == pytest.approx(2 / 7, abs=1e-4)
    assert "with failed ones right at most 0.5714" in text


def test_two_processes_write_the_same_file(files, tmp_path):
    problems, samples, out = files(rows_of())
    lines = grade_file(problems, samples, "gsm8k", out, 1)
    assert grade_file(problems, samples, "gsm8k", tmp_path / "two.csv", 2)[1:] == lines[1:]
    assert (tmp_path / "two.csv").read_bytes() == out.read_bytes()


def test_processes_that_die_at_their_start_are_noticed(files, tmp_path):
    """They would be waited for without end if more was sent to them than a pipe holds."""
    problems, samples, out = files(GOOD[:2])
    problems.write_text("".join(json.dumps({"question": "q", "answer": f"#### {i}"}) + "\n" for i in range(20_000)))
    script = tmp_path / "dies.py"
    script.write_text(
        "import os, sys\nfrom pathlib import Path\nfrom flopstat.submissions import grade_file\n"
        "if __name__ != '__main__':\n    os._exit(3)\n"
        "grade_file(*(Path(p) for p in sys.argv[1:3]), 'gsm8k', Path(sys.argv[3]), 2)\n"
    )
    done = subprocess.run([sys.executable, script, problems, samples, out], capture_output=True, text=True, timeout=120)
    assert "a grading process died" in done.stderr
    assert not out.exists()


def test_evaluate_reads_the_grades(files):
    rows = rows_of(("right", "right", "wrong", "cut"))
    rows += [row | {"sample": -1} for row in rows if row["sample"] == 0]
    problems, samples, out = files([row | {"mean_logprob": -0.5 - row["sample"]} for row in rows])
    lines = grade_file(problems, samples, "gsm8k", out, 1)
    assert any("m@fp32, greedy: accuracy 1.0000" in line for line in lines)
    names = ["single", "greedy", "majority", "best_of_mean_logprob", "oracle"]
    table = evaluate_grades(out, [1, 2, 4], names).set_index(["strategy", "k"])
    assert table.loc[("single", 1), "accuracy"] == pytest.approx(0.5)
    assert table.loc[("oracle", 2), "accuracy"] == pytest.approx(5 / 6)
    assert table.loc[("best_of_mean_logprob", 4), "accuracy"] == pytest.approx(1.0)
    assert (table.loc["majority", "n_truncated"] == 3).all()


def test_a_parquet_with_gaps_and_further_columns_is_read(files):
    rows = [row | {"n_tokens": 5.0 if row["sample"] else np.nan, "log": "x", "n_params": None} for row in rows_of(("right", "cut"))]
    problems, samples, out = files(rows, ".parquet")
    grade_file(problems, samples, "gsm8k", out, 1)
    table = pd.read_csv(out)
    assert "n_tokens" not in table  # one is unknown
    assert (table["T"] == 0).all()


def test_other_graders_judge_by_their_own_rule(files):
    problems, samples, out = files(rows_of(("right", "cut")))
    for name, states in (("gsm8k-strict", "no_answer"), ("gsm8k-flexible", "answered"), ("math", "truncated"), ("exact", "truncated")):
        lines = grade_file(problems, samples, name, out, 1)
        table = pd.read_csv(out)
        assert ("another tool's verdict" in lines[0]) == name.startswith("gsm8k-")
        assert table["correct"].tolist()[::2] == [True] * 3
        assert set(table["state"][1::2]) == {states}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (GOOD[:-1], "m@fp32: problem_id '2' lacks sample 1 (1 missing in all)"),
        (GOOD[2:], "m@fp32: problem_id '0' lacks sample 0 (2 missing in all)"),
        ([*GOOD, GOOD[0]], "m@fp32: problem_id '0' has sample 0 2 times"),
        ([*GOOD, GOOD[0] | {"sample": -1}], "problem_id '1' lacks sample -1"),
        ([GOOD[0] | {"problem_id": "eggs"}, *GOOD[1:]], ":1: problem_id 'eggs' is not in the problems file"),
        ([GOOD[0] | {"sample": -2}], ":1: sample -2; samples are numbered from 0"),
        ([GOOD[0] | {"sample": 10**9}], "number samples from 0 without gaps"),
        ([GOOD[0] | {"sample": True}], ":1: sample 'True' is no int"),
        ([GOOD[0] | {"text": None}], ":1: text missing"),
        ([GOOD[0] | {"text": 18}], ":1: text '18' is no str"),
        ([GOOD[0] | {"temprature": 1}], ":1: unknown field 'temprature'"),
        ([GOOD[0] | {"n_tokens": -1}], ":1: n_tokens -1 is negative"),
        ([GOOD[0] | {"n_tokens": "9"}], ":1: n_tokens '9' is no int"),
        ([GOOD[0] | {"mean_logprob": float("nan")}], ":1: mean_logprob 'nan' is no float"),
        ([{k: v for k, v in GOOD[0].items() if k != "n_params"}], ":1: n_params missing"),
        (["[1]"], ":1: not a JSON object"),
        (["{"], ":1: not JSON"),
        (["[" * 100_000], ":1: not JSON"),
        ([], "holds no samples"),
        (["", " "], "holds no samples"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_what_is_wrong_is_named_and_nothing_is_written(files, rows, message):
    problems, samples, out = files(rows)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        grade_file(problems, samples, "gsm8k", out, 1)
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_wrong_files_are_named(files, tmp_path):
    problems, samples, out = files(GOOD)
    for arguments, message in (
        ((problems, tmp_path / "no.jsonl", "gsm8k", out), "no.jsonl: not readable"),
        ((problems, tmp_path / "no.parquet", "gsm8k", out), "no.parquet: not readable"),
        ((problems, tmp_path / "no.txt", "gsm8k", out), "not .jsonl or .parquet"),
        ((tmp_path / "no.jsonl", samples, "gsm8k", out), "no such file"),
        ((problems, samples, "gsm9k", out), "'gsm9k': unknown"),
        ((problems, samples, "gsm8k", tmp_path / "g.txt"), "not .csv or .parquet"),
    ):
        with pytest.raises(InputError, match=message):
            grade_file(*arguments, 1)
    (tmp_path / "text.parquet").write_text("no parquet")
    pd.DataFrame(GOOD).drop(columns="text").to_parquet(tmp_path / "lacks.parquet")
    (tmp_path / "latin.jsonl").write_bytes(b'{"text": "\xe9"}\n')
    problems.write_text(json.dumps({"question": "q", "answer": "#### many"}) + "\n")
    for name, message in (
        ("text.parquet", "not readable as parquet"),
        ("lacks.parquet", "lacks the column text"),
        ("latin.jsonl", "not UTF-8"),
    ):
        with pytest.raises(InputError, match=message):
            grade_file(problems, tmp_path / name, "exact", out, 1)
    with pytest.raises(InputError, match="problem 0: the gold answer 'many' is no number"):
        grade_file(problems, samples, "gsm8k", out, 1)


def test_texts_that_no_table_can_hold_are_graded(files):
    texts = ["#### \ud800", "####\0 18", "#### NA", '#### "18", he said', "x" * 100_000]
    rows = [GOOD[0] | {"problem_id": str(p), "sample": s, "text": text} for p in range(3) for s, text in enumerate(texts)]
    problems, samples, out = files(rows)
    grade_file(problems, samples, "exact", out, 1)
    table = evaluate_grades(out, [1], ["single"])
    assert table["n_asked"].tolist() == [15]
    assert table["n_answered"].tolist() == [12]
    assert r"\ud800" in out.read_text(encoding="utf-8")


def test_the_command_prints_the_balance(files):
    problems, samples, out = files(GOOD)
    done = CliRunner().invoke(app, ["grade", "--problems", str(problems), "--samples", str(samples), "--out", str(out), "--jobs", "1"])
    assert done.exit_code == 0, done.output
    assert "asked 6 = answered 6 + no_answer 0 + truncated 0 + failed 0" in done.output
