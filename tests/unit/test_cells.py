"""Cells: matrices from grades, the parts of the error, and rows that hold together."""

import numpy as np
import pytest

from flopstat import cells, tables
from flopstat.costs import Flops
from flopstat.errors import InputError
from flopstat.estimators import NO_ANSWER
from flopstat.strategies import SCORES, permutations_for

ARM = "ladder-160k@fp32"


@pytest.fixture(scope="module")
def arm(study):
    problems = study["tables"]["problems"]
    chosen = problems[problems["split"] == "study"]
    grades = study["grades"][ARM]
    part = grades[(grades["T"] == 16) & (grades["split"] == "study")]
    gold = dict(zip(chosen["problem_id"], chosen["gold"], strict=True))
    return part, gold, Flops.of(study["cards"][1])


def test_matrices_hold_the_grades(arm):
    part, gold, flops = arm
    shuffled = cells.matrices(part.sample(frac=1, random_state=0), gold, flops)
    made = cells.matrices(part, gold, flops)
    for name in ("tokens", "decode_flops", "prefill_flops", "greedy_tokens", "greedy_flops"):
        assert np.array_equal(getattr(made, name), getattr(shuffled, name))
    for left, right in ((made.pool, shuffled.pool),):
        assert np.array_equal(left.correct, right.correct)  # other answers may be numbered differently
        assert np.array_equal(left.greedy, right.greedy)
        assert all(np.array_equal(left.scores[name], right.scores[name]) for name in SCORES)
    drawn = part[part["sample"] >= 0].sort_values("sample")
    for r, problem in enumerate(made.problem_ids):
        rows = drawn[drawn["problem_id"] == problem]
        assert np.array_equal(made.pool.correct[r], rows["correct"])  # code 0 is the gold answer
        assert np.array_equal(made.pool.codes[r] == NO_ANSWER, rows["answer"].isna())
    row = part[part["problem_id"] == made.problem_ids[3]]
    drawn = row[row["sample"] >= 0]
    assert made.tokens[3] == drawn["n_tokens"].mean()
    prompt = int(row["prompt_tokens"].iloc[0])
    assert made.decode_flops[3] == pytest.approx(np.mean([flops.decode(prompt, n) for n in drawn["n_tokens"]]))
    assert made.prefill_flops[3] == flops.prefill(prompt)


def test_every_strategy_makes_the_cells_of_its_axis(arm):
    """Votes spend P, best-of spends B, the composite both; no pair is made twice under one name."""
    pool = cells.matrices(*arm).pool
    names = ["single", "greedy", "weighted_majority", "best_of_self_certainty", "majority_of_best_of"]
    permutations = permutations_for(pool.size, 8, 0)
    made = [(v.strategy, v.p, v.b) for v in cells.cell_values(pool, names, [1, 2, 4], [1, 2, 4], permutations)]
    expected = [("single", 1, 1), ("greedy", 1, 1)]
    expected += [("weighted_majority", p, 1) for p in (2, 4)] + [("best_of_self_certainty", 1, b) for b in (2, 4)]
    expected += [("majority_of_best_of", p, b) for p in (2, 4) for b in (2, 4) if p * b <= pool.size]
    assert sorted(made) == sorted(expected)


def test_configurations_are_valid_complete_and_balanced(study, study_config):
    table = tables.validate(study["tables"]["configurations"], "configurations")
    assert not table.duplicated(["arm", "T", "P", "B", "strategy", "split"]).any()
    # single, greedy, majority 2 and 4, best of 2 and 4, and the three composites with P·B <= 8
    assert (table.groupby(["arm", "split", "T"]).size() == 9).all()
    assert (table["P"] * table["B"] <= study_config["sampling"]["samples"]).all()
    assert (table["n_asked"] == table[["n_answered", "n_no_answer", "n_truncated", "n_failed"]].sum(axis=1)).all()
    for low, middle, high in (("accuracy_low", "accuracy", "accuracy_high"), ("flops_low", "flops", "flops_high")):
        assert (table[low] <= table[middle] * (1 + 1e-12)).all()
        assert (table[middle] <= table[high] * (1 + 1e-12)).all()
    assert (table["accuracy_low"] < table["accuracy_high"]).all()
    assert (table["flags"].fillna("").str.contains("recipe_T") == (table["T"] == 64)).all()
    small = table["flags"].fillna("").str.contains("small_counts")
    assert (small == (12 * np.minimum(table["accuracy"], 1 - table["accuracy"]) < 5)).all()


def test_costs_follow_their_definitions(study):
    table = study["tables"]["configurations"]
    expected = table["B"] * table["T"] * table["n_params"]
    np.testing.assert_allclose(table["flops_seed"], expected * 3.0)
    np.testing.assert_allclose(table[["flops_seed_low", "flops_seed_high"]].to_numpy(), expected.to_numpy()[:, None] * [2.5, 3.5])
    np.testing.assert_allclose(table["flops_nominal"], expected * table["P"] * 2.1)
    pools = table[table["strategy"] != "greedy"]
    one = pools[pools["strategy"] == "single"].set_index(["arm", "T", "split"])["mean_tokens"]
    per_chain = pools["mean_tokens"] / (pools["P"] * pools["B"])
    np.testing.assert_allclose(per_chain, one.loc[list(zip(pools["arm"], pools["T"], pools["split"], strict=True))])


def test_more_than_one_percent_failed_stops_the_study(study, study_config):
    grades = study["grades"][ARM].copy()
    facts = cells.ArmFacts(study["cards"][1], "fp32", 32.0, 2.1, (3.0, 3.0, 3.0))
    config = study_config | {"samples": 8}
    drawn = grades.index[(grades["T"] == 16) & (grades["split"] == "study") & (grades["sample"] >= 0)]
    for n in (0, 2):
        grades.loc[drawn[:n], ["state", "answer", "correct"]] = ["invalid", None, False]
        if n / len(drawn) <= 0.01:
            cells.estimate_arm(grades, study["tables"]["problems"], facts, config)
            continue
        with pytest.raises(InputError, match=r"2 of 96 chains failed, more than 1%"):
            cells.estimate_arm(grades, study["tables"]["problems"], facts, config)
