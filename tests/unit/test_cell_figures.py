"""Figures drawn from a study's own tables: lengths, variance, graders. Points are those of the tables, and bytes do not change."""

import numpy as np
import pandas as pd
import pytest

from flopstat import tables
from flopstat.agreement import disagreements, grader_shift
from flopstat.grader_figure import grader_table, plot_graders
from flopstat.length_figure import STATES, length_table, plot_lengths
from flopstat.style import write_data
from flopstat.variance_figure import plot_variance, variance_table

REFERENCES = dict.fromkeys(("ladder-30k", "ladder-160k"), "fp32")
TITLE = "100% of $5 & more_"
GRADERS = ["gsm8k", "gsm8k-strict", "math"]


def drawn_twice(draw, folder):
    """Draw twice, compare PDF, PNG and CSV byte by byte, and return the points."""
    made = []
    for name in ("first", "second"):
        paths = [folder / name / f"f.{suffix}" for suffix in ("pdf", "png", "csv")]
        data = draw(paths[:2])
        write_data(data, paths[2])
        made.append([path.read_bytes() for path in paths])
    assert made[0] == made[1]
    assert all(len(content) > 500 for content in made[0][:2])
    return data


@pytest.fixture(scope="module")
def configurations(study):
    return study["tables"]["configurations"]


def test_shares_of_states_are_those_of_the_grades(study, configurations):
    data = length_table(configurations)
    assert data[list(STATES)].sum(axis=1).to_numpy() == pytest.approx(1)
    for arm, grades in study["grades"].items():
        own = grades[(grades["split"] == "study") & (grades["sample"] >= 0)]
        for t, part in own.groupby("T"):
            row = data[(data["arm"] == arm) & (data["T"] == t)].iloc[0]
            answered = part["state"] == "answered"
            assert row["right"] == pytest.approx((answered & part["correct"]).mean())
            assert row["wrong"] == pytest.approx((answered & ~part["correct"]).mean())
            assert row["truncated"] == pytest.approx((part["state"] == "truncated").mean())
    assert data["truncated"].max() > 0.3
    assert data.groupby("arm")["T"].apply(list).map(lambda t: t == [16, 64]).all()


def test_lengths_are_drawn(configurations, tmp_path):
    data = drawn_twice(lambda paths: plot_lengths(configurations, REFERENCES, 0.95, TITLE, paths), tmp_path)
    assert set(data["arm"]) == set(configurations["arm"])
    assert (data["accuracy_low"] <= data["right"]).all()


def test_lengths_of_one_budget_and_of_many_models_are_drawn(configurations, tmp_path):
    one = configurations[(configurations["T"] == 64) & (configurations["precision"] == "fp32")]
    many = [one[one["model"] == "ladder-30k"].assign(model=f"m{i}", arm=f"m{i}@fp32", n_params=10 + i) for i in range(6)]
    data = plot_lengths(pd.concat(many), {f"m{i}": "fp32" for i in range(6)}, 0.95, TITLE, [tmp_path / "a.png"])
    assert data["model"].tolist() == [f"m{i}" for i in range(6)]


def test_squares_of_the_parts_add_up(configurations):
    data = variance_table(configurations)
    assert data["se_total"].to_numpy() ** 2 == pytest.approx((data["se_problems"] ** 2 + data["se_sampling"] ** 2).to_numpy())
    votes = data[(data["panel"] == "votes") & (data["arm"] == "ladder-30k@fp32")]
    assert votes["P"].tolist() == [1, 2, 4]
    assert (votes["T"] == 64).all()
    budgets = data[(data["panel"] == "budgets") & (data["arm"] == "ladder-30k@fp32")]
    assert budgets["T"].tolist() == [16, 64]
    assert budgets["se_total"].iloc[1] == votes["se_total"].iloc[0]
    cell = configurations[(configurations["arm"] == "ladder-30k@fp32") & (configurations["P"] == 4) & (configurations["B"] == 1)]
    cell = cell[(cell["strategy"] == "majority") & (cell["T"] == 64) & (cell["split"] == "study")].iloc[0]
    assert votes["se_sampling"].iloc[2] == cell["se_sampling"]


def test_variance_is_drawn_and_says_so_where_no_error_is_split(configurations, tmp_path):
    data = drawn_twice(lambda paths: plot_variance(configurations, REFERENCES, TITLE, paths), tmp_path)
    assert len(data) == 4 * (2 + 3)
    whole = configurations.assign(se_sampling=np.nan)
    assert plot_variance(whole, REFERENCES, TITLE, [tmp_path / "a.png"]).empty


@pytest.fixture(scope="module")
def graded():
    """Three graders of 10 problems, 3 samples and a greedy one: strict misses every fourth right chain, math takes one wrong chain."""
    rows, problems = [], []
    for i in range(10):
        split = "calibration" if i > 7 else "study"
        problems.append({"problem_id": str(i), "split": split, "difficulty": 1 + i % 2})
        for sample in range(-1, 3):
            for t in (16, 64):
                right = (i + sample) % 3 > 0 and t == 64
                verdict = {"gsm8k": right, "gsm8k-strict": right and (i + sample) % 4 > 0, "math": right or (i == 3 and sample == 0)}
                key = {"problem_id": str(i), "split": split, "sample": sample, "T": t, "gold": "1", "excerpt": "text"}
                said = {"answer": "1", "state": "answered"}
                rows += [key | said | {"grader": name, "correct": verdict[name]} for name in GRADERS]
    verdicts = {"m@fp32": pd.DataFrame(rows), "m@nf4": pd.DataFrame(rows)}
    config = {"seed": 1, "statistics": {"replicates": 200, "confidence": 0.95}}
    shift = tables.validate(grader_shift(verdicts, GRADERS, pd.DataFrame(problems), config), "grader_shift")
    return shift, tables.validate(disagreements(verdicts, GRADERS), "grader_disagreements"), [str(i) for i in range(8)]


def test_verdicts_are_counted_by_direction_on_sampled_chains_of_study_problems(graded):
    data = grader_table(*graded)
    assert len(data) == 2 * 2  # arms and graders but the reference, largest T
    assert (data["T"] == 64).all()
    assert (data["only_grader"] + data["only_reference"]).tolist() == data["n_differ"].tolist()
    strict, math = (data[(data["grader"] == name) & (data["arm"] == "m@fp32")].iloc[0] for name in GRADERS[1:])
    missed = sum((i + s) % 3 > 0 and (i + s) % 4 == 0 for i in range(8) for s in range(3))
    assert (strict["only_grader"], strict["only_reference"]) == (0, missed)
    assert (math["only_grader"], math["only_reference"]) == (1, 0)
    assert strict["difference"] == pytest.approx(-missed / 24)
    assert math["difference"] == pytest.approx((math["only_grader"] - math["only_reference"]) / math["n_asked"])


def test_graders_are_drawn(graded, tmp_path):
    shift, differing, study_problems = graded
    data = drawn_twice(lambda paths: plot_graders(shift, differing, study_problems, 0.95, TITLE, paths), tmp_path)
    assert data["grader"].tolist() == GRADERS[1:] * 2
    agreed = plot_graders(shift, differing.iloc[:0], study_problems, 0.95, TITLE, [tmp_path / "a.png"])
    assert (agreed["only_grader"] == 0).all()
