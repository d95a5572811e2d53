"""Variance ratios of pairs of arms: by hand, by simulation, and as a table."""

import dataclasses
import itertools
import runpy
from statistics import variance

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopstat import tables
from flopstat.bootstrap import weights
from flopstat.columns import TABLES
from flopstat.pairing import measure_variance_ratios, ratio_interval, sample_variances

ARMS = ["small@fp32", "small@int8", "large@fp32"]
CONFIG = {"study": "s", "seed": 5, "budgets": {"T": [8, 64]}, "statistics": {"replicates": 400, "confidence": 0.95}}


@pytest.fixture(scope="module")
def cards(shipped):
    card = shipped("ladder-30k")
    return {name: dataclasses.replace(card, name=name) for name in ("small", "large")}


def problem_table(n, n_calibration=0):
    ids = [f"p{i}" for i in range(n)]  # p10 stands before p2 in the order of text, not in that of the table
    split = ["calibration"] * n_calibration + ["study"] * (n - n_calibration)
    return pd.DataFrame({"problem_id": ids, "split": split, "difficulty": np.arange(n) % 3})


def grade_table(correct, problems, rng, budgets=(8, 64)):
    """Grades of one arm from correctness, (problems, K), in any order of rows; greedy chains are right half of the time."""
    rows = [
        {"problem_id": p.problem_id, "split": p.split, "T": t, "sample": i, "correct": rng.random() < 0.5 if i < 0 else bool(correct[r, i])}
        for r, p in enumerate(problems.itertuples())
        for i in range(-1, correct.shape[1])
        for t in budgets
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=1)


def table(arrays, cards, n_calibration=0, config=CONFIG):
    """The validated table of arms with these correctness matrices."""
    problems = problem_table(len(next(iter(arrays.values()))), n_calibration)
    rng = np.random.default_rng(0)
    grades = {arm: grade_table(x, problems, rng, config["budgets"]["T"]) for arm, x in arrays.items()}
    rows = measure_variance_ratios(grades, cards, problems, config)
    return tables.validate(pd.DataFrame(rows, columns=list(TABLES["variance_ratio"])), "variance_ratio")


def draws(share, n, k, seed=0):
    """Correctness of two equally good arms that see the same uniforms on a share of the samples."""
    rng = np.random.default_rng(seed)
    p = rng.random((n, 1))
    u, other = rng.random((2, n, k))
    return u < p, np.where(rng.random((n, k)) < share, u, other) < p


