"""Graders side by side on stored chains: the tables of disagreements and of shifts."""

import itertools
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from flopstat import tables
from flopstat.agreement import disagreements, grader_shift
from flopstat.grading import excerpt, grade_chains, grade_side_by_side
from flopstat.ladder.generator import generate
from flopstat.ladder.tokenizer import encode_fast

GRADERS = ["gsm8k", "gsm8k-strict", "gsm8k-flexible"]
CONFIG = {"seed": 5, "statistics": {"replicates": 400, "confidence": 0.95}}


@pytest.fixture(scope="module")
def graded(root, chain):
    """Right solutions, and the same cut in front of or behind their last digit."""
    from flopstat.pool import SCHEMA

    chains, table = [], []
    for i, problem in enumerate(itertools.islice(generate(np.random.default_rng(0), "fresh", steps=2), 12)):
        ids = encode_fast(problem.solution)
        chains += [chain(f"k{i}", -1, [*ids, 1]), chain(f"k{i}", 0, [*ids, 1]), chain(f"k{i}", 1, ids, "length")]
        entry = {"problem_id": str(i), "question": problem.question, "problem_key": f"k{i}", "split": "study", "difficulty": 2}
        table.append(entry | {"gold": str(problem.gold), "messages": json.dumps([])})
    names = [name for name in SCHEMA.names if name != "n_tokens"]
    columns = {name: [getattr(c, name) for c in chains] for name in names} | {"n_tokens": [len(c.ids) for c in chains]}
    stored = pa.table({name: columns[name] for name in SCHEMA.names}, schema=SCHEMA)
    tokenizer = root / "workflow" / "resources" / "ladder" / "ladder-160k" / "tokenizer.json"
    problems = pd.DataFrame(table)
    return stored, problems, tokenizer, grade_side_by_side(stored, problems, [8, 64], tokenizer, None, GRADERS)


def test_the_first_grader_decides(graded):
    stored, problems, tokenizer, (grades, verdicts) = graded
    pd.testing.assert_frame_equal(grades, grade_chains(stored, problems, [8, 64], tokenizer))
    own = verdicts[verdicts["grader"] == "gsm8k"]
    for column in ("problem_id", "sample", "T", "state", "correct"):
        assert own[column].tolist() == grades[column].tolist()
    assert len(verdicts) == len(GRADERS) * len(grades)
    assert grade_side_by_side(stored, problems, [64], tokenizer, None, ["gsm8k"])[1].empty


def test_a_right_answer_is_the_gold_one_for_votes_whatever_its_grader(graded):
    stored, problems, tokenizer, _ = graded
    for name in ("gsm8k-strict", "math", "exact"):
        grades = grade_chains(stored, problems, [64], tokenizer, grader=name)
        assert grades["correct"].any()
        gold = problems.set_index("problem_id")["gold"]
        assert (grades.loc[grades["correct"], "answer"] == grades.loc[grades["correct"], "problem_id"].map(gold)).all()


def test_disagreements_are_chains_cut_at_their_last_digit(graded):
    verdicts = graded[3][1].assign(model="m", precision="fp32")
    found = tables.validate(disagreements({"m@fp32": verdicts}, GRADERS), "grader_disagreements")
    at_end = found[(found["T"] == 64) & (found["grader_b"] == "gsm8k-strict")]
    assert (at_end["grader_a"] == "gsm8k").all()
    assert at_end["sample"].tolist() == [1] * 12
    assert (at_end["state_a"] == "truncated").all()
    assert at_end["answer_a"].isna().all()
    assert (at_end["answer_b"] == at_end["gold"]).all()
    assert not (found["correct_a"] == found["correct_b"]).any()
    assert at_end["excerpt"].str.contains("####").all()
    assert not at_end["excerpt"].str.contains("\n").any()


def test_shift_is_the_difference_of_accuracies(graded):
    verdicts = graded[3][1].assign(model="m", precision="fp32")
    found = tables.validate(grader_shift({"m@fp32": verdicts}, GRADERS, graded[1], CONFIG), "grader_shift").set_index(["T", "grader"])
    assert found.loc[(64, "gsm8k"), "accuracy"] == 0.5
    strict = found.loc[(64, "gsm8k-strict")]
    assert (strict["accuracy"], strict["difference"], strict["n_differ"], strict["n_asked"]) == (1.0, 0.5, 12, 24)
    assert strict["difference_low"] < 0.5 <= strict["difference_high"]
    assert strict["foreign"]
    reference = found.loc[(64, "gsm8k")]
    assert (reference["difference"], reference["difference_low"], reference["difference_high"], reference["n_differ"]) == (0, 0, 0, 0)


def test_excerpts_are_short_and_printable():
    assert excerpt("a\nb\0\ud800é") == "a\\nb\\x00\\ud800é"
    assert excerpt("") == "(empty)"
    assert len(excerpt("x" * 10**6)) < 220
