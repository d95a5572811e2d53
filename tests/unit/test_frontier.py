"""Frontier and crossovers on constructed data."""

import dataclasses
import runpy

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopstat import bootstrap
from flopstat.frontier import (
    HALF_REPLICATES,
    HALVES,
    Judged,
    _pareto_share,
    best_at,
    contests,
    crossover,
    crossovers,
    frontier,
    leader_at,
    pareto,
)

POINTS = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 5)), min_size=1, max_size=25)


def quadratic(cost, accuracy):
    """On the frontier: nothing costs no more and is better, or costs less and is as good."""
    return np.array(
        [
            not any((c <= ci and a > ai) or (c < ci and a >= ai) for c, a in zip(cost, accuracy, strict=True))
            for ci, ai in zip(cost, accuracy, strict=True)
        ]
    )


@given(POINTS)
def test_pareto_is_the_quadratic_definition(points):
    cost, accuracy = (np.array(x, dtype=float) for x in zip(*points, strict=True))
    assert pareto(cost, accuracy / 5).tolist() == quadratic(cost, accuracy).tolist()


@given(POINTS, st.integers(0, 100))
def test_share_of_replicates_on_the_frontier(points, seed):
    cost = np.array([c for c, _ in points], dtype=float)
    boot = np.random.default_rng(seed).integers(0, 5, size=(6, len(points))) / 5
    expected = np.mean([quadratic(cost, row) for row in boot], axis=0)
    np.testing.assert_allclose(_pareto_share(cost, boot), expected)


@given(POINTS)
def test_best_at(points):
    cost, accuracy = (np.array(x, dtype=float) for x in zip(*points, strict=True))
    grid = np.array([0.5, 1.0, 2.5, 6.0, 99.0])
    best, boot = best_at(cost, accuracy, np.vstack([accuracy, -accuracy]), grid)
    for i, c in enumerate(grid):
        there = accuracy[cost <= c]
        assert best[i] == boot[0, i] == (there.max() if there.size else -np.inf)
        assert boot[1, i] == (-there.min() if there.size else -np.inf)
    affords = grid[grid >= cost.min()]
    leaders = leader_at(cost, accuracy, affords)
    assert (cost[leaders] <= affords).all()
    assert accuracy[leaders].tolist() == best[grid >= cost.min()].tolist()


GRID = np.geomspace(1e3, 1e6, 31)


def cross(difference, noise, seed=0):
    difference = np.asarray(difference, dtype=float)
    rng = np.random.default_rng(seed)
    boot = difference + noise * (0.7 * rng.normal(size=(2000, 1)) + 0.7 * rng.normal(size=(2000, len(difference))))
    low, high, _ = bootstrap.simultaneous_limits(difference, boot, 0.95)
    return crossover(GRID, difference, low, high, 50)


def test_found_where_the_sign_changes():
    difference = np.linspace(-0.3, 0.3, 31) - 0.01
    found = cross(difference, 0.02)
    assert found.status == "found"
    assert found.at == GRID[difference > 0][0]
    assert found.at_low < found.at < found.at_high
    assert GRID[12] < found.at_low
    assert found.at_high < GRID[20]
    assert cross(difference, 0.04).at_high > found.at_high  # more noise, wider
    assert np.isnan(found.n_more)


def test_at_entry():
    found = cross(np.full(31, 0.2), 0.02)
    assert (found.status, found.at, found.at_low, found.at_high) == ("at_entry", GRID[0], GRID[0], GRID[0])


def test_none_in_range():
    found = cross(np.full(31, -0.2), 0.02)
    assert found.status == "none_in_range"
    assert np.isnan([found.at, found.at_low, found.at_high]).all()


def test_none_in_range_needs_every_cost():
    """Behind at first, and at the end 2 points behind give or take more: the estimate is nowhere above, and the data do not say so."""
    difference = np.concatenate([np.full(16, -0.2), np.full(15, -0.02)])
    open_end = cross(difference, 0.02)
    assert open_end.status == "not_separable"
    assert np.isnan([open_end.at, open_end.at_low, open_end.at_high]).all()
    assert open_end.n_more > 0
    clear = cross(difference, 0.02 / np.sqrt((open_end.n_more + 50) / 50))  # as many more problems as it asks for
    assert clear.status == "none_in_range"
    level = cross(np.where(difference == -0.02, 0.0, difference), 0.02)
    assert level.status == "not_separable"
    assert np.isnan(level.n_more)  # no number of problems tells a difference of 0 from 0


