"""Resampling of problems: weights, intervals of accuracies and differences, coverage, the chosen best, what would resolve a difference."""

import dataclasses
import runpy

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from flopstat.bootstrap import (
    Resolution,
    chosen_best,
    gain_interval,
    paired_interval,
    proportion_interval,
    resolve,
    simultaneous_differences,
    simultaneous_limits,
    split_variance,
    stratified_half,
    weights,
    wilson,
)


def test_weights_sum_to_one_and_keep_the_share_of_each_stratum():
    strata = np.repeat([1, 2, 5, 6], [10, 30, 1, 9])
    w = weights(strata, 300, np.random.default_rng(0))
    assert w.shape == (300, 50)
    np.testing.assert_allclose(w.sum(axis=1), 1.0)
    for value, share in ((1, 0.2), (2, 0.6), (5, 0.02), (6, 0.18)):
        np.testing.assert_allclose(w[:, strata == value].sum(axis=1), share)
    assert (weights(strata, 5, np.random.default_rng(1)) == weights(strata, 5, np.random.default_rng(1))).all()


def test_bootstrap_variance_is_the_unbiased_stratified_one():
    rng = np.random.default_rng(0)
    strata = np.repeat([1, 2, 3], [5, 20, 25])
    x = rng.normal(size=50) + strata
    boot = weights(strata, 20_000, rng) @ x
    exact = sum((m / 50) ** 2 * x[strata == s].var(ddof=1) / m for s, m in ((1, 5), (2, 20), (3, 25)))
    assert boot.var() == pytest.approx(exact, rel=0.05)
    assert boot.mean() == pytest.approx(x.mean(), abs=0.01)


def test_nothing_right_of_fifty_gives_wilson():
    w = weights(np.ones(50, dtype=int), 500, np.random.default_rng(0))
    values = np.column_stack([np.zeros(50), np.ones(50)])
    interval = proportion_interval(values, w, 0.95)
    assert interval.low[0] == 0.0
    assert interval.high[0] == pytest.approx(0.0713, abs=5e-4)
    assert interval.low[1] == pytest.approx(1 - 0.0713, abs=5e-4)
    assert interval.high[1] == 1.0
    assert interval.wilson.all()


def test_intervals_have_width_wherever_the_accuracy_lies():
    rng = np.random.default_rng(2)
    w = weights(np.tile([1, 2], 25), 400, rng)
    values = np.column_stack([(np.arange(50) < c).astype(float) for c in (0, 1, 2, 4, 6, 25, 44, 48, 49, 50)])
    interval = proportion_interval(values, w, 0.95)
    assert (interval.high - interval.low > 0.02).all()
    assert (interval.low <= values.mean(axis=0) + 1e-12).all()
    assert (interval.high >= values.mean(axis=0) - 1e-12).all()
    assert interval.wilson.tolist() == [True, True, True, True, False, False, False, True, True, True]


def test_all_or_nothing_problems_count_as_they_are_and_averages_for_more():
    """The effective number of problems: 50 where each is right or wrong, a(1-a)/se² where pools average the luck out, nearly."""
    rng = np.random.default_rng(0)
    w = weights(np.ones(50, dtype=int), 20_000, rng)
    values = np.column_stack([np.arange(50) < 20, rng.binomial(16, 0.4, size=50) / 16])
    interval = proportion_interval(values, w, 0.95)
    for column, n in ((0, 50), (1, 0.24 / values[:, 1].var(ddof=1) * 50)):
        low, high = wilson(values[:, column].mean(), n, 0.95)
        assert interval.high[column] - interval.low[column] == pytest.approx(high - low, rel=0.03 if column == 0 else 0.25)
    assert (interval.high - interval.low)[1] < 0.4 * (interval.high - interval.low)[0]


def test_limits_move_smoothly_away_from_none_right():
    """One sample of 800 right, and one problem of 50 half right, are hardly better known than none right."""
    w = weights(np.ones(50, dtype=int), 4000, np.random.default_rng(0))
    values = np.zeros((50, 3))
    values[0] = [0, 1 / 16, 1 / 2]
    high = proportion_interval(values, w, 0.95).high
    assert high[0] == pytest.approx(0.0713, abs=5e-4)
    assert (high > 0.05).all()


