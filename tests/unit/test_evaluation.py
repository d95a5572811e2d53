"""`flopstat evaluate`: grades of any origin, streamed; the numbers are those of the estimators."""

import contextlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from flopstat import evaluation, tables
from flopstat.cli import app
from flopstat.errors import InputError
from flopstat.estimators import majority_at_all_k, pass_at_k


def make_grades(n=40, k=8, seed=0, split=None, greedy=True):
    """Grades of two budgets; answer '7' is right. One chain in ten has no answer, and one chain failed."""
    rng = np.random.default_rng(seed)
    rows = []
    for t in (16, 64):
        p = np.clip(rng.beta(2, 2, n) * (0.7 if t == 16 else 1.0), 0, 1)
        for i in range(n):
            for s in range(-1 if greedy else 0, k):
                right = rng.random() < p[i]
                silent = rng.random() < 0.1
                state = "truncated" if silent else "answered"
                rows.append(
                    {
                        "problem_id": f"{split or 'p'}{i}",
                        "model": "m",
                        "precision": "fp32",
                        "T": t,
                        "sample": s,
                        "answer": None if silent else "7" if right else str(rng.integers(1, 4)),
                        "state": state,
                        "correct": bool(right and not silent),
                        "mean_logprob": rng.normal() + right,
                        "difficulty": i % 3,
                    }
                    | ({"split": split} if split else {})
                )
    rows[3] |= {"state": "timeout", "answer": None, "correct": False}
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def grades():
    return make_grades()


@pytest.fixture(params=["parquet", "csv"])
def path(request, grades, tmp_path):
    file = tmp_path / f"grades.{request.param}"
    shuffled = grades.sample(frac=1, random_state=1)
    shuffled.to_parquet(file, row_group_size=100) if request.param == "parquet" else shuffled.to_csv(file, index=False)
    return file


def test_numbers_are_those_of_the_estimators(path, grades):
    table = evaluation.evaluate_grades(path, [1, 4, 8], ["single", "greedy", "majority", "oracle", "weighted_majority"])
    tables.validate(table, "evaluation")
    assert sorted(table["T"].unique()) == [16, 64]
    assert len(table) == 2 * (1 + 1 + 3 * 3)
    for t in (16, 64):
        part = grades[(grades["T"] == t) & (grades["sample"] >= 0)].sort_values(["problem_id", "sample"])
        answer = part["answer"].fillna("-1").replace("7", "0").astype(int).to_numpy().reshape(40, 8)
        rows = table[table["T"] == t].set_index(["strategy", "k"])
        assert rows.loc[("single", 1), "accuracy"] == pytest.approx(part["correct"].mean())
        assert rows.loc[("greedy", 1), "accuracy"] == pytest.approx(grades[(grades["T"] == t) & (grades["sample"] < 0)]["correct"].mean())
        vote = majority_at_all_k(answer, np.zeros(40, dtype=int)).mean(axis=0)
        for k in (1, 4, 8):
            assert rows.loc[("majority", k), "accuracy"] == pytest.approx(vote[k - 1])
            assert rows.loc[("oracle", k), "accuracy"] == pytest.approx(pass_at_k(answer == 0, k).mean())
        assert rows.loc[("oracle", 8), "note"] == "pass@k: needs a perfect verifier"
    assert (table["low"] <= table["accuracy"]).all()
    assert (table["accuracy"] <= table["high"]).all()


def test_conservation_and_failed_chains(path, grades):
    table = evaluation.evaluate_grades(path, [2], ["majority", "greedy"])
    assert (table["n_asked"] == table[["n_answered", "n_no_answer", "n_truncated", "n_failed"]].sum(axis=1)).all()
    assert table.groupby("strategy")["n_asked"].unique().map(list).to_dict() == {"greedy": [40], "majority": [320]}
    assert table["n_failed"].sum() == (grades["state"] == "timeout").sum() == 1


def test_the_share_of_problems_right_does_not_depend_on_spelling(tmp_path):
    """Two spellings of the right answer vote together: both were graded correct."""
    frame = pd.DataFrame(
        {
            "problem_id": "a",
            "model": "m",
            "precision": "fp32",
            "T": 8,
            "sample": range(5),
            "answer": ["1/2", "0.5", "3", "3", "3"],
            "state": "answered",
            "correct": [True, True, False, False, False],
        }
    )
    frame = pd.concat(
        [frame, frame.assign(problem_id="b", answer=["1/2", "0.5", "0.50", "3", "3"], correct=[True, True, True, False, False])]
    )
    frame.to_parquet(tmp_path / "g.parquet")
    table = evaluation.evaluate_grades(tmp_path / "g.parquet", [5], ["majority"])
    assert table["accuracy"].item() == pytest.approx(0.5)


def test_calibrated_best_of_learns_on_the_calibration_split(tmp_path):
    both = pd.concat([make_grades(60, 8, 1, "calibration"), make_grades(50, 8, 2, "study")])
    both.to_parquet(tmp_path / "g.parquet")
    table = evaluation.evaluate_grades(tmp_path / "g.parquet", [4], ["single", "calibrated_best_of", "best_of_mean_logprob"])
    assert (table["n_problems"] == 50).all()  # the calibration split is learnt from, not judged
    rows = table[table["T"] == 64].set_index("strategy")["accuracy"]
    assert rows["calibrated_best_of"] == pytest.approx(rows["best_of_mean_logprob"])  # one column: its rank is all there is
    assert rows["calibrated_best_of"] > rows["single"]
    make_grades(50, 8, 2, "study").to_parquet(tmp_path / "h.parquet")
    with pytest.raises(InputError, match="calibrated_best_of needs calibrated"):
        evaluation.evaluate_grades(tmp_path / "h.parquet", [4], ["calibrated_best_of"])


