"""Reading answers: tests/cases/answers.json with a reason each, hostile sizes, and grading of stored chains at every budget."""

import itertools
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopstat.columns import FAILED, STATES
from flopstat.grading import count_states, grade_chains
from flopstat.ladder.generator import generate
from flopstat.ladder.tokenizer import encode_fast
from flopstat.numerals import MAX_DIGITS, normalize
from flopstat.readings import LOOK_BACK, read_answer
from flopstat.scores import WINDOW

CASES = json.loads((Path(__file__).parents[1] / "cases" / "answers.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["why"][:60])
def test_case(case):
    assert read_answer(case["text"], case["finished"]) == (case["state"], case["answer"]), case["why"]


def test_there_are_enough_cases_each_with_a_reason():
    assert len(CASES) >= 60
    assert all(c["why"] for c in CASES)
    assert len({(c["text"], c["finished"]) for c in CASES}) == len(CASES)


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        *("1" * 10**6, "#### " + "1" * 10**6, "1," * 10**6, "1.1." * 10**5, "-" * 10**6, "$" * 10**6, "#" * 10**6, "####" + " " * 10**6),
        *(
            "\\boxed{" * 10**5,
            "\\boxed{" + " " * 10**6,
            "the answer is " * 10**5,
            "\nA:" * 10**5,
            "#### 1,111" + ",111" * 10**5,
            "\x00" * 10**6,
        ),
        *("\n" * 10**6, " " * 10**6 + "x"),
    ],
    ids=lambda t: repr(t[:12]) if isinstance(t, str) else None,
)
def test_huge_text_is_read_in_linear_time(text, finished):
    """A pattern with quadratic time would not come back."""
    state, answer = read_answer(text, finished)
    assert (state == "answered") == (answer is not None)
    assert answer is None or len(answer) <= MAX_DIGITS + 2
    if "1" * 50 in text:
        assert state == ("invalid" if finished else "truncated")


def test_of_a_long_text_the_first_marker_and_the_end_are_read():
    assert read_answer("x" * 10**6 + "\n#### 18", True) == ("answered", "18")
    assert read_answer("#### 18\n" + "x" * 10**6, True) == ("answered", "18")
    assert read_answer("18 eggs\n" + "x" * (LOOK_BACK - 100), True) == ("answered", "18")
    assert read_answer("18 eggs\n" + "x" * LOOK_BACK, True) == ("no_answer", None)


@given(st.text(alphabet="#0123456789.,-$ \nAa:\\boxed{}%", max_size=60))
def test_state_and_answer_fit_together(text):
    for finished, nothing in ((True, "no_answer"), (False, "truncated")):
        state, answer = read_answer(text, finished)
        assert state in ("answered", nothing)
        assert (answer is None) == (state == nothing)
    if read_answer(text, False)[0] == "answered":  # what a cut chain has answered, no further text takes away
        assert read_answer(text + "x", False) == read_answer(text, False)


@given(st.integers(-(10**12), 10**12), st.integers(0, 4))
def test_normalize_keeps_the_value(n, zeros):
    text = f"{n:,}" + ("." + "0" * zeros if zeros else "")
    assert normalize(text) == str(n)
    assert Fraction(normalize(f"{n}.250")) == Fraction(f"{n}.25")


@pytest.fixture(scope="module")
def graded(root, chain):
    """Solutions of generated problems, one greedy, one wrong, one cut, one empty per problem."""
    from flopstat.pool import SCHEMA

    problems = list(itertools.islice(generate(np.random.default_rng(0), "fresh", steps=3), 5))
    rows, table = [], []
    for i, problem in enumerate(problems):
        ids = encode_fast(problem.solution)
        wrong = encode_fast(problem.solution.rsplit(" ", 1)[0] + " 777")
        rows += [
            chain(f"k{i}", -1, [*ids, 1]),
            chain(f"k{i}", 0, [*wrong, 1]),
            chain(f"k{i}", 1, ids[:-1], "length"),
            chain(f"k{i}", 2, [1]),
        ]
        entry = {"problem_id": str(i), "problem_key": f"k{i}", "split": "study", "difficulty": 3, "gold": str(problem.gold)}
        table.append(entry)
    names = (
        "problem_key",
        "sample",
        "budget",
        "variant",
        "prompt_tokens",
        "finish_reason",
        "near_ties",
        "inserted",
        "ids",
        "logprob",
        "entropy",
        "self_certainty",
        "confidence",
    )
    columns = {name: [getattr(c, name) for c in rows] for name in names} | {"n_tokens": [len(c.ids) for c in rows]}
    stored = pa.table({name: columns[name] for name in SCHEMA.names}, schema=SCHEMA)
    tokenizer = root / "workflow" / "resources" / "ladder" / "ladder-160k" / "tokenizer.json"
    budgets = [1, 5, 10, 20, 30, 64]
    return rows, budgets, grade_chains(stored, pd.DataFrame(table), budgets, tokenizer)


def test_grades_have_one_row_per_chain_and_budget(graded):
    rows, budgets, table = graded
    assert len(table) == len(rows) * len(budgets)
    assert not table.duplicated(["problem_id", "sample", "T"]).any()
    top = table[table["T"] == 64]
    greedy, wrong = top[top["sample"] == -1], top[top["sample"] == 0]
    assert (greedy["state"] == "answered").all()
    assert greedy["correct"].all()
    assert (wrong["answer"] == "777").all()
    assert not wrong["correct"].any()
    assert (top.loc[top["sample"] == 1, "state"] == "truncated").all()
    assert (top.loc[top["sample"] == 2, "state"] == "no_answer").all()
    assert not table.loc[table["state"] != "answered", "correct"].any()


def test_grades_at_a_budget_use_the_first_tokens_only(graded):
    rows, _, table = graded
    of = {(f"k{r.problem_id}", r.sample, r.T): r for r in table.itertuples()}
    for chain in rows:
        for t in (1, 10, 30, 64):
            row = of[chain.problem_key, chain.sample, t]
            length = min(t, len(chain.ids))
            assert row.n_tokens == length
            done = chain.finish_reason == "eos" and len(chain.ids) <= t
            assert row.finish_reason == ("eos" if done else "length")
            assert row.mean_logprob == pytest.approx(chain.logprob[:length].mean(), abs=1e-6)
            window = [chain.confidence[i : i + WINDOW].mean() for i in range(max(1, length - WINDOW + 1))] if length > WINDOW else None
            part = chain.confidence[:length].astype(float)
            assert row.lowest_window == pytest.approx(min(window) if window else part.mean(), abs=1e-6)
            assert row.tail_confidence == pytest.approx(part[-WINDOW:].mean(), abs=1e-6)


def test_answered_chains_stay_answered_with_a_larger_budget(graded):
    _, _, table = graded
    for _, part in table.sort_values("T").groupby(["problem_id", "sample"]):
        done = (part["state"] == "answered").to_numpy()
        assert (np.diff(done.astype(int)) >= 0).all()


@given(st.lists(st.sampled_from(STATES), min_size=1, max_size=50))
def test_states_are_conserved(states):
    counted = count_states(pd.Series(states))
    assert counted["n_asked"] == len(states) == sum(v for k, v in counted.items() if k != "n_asked")
    assert counted["n_failed"] == sum(s in FAILED for s in states)


def test_an_unknown_state_is_not_swallowed():
    with pytest.raises(AssertionError, match="do not add up"):
        count_states(pd.Series(["answered", "lost"]))