def test_strata_that_explain_everything_leave_no_interval_without_width():
    """Every easy problem right, every hard one wrong: the stratified bootstrap has no variance, the estimate still has."""
    strata = np.repeat([1, 2], 25)
    interval = proportion_interval((strata == 1)[:, None].astype(float), weights(strata, 400, np.random.default_rng(0)), 0.95)
    assert interval.low[0] < 0.5 < interval.high[0]


def test_coverage_at_one_half_with_fifty_problems():
    """400 simulated studies: problems of varying difficulty, 8 samples each. A coarse check, no claim."""
    rng = np.random.default_rng(20261121)
    covered, studies, strata = 0, 400, np.repeat(np.arange(5), 10)
    for _ in range(studies):
        values = rng.binomial(8, rng.beta(1, 1, size=50)) / 8
        interval = proportion_interval(values[:, None], weights(strata, 400, rng), 0.95)
        covered += interval.low[0] <= 0.5 <= interval.high[0]
    assert 0.90 <= covered / studies <= 0.99


def test_simultaneous_limits_are_wider_than_pointwise_ones_and_hold_together():
    rng = np.random.default_rng(0)
    cells = 20
    low, high, q = simultaneous_limits(np.zeros(cells), rng.normal(size=(4000, cells)), 0.95)
    assert 2.8 < q < 3.3  # exact for 20 independent normals: 3.02
    assert (high - low > 2 * 1.96).all()
    fresh = rng.normal(size=(4000, cells))
    assert ((fresh >= low) & (fresh <= high)).all(axis=1).mean() == pytest.approx(0.95, abs=0.02)
    _, _, one = simultaneous_limits(np.zeros(1), rng.normal(size=(20_000, 1)), 0.95)
    assert one == pytest.approx(1.96, abs=0.05)


def test_replicates_that_do_not_differ_give_no_simultaneous_limits():
    boot = np.column_stack([np.random.default_rng(0).normal(size=4000), np.full(4000, 0.2)])
    low, high, q = simultaneous_limits(np.array([0.0, 0.2]), boot, 0.95)
    assert q == pytest.approx(1.96, abs=0.08)  # of the one that varies
    assert (low[1], high[1]) == (-np.inf, np.inf)
    assert low[0] == pytest.approx(-1.96, abs=0.08)
    _, _, none = simultaneous_limits(np.array([0.2]), boot[:, 1:], 0.95)
    assert none == 0


def test_simultaneous_differences_reach_as_far_as_paired_intervals_where_few_problems_carry_them():
    rng = np.random.default_rng(0)
    strata = np.repeat(np.arange(25), 2)
    w = weights(strata, 2000, rng)
    many = (rng.random(50) < 0.6).astype(float) - (rng.random(50) < 0.4)
    few = -np.isin(np.arange(50), [0, 2, 4]).astype(float)  # three problems in strata of two: the bootstrap alone would call it a loss
    difference = np.column_stack([many, few, np.zeros(50)])
    estimate, boot = difference.mean(axis=0), w @ difference
    plain_low, plain_high, q = simultaneous_limits(estimate, boot, 0.95)
    low, high = simultaneous_differences(estimate, boot, difference, w, 0.95)
    assert (low[0], high[0]) == (plain_low[0], plain_high[0])
    single = paired_interval(difference, w, 0.95)
    assert single.few.tolist() == [False, True, True]
    assert (low[1:] <= single.low[1:]).all()
    assert (high[1:] >= single.high[1:]).all()
    assert high[1] > 0
    assert q >= 1.96
    only_still = simultaneous_differences(estimate, boot, difference, w, 0.95, carriers=0)
    assert only_still[1][1] == plain_high[1]
    assert only_still[1][2] == high[2]
    alone = simultaneous_limits(estimate[1:2], boot[:, 1:2], 0.95)
    assert alone[1][0] < 0


