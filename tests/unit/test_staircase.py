"""The band and the area of the staircase of best accuracies."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopstat.staircase import band, hypervolume

POINTS = st.lists(st.tuples(st.integers(1, 8), st.integers(0, 6)), min_size=1, max_size=20)


def area_by_hand(cost, accuracy, low, high):
    """Mean over log cost of the best accuracy of any cell at that cost or less, by a fine grid."""
    grid = np.geomspace(low, high, 200_001)[:-1]
    order = np.argsort(cost, kind="stable")
    at = np.searchsorted(cost[order], grid, side="right") - 1
    best = np.maximum.accumulate(accuracy[order])
    return np.where(at >= 0, best[np.maximum(at, 0)], 0.0).mean()


@given(POINTS)
def test_hypervolume_is_the_mean_of_the_staircase_over_log_cost(points):
    cost, accuracy = (np.array(x, dtype=float) for x in zip(*points, strict=True))
    accuracy /= 6
    found = hypervolume(cost, accuracy, np.tile(accuracy, (2, 1)), 30, 0.95)
    if cost.min() == cost.max():
        assert found.estimate == pytest.approx(accuracy.max())
    else:
        assert found.estimate == pytest.approx(area_by_hand(cost, accuracy, cost.min(), cost.max()), abs=1e-4)
    assert 0 <= found.low <= found.estimate + 1e-9
    assert found.estimate - 1e-9 <= found.high <= 1


def test_hypervolume_by_hand():
    """0.2 from 1 to 10 and 0.6 from 10 to 100: mean 0.4. Over 1 to 1000 a third each: 0.2, 0.6, 0.6."""
    cost, accuracy = np.array([1.0, 10.0, 100.0]), np.array([0.2, 0.6, 0.5])
    boot = accuracy + np.random.default_rng(0).normal(0, 0.01, size=(400, 1))
    assert hypervolume(cost, accuracy, boot, 30, 0.95).estimate == pytest.approx(0.4)
    assert hypervolume(cost, accuracy, boot, 30, 0.95, (1.0, 1000.0)).estimate == pytest.approx((0.2 + 0.6 + 0.6) / 3)
    assert hypervolume(cost, accuracy, boot, 30, 0.95, (0.1, 10.0)).estimate == pytest.approx((0 + 0.2) / 2)
    found = hypervolume(cost, accuracy, boot, 30, 0.95)
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.01, rel=0.2)


def test_a_hypervolume_that_no_replicate_moves_has_the_limits_of_its_problems():
    cost, accuracy = np.array([1.0, 10.0]), np.zeros(2)
    found = hypervolume(cost, accuracy, np.zeros((400, 2)), 50, 0.95)
    assert (found.estimate, found.low) == (0.0, pytest.approx(0.0, abs=1e-6))
    assert found.high == pytest.approx(0.0713, abs=1e-3)  # Wilson, 0 of 50


@given(POINTS, st.integers(0, 9))
def test_band_rises_with_cost_and_holds_the_measured_staircase(points, seed):
    rng = np.random.default_rng(seed)
    cost = np.array([c for c, _ in points], dtype=float)
    values = (rng.random((30, len(points))) < np.array([a for _, a in points]) / 6).astype(float)
    w = rng.multinomial(30, np.full(30, 1 / 30), size=50) / 30
    low, high = band(cost, values, w @ values, 0.95)
    order = np.argsort(cost, kind="stable")
    assert (np.diff(low[order]) >= 0).all()
    assert (np.diff(high[order]) >= 0).all()
    for i, c in enumerate(cost):
        best = values.mean(axis=0)[cost <= c].max()
        assert low[i] <= best + 1e-12
        assert best <= high[i] + 1e-12


def test_a_cell_that_is_always_right_has_room_below_and_one_that_never_is_above():
    """The plain limits a ± q·se have none: simulate_frontier.py found them to cover in 1 study of 100 near accuracies of 1."""
    values = np.column_stack([np.zeros(40), np.ones(40)])
    w = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), size=200) / 40
    low, high = band(np.array([1.0, 2.0]), values, w @ values, 0.95)
    assert high[0] > 0.05
    assert low[1] < 0.95
