"""The ladder's model card: what it measures, and where a model leads."""

import numpy as np
import pytest

from flopstat.ladder import card


def curve(costs, accuracies, votes, n=1200):
    """Cells whose right answers are spread over the problems at random."""
    rng = np.random.default_rng(0)
    u = rng.random((n, 1))
    return card.Curve(np.array(costs), (u < np.array(accuracies)).astype(float), np.array(votes), np.arange(n) % 6)


def test_crossing_finds_both_sides():
    small = curve([1.0, 2.0, 4.0, 8.0], [0.40, 0.45, 0.50, 0.52], [1, 2, 4, 8])
    large = curve([3.0, 6.0, 9.0], [0.30, 0.70, 0.90], [1, 1, 4])  # the vote of 4 is not a single pass
    found = card.crossing(small, large, 1)
    cost, lead, low, high = found["smaller"]
    assert cost in (4.0, 3.0)
    assert 0 < low < lead < high
    assert lead == pytest.approx(0.20 if cost == 4.0 else 0.15, abs=0.03)
    cost, lead, low, high = found["larger"]
    assert cost in (6.0, 8.0)
    assert 0 < low < lead < high
    assert lead < 0.3


def test_a_model_that_never_leads_has_a_limit_below_zero():
    found = card.crossing(curve([1.0, 2.0], [0.4, 0.5], [1, 2]), curve([1.5, 3.0], [0.1, 0.2], [1, 1]), 1)
    assert found["larger"][2] < 0 < found["smaller"][2]


def test_measure_has_every_cell(tmp_path, monkeypatch):
    monkeypatch.setattr(card, "PRECISIONS", ("fp32", "rtn3"))
    table, made = card.measure("ladder-30k", 12, 3, tmp_path)
    assert len(table) == 2 * len(card.BUDGETS) * 3 * 7  # precisions, T, strategies, all steps and each
    assert ((table["low"] <= table["accuracy"]) & (table["accuracy"] <= table["high"])).all()
    whole = table[table["steps"] == 0]
    by_steps = table[table["steps"] > 0].groupby(["precision", "T", "strategy"])["accuracy"].mean()
    np.testing.assert_allclose(by_steps, whole.set_index(["precision", "T", "strategy"])["accuracy"].loc[by_steps.index])
    assert made.value.shape == (12, len(made.cost)) == (12, len(card.BUDGETS) * len(card.VOTES))
    top = whole[(whole["precision"] == "fp32") & (whole["T"] == 128)].set_index("strategy")["accuracy"]
    assert made.value[:, -1].mean() == pytest.approx(top["vote of 16"])
    assert made.value[:, -len(card.VOTES)].mean() == pytest.approx(top["single"])
    for start in range(0, len(made.cost), len(card.VOTES)):
        assert (np.diff(made.cost[start : start + len(card.VOTES)]) > 0).all()