@pytest.mark.parametrize("gap", [-0.3, 0.0, 0.3])
def test_resamples_that_are_all_alike_decide_nothing_by_themselves(gap):
    """One problem per stratum: no resample differs, and what counts is what 60 problems hold."""
    given = judged(2)
    values = np.zeros_like(given.values)
    values[:20, :5] = 1.0
    values[: 20 + round(60 * gap), 5:] = 1.0
    still = dataclasses.replace(given, values=values, w=np.full((500, 60), 1 / 60), cells=given.cells.assign(accuracy=values.mean(axis=0)))
    contest = next(c for c in contests(still, "flops") if c.kind == "best")
    assert np.ptp(contest.replicates, axis=0).max() == 0
    low, high = contest.limits(0.95)
    assert (high - low > 0.05).all()
    status = {-0.3: "none_in_range", 0.0: "not_separable", 0.3: "at_entry"}[gap]
    assert set(crossovers(still, "flops")["status"]) == {status}
    two = values.copy()
    two[:, 5:] = two[:, :5]
    two[:2, 5:] = 1.0 - two[:2, :5]  # two problems of 60 differ, both to the larger model's loss
    few = dataclasses.replace(still, values=two, cells=given.cells.assign(accuracy=two.mean(axis=0)))
    assert set(crossovers(few, "flops")["status"]) == {"not_separable"}


def test_not_separable_says_how_many_problems_would_do():
    few, many = cross(np.full(31, 0.05), 0.05), cross(np.full(31, 0.05), 0.1)
    for found in (few, many):
        assert found.status == "not_separable"
        assert np.isnan([found.at, found.at_low, found.at_high]).all()
        assert found.n_more == int(found.n_more) > 0
    assert 2.5 < (many.n_more + 50) / (few.n_more + 50) < 5.5  # twice the noise: four times the problems


def test_ahead_from_some_cost_on_without_ever_being_behind():
    found = cross(np.concatenate([np.full(15, -0.005), np.full(16, 0.3)]), 0.03)
    assert found.status == "not_separable"
    assert (found.at_low, found.at_high) == (GRID[0], GRID[15])
    assert np.isnan(found.at)


