"""Resampling of problems: weights, Wilson's interval, coverage, simultaneous limits."""

import numpy as np
import pytest

from flopstat.bootstrap import proportion_interval, simultaneous_limits, weights


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