def test_gains_have_percentile_limits_and_paired_ones_where_no_replicate_differs():
    rng = np.random.default_rng(0)
    w = weights(np.ones(60, dtype=int), 2000, rng)
    gains = np.column_stack([rng.normal(0.1, 0.2, 60), np.arange(60) < 2, np.zeros(60)])
    low, high = gain_interval(gains, w, 0.95)
    expected = np.quantile(w @ gains[:, :2], [0.025, 0.975], axis=0)
    assert [low[:2].tolist(), high[:2].tolist()] == expected.tolist()
    paired = paired_interval(gains, w, 0.95)
    assert (low[2], high[2]) == (paired.low[2], paired.high[2])
    assert low[2] < -0.04 < 0.04 < high[2]


def test_paired_interval_of_cells_that_agree_has_the_width_of_the_rule_of_three():
    w = weights(np.ones(50, dtype=int), 500, np.random.default_rng(0))
    found = paired_interval(np.zeros((50, 1)), w, 0.95)
    assert found.low[0] == pytest.approx(-0.0713, abs=5e-4)
    assert found.high[0] == pytest.approx(0.0713, abs=5e-4)
    assert found.se[0] == 0
    assert found.few[0]


def test_paired_interval_with_few_differing_problems_is_newcombes():
    """Newcombe's method 10 by hand: 3 of 50 gained, 1 lost."""
    d = np.zeros((50, 1))
    d[:3], d[3] = 1.0, -1.0
    w = weights(np.ones(50, dtype=int), 20_000, np.random.default_rng(0))
    found = paired_interval(d, w, 0.95)
    (u, v), ends = (0.06, 0.02), [wilson(x, 50, 0.95) for x in (0.06, 0.02)]
    below = np.hypot(u - ends[0][0], ends[1][1] - v)
    above = np.hypot(ends[0][1] - u, v - ends[1][0])
    assert found.few[0]
    assert found.low[0] == pytest.approx(0.04 - below, abs=0.004)  # the hand calculation leaves the small correlation out
    assert found.high[0] == pytest.approx(0.04 + above, abs=0.004)
    assert found.low[0] < 0 < found.high[0]


def test_paired_interval_with_many_differing_problems_is_students():
    d = np.random.default_rng(0).normal(0.1, 0.2, size=(50, 1)).clip(-1, 1)
    found = paired_interval(d, weights(np.ones(50, dtype=int), 20_000, np.random.default_rng(1)), 0.95)
    half = stats.t.ppf(0.975, 49) * d.std(ddof=1) / np.sqrt(50)
    assert not found.few[0]
    assert found.low[0] == pytest.approx(d.mean() - half, rel=0.02)
    assert found.high[0] == pytest.approx(d.mean() + half, rel=0.02)


def test_few_counts_the_problems_that_carry_the_difference():
    d = np.zeros((50, 3))
    d[:4, 0], d[:6, 1] = 1.0, 1.0
    d[:, 2] = np.r_[[1.0, 1.0], np.tile([0.01, -0.01], 24)]  # 50 problems differ, two carry it
    found = paired_interval(d, weights(np.ones(50, dtype=int), 500, np.random.default_rng(0)), 0.95)
    assert found.few.tolist() == [True, False, True]