def test_strata_narrow_the_interval(tmp_path):
    frame = make_grades(60, 4, greedy=False)
    frame = frame[frame["T"] == 64].copy()
    frame["correct"] = (frame["difficulty"] == 0) | frame["correct"]
    frame["answer"] = np.where(frame["correct"], "7", frame["answer"])
    frame["state"] = np.where(frame["correct"], "answered", frame["state"])
    frame.to_parquet(tmp_path / "g.parquet")
    wide, narrow = (evaluation.evaluate_grades(tmp_path / "g.parquet", [1], ["single"], strata=s).iloc[0] for s in (None, "difficulty"))
    assert narrow["high"] - narrow["low"] < wide["high"] - wide["low"]


def test_composites_get_as_many_cuts_as_they_need(tmp_path):
    make_grades(40, 16).to_parquet(tmp_path / "g.parquet")
    table = evaluation.evaluate_grades(tmp_path / "g.parquet", [2, 4, 8], ["majority_of_best_of", "majority"], branches=4)
    composite = table[table["strategy"] == "majority_of_best_of"]
    assert sorted(set(composite["k"])) == [4, 8]  # a k that 4 does not divide has no P
    assert composite["flags"].fillna("").str.contains("monte_carlo").sum() == 0
    assert (composite["se_sampling"] > 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.drop(columns="correct"), "lacks the column correct"),
        (lambda g: g.assign(state="fine"), "state 'fine' is unknown"),
        (lambda g: g.iloc[:-1], "every problem needs each sample 0 to 7 once"),
        (lambda g: pd.concat([g, g.iloc[-1:]]), "every problem needs each sample 0 to 7 once"),
        (lambda g: g[g["sample"] < 0], "holds greedy chains only"),
        (lambda g: g.iloc[:0], "holds no chains"),
        (lambda g: g.assign(state=g["state"].where(g.index != 5)), "1 rows lack state; only answer may be missing"),
        (lambda g: g.assign(problem_id=g["problem_id"].where(g["problem_id"] != "p3")), "rows lack problem_id"),
        (lambda g: g[(g["sample"] >= 0) | (g["problem_id"] != "p3")], "39 greedy chains .* of 40 problems"),
        (lambda g: g.assign(problem_id=g["problem_id"].where((g["sample"] >= 0) | (g["problem_id"] != "p3"), "p4")), "40 greedy chains"),
    ],
)
def test_bad_grades_are_refused(tmp_path, grades, change, message):
    change(grades).to_parquet(tmp_path / "g.parquet")
    with pytest.raises(InputError, match=message):
        evaluation.evaluate_grades(tmp_path / "g.parquet", [2], ["majority"])


def test_command_line(tmp_path, grades):
    file, out = tmp_path / "g.csv", tmp_path / "e.csv"
    grades.to_csv(file, index=False)
    run = CliRunner().invoke(app, ["evaluate", "--grades", str(file), "--ks", "1,2", "--strategies", "majority,oracle", "--out", str(out)])
    assert run.exit_code == 0, run.output
    assert "8 rows" in run.output
    assert list(pd.read_csv(out).columns[:10]) == [
        "model",
        "precision",
        "T",
        "strategy",
        "k",
        "accuracy",
        "low",
        "high",
        "se_sampling",
        "se_problems",
    ]
    for arguments, message in (
        (["--ks", "0"], "not a list of positive integers"),
        (["--ks", "9"], "k = 9 exceeds its 8 samples"),
        (["--ks", "2", "--strategies", "luck"], "strategy 'luck': unknown"),
        (["--ks", "2", "--strategies", "best_of_self_certainty"], "needs self_certainty, which is not there"),
        (["--ks", "2", "--strata", "colour"], "lacks the column colour"),
        (["--ks", "2", "--confidence", "95"], "must lie between 0.5 and 1"),
    ):
        run = CliRunner().invoke(app, ["evaluate", "--grades", str(file), "--out", str(out), *arguments])
        assert isinstance(run.exception, InputError), (arguments, run.output)
        assert message in str(run.exception)
    table = pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file)
    for column, value in (("T", "many"), ("sample", 0.5), ("correct", 2), ("variant", "a")):
        table.assign(**{column: value}).to_parquet(tmp_path / "wrong.parquet")
        run = CliRunner().invoke(app, ["evaluate", "--grades", str(tmp_path / "wrong.parquet"), "--out", str(out), "--ks", "1"])
        assert f"column {column} is of type" in str(run.exception)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 10**6), byte=st.integers(0, 255), cut=st.booleans())
def test_damaged_grades_are_refused_in_one_line(tmp_path, at, byte, cut):
    rows = {"problem_id": ["a"] * 4 + ["b"] * 4, "sample": [0, 1, 2, 3] * 2, "model": "m", "precision": "fp32", "T": 8, "answer": "5"}
    file = tmp_path / "grades.parquet"
    pd.DataFrame(rows | {"state": "answered", "correct": [True, False] * 4}).to_parquet(file)
    data = bytearray(file.read_bytes())
    data[at % len(data)] = byte
    file.write_bytes(data[: at % len(data)] if cut else data)
    with contextlib.suppress(InputError):
        evaluation.evaluate_grades(file, [1, 2], ["single", "majority"])