def interval(x, y, replicates=400):
    shared, independent = sample_variances(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
    w = weights(np.arange(len(shared)) % 3, replicates, np.random.default_rng(1))
    return ratio_interval(shared[:, None], independent[:, None], w, 0.95)


def test_the_ratio_by_hand(cards):
    """Three study problems and K = 4; a calibration problem and greedy chains that must not count."""
    x = np.array([[1, 0, 1, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]])
    y = np.array([[0, 1, 0, 1], [1, 1, 0, 0], [1, 0, 1, 1], [0, 1, 0, 0]])
    found = table({"small@fp32": x, "small@int8": y}, cards, n_calibration=1)
    above = sum(variance((x[p] - y[p]).tolist()) for p in (1, 2, 3))
    below = sum(variance(z[p].tolist()) for p in (1, 2, 3) for z in (x, y))
    assert above == pytest.approx(0 + 2 / 3 + 1 / 4)
    assert below == pytest.approx(2 / 3 + 1 / 2 + 1 / 4)
    np.testing.assert_allclose(found["ratio"], above / below)
    # covariances 1/3, -1/12 and 0, variances 1/3 + 1/4 and 1/3 + 1/4 + 1/4
    np.testing.assert_allclose(found["correlation"], (1 / 4) / np.sqrt(7 / 12 * 10 / 12))
    assert found["n_problems"].tolist() == [3, 3]
    assert found["n_samples"].tolist() == [4, 4]
    assert found["T"].tolist() == [8, 64]


@given(st.integers(2, 6), st.integers(2, 5), st.integers(0, 10**6))
def test_the_ratio_by_brute_force_and_its_interval(n, k, seed):
    x, y = np.random.default_rng(seed).integers(0, 2, size=(2, n, k))
    below = sum(variance(map(int, z[p])) for p in range(n) for z in (x, y))
    found = interval(x, y, 50)
    if not below:
        assert np.isnan([found.ratio[0], found.low[0], found.high[0]]).all()
        return
    above = sum(variance(map(int, x[p] - y[p])) for p in range(n))
    assert found.ratio[0] == pytest.approx(above / below)
    assert 0 <= found.low[0] <= found.ratio[0] <= found.high[0] <= 2
    assert found.low[0] < found.high[0]  # never an interval without width


def test_identical_arms_cancel_all_sampling_noise():
    x, _ = draws(1, 150, 32)
    found = interval(x, x)
    assert found.ratio[0] == found.low[0] == 0
    assert 0.02 < found.high[0] < 0.15  # 0 of about 100 problems rules out only ratios above a few hundredths
    assert found.few[0]


def test_opposite_arms_double_the_variance():
    x, _ = draws(1, 150, 32)
    found = interval(x, ~x)
    assert found.ratio[0] == pytest.approx(2)
    assert found.low[0] < 1.98
    assert found.high[0] <= 2


def test_independent_arms_are_near_one_and_shared_draws_in_between():
    ratios = {}
    for share in (0.0, 0.5):
        found = [interval(*draws(share, 150, 32, seed)) for seed in range(20)]
        ratios[share] = np.array([(f.low[0], f.ratio[0], f.high[0]) for f in found])
        assert not any(f.few[0] for f in found)
        assert ((ratios[share][:, 0] <= 1 - share) & (1 - share <= ratios[share][:, 2])).sum() >= 17
    assert abs(ratios[0.0][:, 1].mean() - 1) < 0.02
    assert abs(ratios[0.5][:, 1].mean() - 0.5) < 0.03
    assert (ratios[0.5][:, 2] < 1).all()


def test_turned_round_uniforms_lose():
    rng = np.random.default_rng(3)
    p, u = rng.random((150, 1)), rng.random((150, 32))
    found = interval(u < p, 1 - u < p)
    assert found.low[0] > 1


def test_two_samples_and_one_problem_have_an_interval():
    two = interval(*draws(0.5, 90, 2))
    assert 0 < two.low[0] < two.ratio[0] < two.high[0] < 2
    one = interval([[1, 0, 1]], [[1, 0, 0]])
    assert one.few[0]
    assert one.low[0] < one.ratio[0] < one.high[0]


def test_each_pair_once_in_the_order_of_the_config(cards):
    x, y = draws(0.5, 30, 8)
    arrays = dict(zip(ARMS, (x, y, x ^ y), strict=True))
    for order in itertools.permutations(ARMS):
        found = table({arm: arrays[arm] for arm in order}, cards)
        pairs = [*itertools.combinations(order, 2)]
        assert [*zip(found["arm_a"], found["arm_b"], found["T"], strict=True)] == [(*pair, t) for t in (8, 64) for pair in pairs]
        assert found["same_model"].tolist() == [{a, b} == {"small@fp32", "small@int8"} for a, b in pairs] * 2
        assert (found["low"] <= found["ratio"]).all()
        assert (found["ratio"] <= found["high"]).all()


def test_no_row_across_tokenizers(cards, tmp_path):
    x, y = draws(0.5, 30, 8)
    other = cards | {"large": dataclasses.replace(cards["large"], tokenizer_sha256="0" * 64)}
    found = table(dict(zip(ARMS, (x, y, x), strict=True)), other)
    assert set(zip(found["arm_a"], found["arm_b"], strict=True)) == {("small@fp32", "small@int8")}
    empty = table({"small@fp32": x, "large@fp32": y}, other)
    assert empty.empty
    tables.write(empty, "variance_ratio", tmp_path / "t.csv")
    assert tables.read("variance_ratio", tmp_path / "t.csv").empty


def test_flags_say_why_a_ratio_is_missing_or_weak(cards, tmp_path):
    x, y = draws(0.5, 60, 8)
    steady, other = np.ones_like(x), np.zeros_like(x)
    found = table({"small@fp32": steady, "small@int8": other, "large@fp32": x, "large@int8": y}, cards)
    by_pair = found[found["T"] == 8].set_index(["arm_a", "arm_b"])
    silent = by_pair.loc[("small@fp32", "small@int8")]
    assert silent["flags"] == "no_noise"
    assert silent[["ratio", "low", "high", "correlation"]].isna().all()
    half = by_pair.loc[("small@fp32", "large@fp32")]
    assert half["flags"] == "small_counts;no_overlap"
    assert half["ratio"] == pytest.approx(1)
    assert half["low"] < 0.9
    assert half["high"] > 1.1
    assert pd.isna(half["correlation"])
    assert pd.isna(by_pair.loc[("large@fp32", "large@int8"), "flags"])
    tables.write(found, "variance_ratio", tmp_path / "t.csv")
    pd.testing.assert_frame_equal(tables.read("variance_ratio", tmp_path / "t.csv"), found, rtol=1e-9)


def test_a_single_sample_has_no_variance(cards):
    x, y = draws(0.5, 30, 1)
    found = table({"small@fp32": x, "small@int8": y}, cards)
    assert (found["flags"] == "one_sample").all()
    assert found[["ratio", "low", "high", "correlation"]].isna().all(axis=None)
    assert (found["n_samples"] == 1).all()


def test_pools_that_do_not_line_up_are_refused(cards):
    x, y = draws(0.5, 6, 8)
    with pytest.raises(ValueError, match=r"pools of \[4, 8\] samples"):
        table({"small@fp32": x, "small@int8": y[:, :4]}, cards)
    problems, rng = problem_table(6), np.random.default_rng(0)
    whole = grade_table(x, problems, rng)
    for broken in (whole[whole["sample"] != 3], whole[(whole["sample"] != 7) | (whole["problem_id"] != "p2")], whole[whole["sample"] < 0]):
        with pytest.raises(ValueError, match=r"small@int8: every one of the 6 problems needs samples 0 to K - 1"):
            measure_variance_ratios({"small@fp32": whole, "small@int8": broken}, cards, problems, CONFIG)


def test_the_table_of_a_study(study, study_config):
    cards = {card.name: card for card in study["cards"]}
    rows = pd.DataFrame(measure_variance_ratios(study["grades"], cards, study["tables"]["problems"], study_config))
    checked = tables.validate(rows, "variance_ratio")
    assert len(checked) == 6 * 2
    assert (checked["study"] == "synthetic").all()
    noisy = checked[checked["T"] == 64]
    assert noisy["ratio"].between(0.6, 1.4).all()  # independent draws


@pytest.mark.parametrize(("correlation", "uneven"), [(0.0, False), (0.5, True), (0.95, False), (0.95, True)])
def test_limits_cover(root, correlation, uneven):
    """The first 1,000 studies of a setting of the benchmark: its interval of the coverage reaches into 93-97%."""
    script = runpy.run_path(str(root / "benchmarks" / "simulate_variance_ratio.py"))
    row = script["row"](script["Setting"](100, 32, correlation, 1.0, uneven), 1000, script["SEED"])
    assert row["verdict"] == "holds", row
    assert row["low"] < row["flopstat"] < row["high"]