def judged(models, seed=0):
    """Cells of models at five costs each, with 60 problems of which the larger model solves more, at four times the cost."""
    rng = np.random.default_rng(seed)
    rows, values = [], []
    for m in range(models):
        for i, strategy in enumerate(("single", "greedy", "majority", "majority", "majority")):
            values.append(rng.random(60) < 0.1 + 0.25 * m + 0.03 * i)
            keys = {"arm": f"m{m}@fp32", "model": f"m{m}", "n_params": 1000 * 4**m, "precision": "fp32", "bits_effective": 32.0}
            rows.append(
                keys | {"T": 64, "P": max(1, 2**i // 2), "B": 1, "strategy": strategy, "flops": 1e4 * 4**m * 2.0**i, "estimand": "e"}
            )
    table = np.array(values, dtype=float).T
    cells = pd.DataFrame(rows).assign(accuracy=table.mean(axis=0), accuracy_low=0.0, accuracy_high=1.0, se_sampling=0.01)
    w = rng.multinomial(60, np.full(60, 1 / 60), size=500) / 60
    return Judged(cells, table, np.zeros(60, dtype=int), w, 16, 0.95, seed=0)


def test_accuracy_is_corrected_for_the_choice_and_the_lead_is_paired():
    given = judged(2)
    table = frontier(given, "flops")
    last = table.iloc[-1]
    assert last["accuracy_chosen"] < last["accuracy"]  # ten cells were compared
    assert last["accuracy_chosen_low"] < last["accuracy_chosen"] < last["accuracy_chosen_high"]
    cheapest = table.iloc[0]
    assert cheapest["accuracy_chosen"] == pytest.approx(cheapest["accuracy"])  # nothing to choose from
    assert pd.isna(cheapest["runner_up"])
    other = given.cells[given.cells["arm"] != last["arm"]]
    best = other.loc[other["accuracy"].idxmax()]
    assert last["lead"] == pytest.approx(last["accuracy"] - best["accuracy"])
    assert last["lead_low"] < last["lead"] < last["lead_high"]
    assert last["runner_up"].startswith(best["arm"])
    resolved = last["lead_low"] > 0
    assert (last["more_problems"] == 0) == resolved


def test_crossovers_of_every_pair_with_neighbours_in_size_first():
    table = crossovers(judged(3), "flops")
    assert list(zip(table["small"], table["large"], strict=True)) == [("m0", "m1")] * 3 + [("m1", "m2")] * 3 + [("m0", "m2")] * 3
    assert table["kind"].tolist() == ["single", "greedy", "best"] * 3
    found = table[table["at"].notna()]
    assert (found["at_low"] <= found["at"]).all()
    assert (found["at"] <= found["at_high"]).all()


def test_cells_of_one_cost_are_all_weighed_and_the_best_kept():
    """Memory has many ties: of cells that cost the same the best stands on the frontier, equally good ones together."""
    given = judged(2)
    given.cells["flops"] = np.repeat([10.0, 20.0], 5)
    table = frontier(given, "flops")
    for cost, models in ((10.0, ["m0"]), (20.0, ["m0", "m1"])):
        affordable = given.cells.loc[given.cells["model"].isin(models), "accuracy"].max()
        assert table.loc[table["value"] <= cost, "accuracy"].max() == affordable
    given.values[:, 9] = given.values[:, 8]
    given.cells.loc[9, "accuracy"] = given.cells.loc[8, "accuracy"] = given.cells["accuracy"].max() + 0.1
    last = frontier(given, "flops")
    assert last["value"].tolist()[-2:] == [20.0, 20.0]
    assert last["P"].tolist()[-2:] == [4, 8]
    assert last["accuracy_chosen"].iloc[-1] == last["accuracy_chosen"].iloc[-2]


def test_the_correction_of_each_cost_is_that_of_its_affordable_cells_alone():
    given = judged(3)
    table = frontier(given, "flops")
    for _, row in table.iterrows():
        affordable = (given.cells["flops"] <= row["value"]).to_numpy()
        rng = np.random.default_rng([given.seed, 4])
        best = bootstrap.chosen_best(given.values[:, affordable], given.strata, HALF_REPLICATES, HALVES, given.confidence, rng)
        assert row["accuracy_chosen"] == pytest.approx(best.estimate)
        assert row["accuracy_chosen_low"] == pytest.approx(best.low)
        assert row["accuracy_chosen_high"] == pytest.approx(best.high)


def test_units_stand_in_every_row():
    given = judged(2)
    given.cells["memory_bytes"] = given.cells["flops"]
    for cost, unit in (("flops", "FLOP"), ("memory_bytes", "byte")):
        assert set(frontier(given, cost)["unit"]) == set(crossovers(given, cost)["unit"]) == {unit}


def test_one_model_has_no_crossover():
    table = crossovers(judged(1), "flops")
    assert table["status"].tolist() == ["one_model"]
    assert table[["at", "at_low", "at_high", "n_more"]].isna().all().all()


def test_frontier_rows_rise_in_cost_and_accuracy_within_their_band():
    table = frontier(judged(3), "flops")
    assert (table["value"].diff().dropna() >= 0).all()
    assert (table["accuracy"].diff().dropna() > 0).all()
    assert (table["band_low"].diff().dropna() >= 0).all()
    assert (table["band_low"] <= table["accuracy"]).all()
    assert (table["band_high"] >= table["accuracy"]).all()
    assert table[["p_on_frontier", "attainment"]].stack().between(0, 1).all()


def test_no_cell_is_lost_on_equal_costs():
    """Two equal cells are both on the frontier; the band at their cost is that of all cells of that cost."""
    given = judged(1)
    cells = pd.concat([given.cells, given.cells.iloc[[4]].assign(arm="twin@fp32", precision="twin")], ignore_index=True)
    values = np.column_stack([given.values, given.values[:, 4]])
    table = frontier(dataclasses.replace(given, cells=cells, values=values), "flops")
    top = table[table["value"] == cells["flops"].max()]
    assert len(top) == 2 or cells["accuracy"].max() > cells["accuracy"].iloc[4]
    assert top["band_high"].nunique() <= 1
    mask = pareto(cells["flops"].to_numpy(), cells["accuracy"].to_numpy())
    assert mask[4] == mask[5]
    assert len(table) == mask.sum()


def test_contest_is_what_the_crossover_is_judged_by():
    given = judged(2)
    single = next(c for c in contests(given, "flops") if c.kind == "single")
    cells, cost = given.cells, given.cells["flops"].to_numpy()
    for i, c in enumerate(single.grid):
        small = cells.loc[(cells["model"] == "m0") & (cost <= c), "accuracy"].max()
        large = cells.loc[(cells["model"] == "m1") & (cells["strategy"] == "single") & (cost <= c), "accuracy"].max()
        assert single.difference[i] == pytest.approx(large - small)
    table = single.table(0.95)
    assert (table["difference_low"] < table["difference"]).all()
    assert ((table["f_small_low"] <= table["f_small"]) & (table["f_small"] <= table["f_small_high"])).all()
    found = crossover(single.grid, single.difference, *single.limits(0.95), given.n_problems)
    row = crossovers(given, "flops").iloc[0]
    assert (row["kind"], row["status"]) == ("single", found.status)


def test_shared_uniforms_make_fewer_samples_resolve_a_lead():
    """With a ratio below 1 less of the standard error is the pools', so more samples do less."""
    given = judged(2)
    last = frontier(given, "flops").iloc[-1]
    top = given.cells[given.cells["accuracy"] == last["accuracy"]].iloc[0]
    ratios = {("m0@fp32", "m1@fp32", 64): 0.1, ("m1@fp32", "m0@fp32", 64): 0.1}
    other = frontier(dataclasses.replace(given, ratios=ratios), "flops").iloc[-1]
    assert top["arm"] == last["arm"] == other["arm"]
    assert last["lead"] == other["lead"]
    assert last["more_problems"] == other["more_problems"]  # the total is measured
    few = (last["more_samples"], other["more_samples"])
    assert pd.isna(few[1]) or few[1] >= few[0]


@pytest.fixture(scope="module")
def script(root):
    return runpy.run_path(str(root / "benchmarks" / "simulate_frontier.py"))


@pytest.fixture(scope="module")
def coverage(root):
    return pd.read_csv(root / "tests" / "golden" / "frontier_coverage.csv")


def test_band_and_crossovers_cover_at_their_rate(coverage):
    """The rule: a claim fails only if the interval of the measured rate lies outside the range asked for entirely."""
    assert (coverage["verdict"] == "holds").all(), coverage[coverage["verdict"] != "holds"].to_string()
    assert (coverage["n_studies"] >= 1000).all()
    band = coverage[coverage["quantity"] == "band"]
    assert (band["high"] >= 0.93).all()
    assert (band["mean_width"] > 0).all()
    pooled = coverage.assign(hits=coverage["rate"] * coverage["n_counted"]).groupby("quantity")[["hits", "n_counted"]].sum()
    rate = pooled["hits"] / pooled["n_counted"]
    assert rate["band"] >= 0.93
    assert rate["crossover"] >= 0.93
    assert rate["false"] <= 0.05
    assert rate["missed"] <= 0.05


def test_the_coverage_table_holds_the_script_s_settings(coverage, script):
    rows = coverage[coverage["quantity"] == "band"]
    found = list(rows[["name", "n_problems", "stratified", "precisions"]].itertuples(index=False, name=None))
    assert found == [(s.name, s.n_problems, s.stratified, s.precisions) for s in script["settings"]()]


def test_golden_coverage_is_reproducible(coverage, script):
    setting = next(s for s in script["settings"]() if (s.name, s.n_problems) == ("clear", 50))
    rows = coverage[(coverage["name"] == "clear") & (coverage["n_problems"] == 50)].set_index("quantity")
    outcomes = script["simulate"](setting, script["PREFIX"], script["SEED"])
    for quantity in rows.index:
        assert script["row"](setting, quantity, outcomes)["first_hits"] == rows.loc[quantity, "first_hits"]