@st.composite
def accuracies(draw):
    """(problems, cells) values on a grid of sixteenths, some columns all 0 or 1, and strata."""
    n, cells = draw(st.integers(4, 30)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    level = draw(st.sampled_from([0.0, 0.02, 0.3, 0.5, 0.97, 1.0]))
    return rng.binomial(16, level, size=(n, cells)) / 16 * rng.integers(0, 2, size=(1, cells)), rng.integers(0, 3, size=n)


@given(accuracies())
def test_limits_of_proportions_are_in_range_around_the_estimate_and_mirror(drawn):
    values, strata = drawn
    w = weights(strata, 200, np.random.default_rng(0))
    wide, narrow, mirrored = (proportion_interval(v, w, c) for v, c in ((values, 0.95), (values, 0.8), (1 - values, 0.95)))
    assert (wide.low >= 0).all()
    assert (wide.high <= 1).all()
    assert (wide.high > wide.low).all()
    assert (wide.low <= narrow.low + 1e-12).all()
    assert (wide.high >= narrow.high - 1e-12).all()
    assert (wide.high - wide.low > narrow.high - narrow.low).all()
    a = values.mean(axis=0)
    assert (narrow.low <= a).all()
    assert (a <= narrow.high).all()
    np.testing.assert_allclose(mirrored.low, 1 - wide.high, atol=1e-7)
    np.testing.assert_allclose(mirrored.high, 1 - wide.low, atol=1e-7)
    assert (mirrored.wilson == wide.wilson).all()


@given(accuracies(), st.integers(0, 100))
def test_limits_of_differences_are_in_range_around_the_estimate_and_mirror(drawn, seed):
    values, strata = drawn
    d = np.random.default_rng(seed).permuted(values, axis=0) - values
    w = weights(strata, 200, np.random.default_rng(0))
    wide, narrow, mirrored = (paired_interval(v, w, c) for v, c in ((d, 0.95), (d, 0.8), (-d, 0.95)))
    assert (wide.low >= -1).all()
    assert (wide.high <= 1).all()
    assert (wide.high > wide.low).all()
    assert (wide.high - wide.low > narrow.high - narrow.low).all()
    assert (narrow.low <= d.mean(axis=0)).all()
    assert (d.mean(axis=0) <= narrow.high).all()
    np.testing.assert_allclose(mirrored.low, -wide.high, atol=1e-12)
    np.testing.assert_allclose(mirrored.high, -wide.low, atol=1e-12)
    assert (mirrored.few == wide.few).all()


@given(st.integers(0, 1000))
def test_order_of_the_problems_does_not_matter(seed):
    """Exactly, if the weights move along; in distribution, with weights of their own."""
    rng = np.random.default_rng(seed)
    values, strata = rng.binomial(8, 0.3, size=(40, 1)) / 8, rng.integers(0, 2, size=40)
    order = rng.permutation(40)
    w = weights(strata, 2000, rng)
    one, same = proportion_interval(values, w, 0.95), proportion_interval(values[order], w[:, order], 0.95)
    fresh = proportion_interval(values[order], weights(strata[order], 2000, rng), 0.95)
    np.testing.assert_allclose([same.low, same.high], [one.low, one.high], atol=1e-12)
    np.testing.assert_allclose([fresh.low, fresh.high], [one.low, one.high], atol=0.02)


def choose(values, strata=None, replicates=100, halves=50, seed=0):
    strata = np.zeros(len(values), dtype=int) if strata is None else strata
    return chosen_best(values, strata, replicates, halves, 0.95, np.random.default_rng(seed))


@given(accuracies(), st.integers(0, 100))
def test_chosen_best_never_exceeds_the_maximum(drawn, seed):
    values, strata = drawn
    found = choose(values, strata, replicates=50, halves=10, seed=seed)
    assert 0 <= found.low <= found.estimate <= found.high <= 1
    assert found.high > found.low
    assert found.naive == values.mean(axis=0).max()
    assert found.optimism == found.naive - found.estimate
    assert found.optimism >= -1e-9
    assert found.chosen.sum() == pytest.approx(1)
    assert (found.chosen >= 0).all()


def test_chosen_best_of_one_cell_and_of_equal_cells_is_that_cell():
    values = np.random.default_rng(0).binomial(16, 0.4, size=(51, 1)) / 16
    one, three = choose(values, replicates=4000, halves=5), choose(np.repeat(values, 3, axis=1))
    assert one.estimate == pytest.approx(values.mean())
    assert one.se == pytest.approx(values.std(ddof=1) / np.sqrt(51), rel=0.03)
    assert three.estimate == pytest.approx(values.mean())
    np.testing.assert_allclose(three.chosen, 1 / 3)


def test_chosen_best_takes_the_clear_winner_without_correction():
    values = np.random.default_rng(0).binomial(16, [0.2, 0.8, 0.3], size=(60, 3)) / 16
    found = choose(values)
    assert found.chosen.tolist() == pytest.approx([0, 1, 0])
    assert found.optimism == pytest.approx(0, abs=1e-12)


def test_chosen_best_corrects_the_optimism_of_many_equal_cells():
    """Forty cells of true accuracy 0.5: the maximum is far above, the corrected estimate is unbiased."""
    rng = np.random.default_rng(0)
    found = [choose(rng.binomial(4, 0.5, size=(40, 40)) / 4, replicates=20, halves=10, seed=s) for s in range(100)]
    estimates = np.array([f.estimate for f in found])
    assert np.mean([f.naive for f in found]) > 0.57
    assert estimates.mean() == pytest.approx(0.5, abs=4 * estimates.std() / 10)
    np.testing.assert_allclose(np.mean([f.chosen for f in found], axis=0), 1 / 40, atol=0.035)


def test_chosen_best_is_the_plain_loop_over_halves():
    values = np.random.default_rng(3).binomial(8, [0.5, 0.5, 0.45], size=(21, 3)) / 8
    strata = np.repeat([0, 1], [9, 12])
    found = choose(values, strata, replicates=30, halves=7, seed=4)
    rng = np.random.default_rng(4)
    weights(strata, 30, rng)
    total = 0.0
    for _ in range(7):
        half = stratified_half(strata, rng)
        for own, other in ((half, ~half), (~half, half)):
            mean = values[own].mean(axis=0)
            total += values[other][:, np.isclose(mean, mean.max())].mean(axis=1).sum() / 21 / 7
    assert found.estimate == pytest.approx(total)


def test_chosen_best_does_not_see_the_same_problem_on_both_sides():
    """Each problem is solved by one cell of its own: the chosen cell gets nothing on the other half, in every replicate."""
    found = choose(np.eye(30))
    assert found.estimate == 0
    assert found.naive == pytest.approx(1 / 30)
    assert found.high < 0.15


def test_chosen_best_wants_two_problems():
    with pytest.raises(ValueError, match="at least 2"):
        choose(np.ones((1, 3)))


@given(st.lists(st.integers(0, 4), min_size=2, max_size=40), st.integers(0, 100))
def test_halves_split_the_whole_and_every_stratum(strata, seed):
    strata = np.array(strata)
    half = stratified_half(strata, np.random.default_rng(seed))
    for members in [np.ones(len(strata), dtype=bool)] + [strata == s for s in np.unique(strata)]:
        assert abs(half[members].sum() - (~half)[members].sum()) <= 1


def test_halves_are_random_within_a_stratum():
    rng = np.random.default_rng(0)
    strata = np.repeat([0, 1], [3, 8])
    share = np.mean([stratified_half(strata, rng) for _ in range(4000)], axis=0)
    np.testing.assert_allclose(share, 0.5, atol=0.04)


def test_split_variance_adds_up():
    within, between = split_variance(0.05, np.full(50, 0.04))
    assert within == pytest.approx(np.sqrt(0.04 / 50))
    assert within**2 + between**2 == pytest.approx(0.05**2)
    assert split_variance(0.01, np.full(50, 0.04))[1] == 0
    assert np.isnan(split_variance(0.05, np.full(50, np.nan))).all()
    assert split_variance(0.05, np.array([-0.1, 0.05])) == (0.0, 0.05)  # estimates from cuts may sum to less than nothing


def test_resolve_by_hand():
    """se² = 0.03² + 0.04² = 0.05² on 50 problems; 1.96 · 0.05 = 0.098."""
    assert resolve(0.1, 0.03, 0.04, 50, 16, 0.95) == Resolution(0, 0)
    # wanted se 0.08 / 1.96 = 0.0408: 50 · (0.05 / 0.0408)² = 75.03, and 16 · 0.0016 / (0.0408² - 0.0009) = 33.4
    assert resolve(-0.08, 0.03, 0.04, 50, 16, 0.95) == Resolution(26, 18)
    assert resolve(0.05, 0.03, 0.04, 50, 16, 0.95) == Resolution(143, None)  # 50 · (0.098 / 0.05)² = 192.07
    assert resolve(0.0, 0.03, 0.04, 50, 16, 0.95) == Resolution(None, None)
    assert resolve(0.08, np.nan, np.nan, 50, 16, 0.95) == Resolution(None, None)
    assert resolve(0.08, 0.0, 0.0, 50, 16, 0.95) == Resolution(0, 0)


@given(st.floats(0.001, 1), st.floats(0.001, 0.3), st.floats(0.001, 0.3), st.integers(2, 1000), st.integers(1, 64), st.floats(0.5, 0.99))
def test_resolve_is_the_smallest_number_and_monotone(d, between, within, n, k, confidence):
    z = stats.norm.ppf(0.5 + confidence / 2)

    def reach(problems=0, samples=0):
        return z * np.sqrt((between**2 + within**2 * k / (k + samples)) * n / (n + problems))

    found = resolve(d, between, within, n, k, confidence)
    assert found == resolve(-d, between, within, n, k, confidence)
    assert reach(problems=found.problems) <= d * (1 + 1e-9)
    assert found.problems == 0 or reach(problems=found.problems - 1) > d * (1 - 1e-9)
    if found.samples is None:
        assert z * between >= d
    else:
        assert reach(samples=found.samples) <= d * (1 + 1e-6)
        assert found.samples == 0 or reach(samples=found.samples - 1) > d * (1 - 1e-6)
    larger, surer = resolve(1.5 * d, between, within, n, k, confidence), resolve(d, between, within, n, k, (1 + confidence) / 2)
    never = float("inf")
    assert larger.problems <= found.problems <= surer.problems
    samples = [never if r.samples is None else r.samples for r in (larger, found, surer)]
    assert samples == sorted(samples)


@pytest.fixture(scope="module")
def script(root):
    return runpy.run_path(str(root / "benchmarks" / "simulate_coverage.py"))


@pytest.fixture(scope="module")
def coverage(root):
    return pd.read_csv(root / "tests" / "golden" / "coverage.csv")


def test_every_interval_covers_at_its_rate(coverage):
    """The rule: a claim fails only if the interval of the measured coverage lies outside 93-97% entirely."""
    assert (coverage["verdict"] == "holds").all(), coverage[coverage["verdict"] != "holds"].to_string()
    assert ((coverage["low"] <= 0.97) & (coverage["high"] >= 0.93)).all()
    assert ((coverage["low"] < coverage["coverage"]) & (coverage["coverage"] < coverage["high"])).all()
    assert (coverage["n_studies"] >= 1000).all()
    assert (coverage["mean_width"] > 0).all()


def test_the_table_holds_the_script_s_settings(coverage, script):
    fields = [f.name for f in dataclasses.fields(script["Setting"])]
    rows = [tuple(row) for row in coverage[fields].itertuples(index=False)]
    assert rows == [dataclasses.astuple(s) for s in script["settings"]()]
    wanted = {(a, 50) for a in (0.1, 0.25, 0.5, 0.75, 0.9)} | {(a, 500) for a in (0.03, 0.1, 0.5, 0.9, 0.97)}
    for quantity in ("single", "vote", "difference", "chosen_best"):
        for stratified in (False, True):
            part = coverage[(coverage["quantity"] == quantity) & (coverage["stratified"] == stratified) & (coverage["K"] == 16)]
            assert set(zip(part["accuracy"], part["n_problems"], strict=True)) == wanted
    differences = coverage[coverage["quantity"] == "difference"]
    assert (differences["truth"] == 0).any()
    assert differences["truth"].abs().between(1e-9, 0.01).any()


@pytest.mark.parametrize("quantity", ["single", "vote", "difference", "chosen_best"])
def test_golden_coverage_is_reproducible(coverage, script, quantity):
    at = coverage.index[coverage["quantity"] == quantity][0]
    covers, width, truth = script["simulate"](script["settings"]()[at], script["PREFIX"], script["SEED"])
    assert covers.sum() == coverage.loc[at, "first_hits"]
    assert truth.mean() == pytest.approx(coverage.loc[at, "truth"], rel=0.01)
    assert width.mean() == pytest.approx(coverage.loc[at, "mean_width"], rel=0.05)


def test_truth_of_a_vote_is_that_of_a_large_simulation(script):
    rng = np.random.default_rng(0)
    means = np.repeat([0.2, 0.6], 5)
    p = script["probabilities"](means, 4.0, 20_000, rng)
    truth = script["true_vote"](means, 4.0)
    value = script["votes"](p, 16, rng).mean()
    assert value == pytest.approx(truth, abs=0.003)
    assert abs(truth - means.mean()) > 0.01  # so a vote is not one sample
