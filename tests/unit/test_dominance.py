"""Steps along the axes, gains by hand, and where the dominant axis changes."""

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from flopstat import tables
from flopstat.bootstrap import weights
from flopstat.dominance import LEAST_DOUBLINGS, Place, find_dominance, gains, passes
from flopstat.frontier import Judged, frontier
from flopstat.frontier_axes import axes_of, find_axes
from flopstat.frontier_figures import plot_crossovers, plot_dominance

N = 60


def study(rates, flops=lambda n, t, p, b: float(n * t * p * b)):
    """Two models at two precisions, T 16 and 32, P 1, 2 and 4, B 1 and 2; `rates` gives a cell's share of right problems."""
    rows = []
    for (model, n), (precision, bits), t in itertools.product((("s", 10), ("l", 40)), (("fp32", 32.0), ("int4", 4.0)), (16, 32)):
        for p, b, strategy in (
            (1, 1, "single"),
            (2, 1, "majority"),
            (4, 1, "majority"),
            (1, 2, "best_of_mean_logprob"),
            (2, 2, "majority_of_best_of"),
        ):
            rows.append(
                {"arm": f"{model}@{precision}", "model": model, "n_params": n, "precision": precision, "bits_effective": bits}
                | {"T": t, "P": p, "B": b, "strategy": strategy, "flops": flops(n, t, p, b), "memory_bytes": n * bits}
            )
    cells = pd.DataFrame(rows)
    right = np.array([round(N * rates(row)) for _, row in cells.iterrows()])
    values = (np.arange(N)[:, None] < right).astype(float)
    cells = cells.assign(accuracy=values.mean(axis=0), accuracy_low=0.0, accuracy_high=1.0, se_sampling=0.01, estimand="e")
    strata = np.zeros(N, dtype=np.int64)
    return Judged(cells, values, strata, weights(strata, 300, np.random.default_rng(0)), 8, 0.95, seed=0)


def rising(row):
    return 0.2 + 0.2 * (row["model"] == "l") + 0.1 * (row["T"] == 32) + 0.05 * (row["P"] == 4) + 0.05 * (row["precision"] == "fp32")


def position(cells, model, precision, t, p, b, strategy):
    return Place.of(cells).at[model, precision, t, p, b, strategy]


def test_neighbours():
    cells = study(rising).cells
    place = Place.of(cells)
    start = position(cells, "s", "int4", 16, 1, 1, "single")

    def step(axis, index=start):
        to = place.neighbour(index, axis)
        return None if to is None else tuple(cells.loc[to, ["model", "precision", "T", "P", "B", "strategy"]])

    assert step("N") == ("l", "int4", 16, 1, 1, "single")
    assert step("T") == ("s", "int4", 32, 1, 1, "single")
    assert step("P") == ("s", "int4", 16, 4, 1, "majority")  # a vote of 2 is one sample
    assert step("B") == ("s", "int4", 16, 1, 2, "best_of_mean_logprob")
    assert step("q") == ("s", "fp32", 16, 1, 1, "single")
    vote = position(cells, "l", "fp32", 32, 2, 1, "majority")
    assert [step(axis, vote) for axis in ("N", "T", "q")] == [None] * 3
    assert step("P", vote) == ("l", "fp32", 32, 4, 1, "majority")
    assert step("B", vote) == ("l", "fp32", 32, 2, 2, "majority_of_best_of")
    best = position(cells, "l", "fp32", 32, 1, 2, "best_of_mean_logprob")
    assert step("P", best) is None  # none of 4 streams of 2 was measured


def test_models_of_unlike_precisions_meet_at_their_first():
    cells = study(rising).cells
    cells.loc[cells["arm"] == "l@fp32", "precision"] = "bf16"
    place = Place.of(cells)
    to = place.neighbour(place.at["s", "fp32", 16, 1, 1, "single"], "N")
    assert tuple(cells.loc[to, ["model", "precision"]]) == ("l", "bf16")


def test_gain_per_doubling_by_hand():
    """From s@fp32 at T = 16 (25%): N 20 points over 2 doublings, T 10 over 1, P 5 over 2."""
    given = study(rising)
    at = position(given.cells, "s", "fp32", 16, 1, 1, "single")
    rows = {row["axis"]: row for row in gains(given, Place.of(given.cells), "flops", [at])}
    assert set(rows) == {"N", "T", "P", "B"}  # q has no price in FLOPs
    assert {axis: round(row["gain_per_doubling"], 6) for axis, row in rows.items()} == {"N": 0.1, "T": 0.1, "P": 0.025, "B": 0.0}
    assert {axis: row["doublings"] for axis, row in rows.items()} == {"N": 2.0, "T": 1.0, "P": 2.0, "B": 1.0}
    assert sum(row["p_best"] for row in rows.values()) == pytest.approx(1)
    for row in rows.values():
        assert row["low"] <= row["gain_per_doubling"] <= row["high"]


def test_q_competes_where_it_costs():
    given = study(rising)
    at = position(given.cells, "s", "int4", 32, 1, 1, "single")
    rows = {row["axis"]: row for row in gains(given, Place.of(given.cells), "memory_bytes", [at])}
    assert rows["q"]["gain_per_doubling"] == pytest.approx(0.05 / 3)
    assert rows["q"]["doublings"] == pytest.approx(3)


def test_a_step_that_changes_nothing_is_no_step_and_a_free_gain_stays_finite():
    saturated = study(lambda row: rising(row) - 0.1 * (row["T"] == 32), lambda n, t, p, b: float(n * p * b))
    at = position(saturated.cells, "s", "fp32", 16, 1, 1, "single")
    assert "T" not in {row["axis"] for row in gains(saturated, Place.of(saturated.cells), "flops", [at])}
    free = study(lambda row: rising(row) + 0.3 * (row["T"] == 32), lambda n, t, p, b: float(n * p * b))
    rows = {row["axis"]: row for row in gains(free, Place.of(free.cells), "flops", [at])}
    assert rows["T"]["gain_per_doubling"] == pytest.approx(0.4 / LEAST_DOUBLINGS, rel=0.05)
    assert rows["T"]["p_best"] == 1


@pytest.fixture(scope="module")
def dominance():
    given = study(rising)
    return find_dominance(given, frontier(given, "flops"))


def test_table_of_frontier_and_map(dominance):
    table = tables.validate(dominance, "dominance")
    assert set(table["cost"]) == {"flops", "memory_bytes"}
    assert set(table["place"]) == {"frontier", "map"}
    assert (table["source"] == "cells").all()
    shares = table[table["place"] == "map"].groupby(["cost", "arm", "T", "P", "strategy"])["p_best"].sum()
    np.testing.assert_allclose(shares, 1.0)
    assert not ((table["cost"] == "flops") & (table["axis"] == "q")).any()


def test_gradients_of_the_surface_are_put_per_doubling_of_cost():
    """From (10, 16, 1, 1): N gains 10 points per doubling of N, which costs one doubling; P 4 per doubling, which costs one."""
    given = study(rising)
    point = {"type": "latent", "N": 10.0, "T": 16.0, "P": 1, "B": 1, "q": 16.0, "inside": True}
    rows = [point | {"axis": a, "gradient": g, "low": g - 0.01, "high": g + 0.01} for a, g in (("N", 0.1), ("P", 0.04), ("q", 0.02))]
    rows += [rows[0] | {"type": "logs"}, rows[0] | {"inside": False}]
    table = find_dominance(given, frontier(given, "flops"), pd.DataFrame(rows))
    found = tables.validate(table, "dominance")
    found = found[(found["source"] == "surface") & (found["cost"] == "flops")].set_index("axis")
    assert found["gain_per_doubling"].round(9).to_dict() == {"N": 0.1, "P": 0.04}
    assert (found["low"] < found["gain_per_doubling"]).all()
    assert found["p_best"].isna().all()
    assert (found["at"] == 160).all()


def test_a_figure_of_no_steps_says_so(tmp_path, dominance):
    assert plot_dominance(dominance.iloc[:0], "t", [tmp_path / "none.png"]).empty
    assert (tmp_path / "none.png").stat().st_size > 1000


def test_where_the_dominant_axis_changes():
    rows = [
        (1.0, "T", 0.5, 1.0),
        (1.0, "N", 0.1, 0.0),
        (2.0, "T", 0.2, 0.9),
        (4.0, "N", 0.3, 0.8),
        (4.0, "P", 0.1, 0.2),
        (8.0, "P", 0.1, 0.97),
        (9.0, "P", -0.1, 1.0),  # no axis gains there: no change
    ]
    table = pd.DataFrame(rows, columns=["at", "axis", "gain_per_doubling", "p_best"])
    table = table.assign(cost="flops", place="frontier", source="cells", arm="a", T=1, P=1, B=1, strategy="single")
    found = tables.validate(passes(table), "dominance_passes")
    assert found[["at", "before", "after", "p_before", "p_after"]].to_numpy().tolist() == [
        [4.0, "T", "N", 0.9, 0.8],
        [8.0, "N", "P", 0.8, 0.97],
    ]


def test_axes_vary_alone():
    given = study(rising)
    found = {(axis, model): given.cells.iloc[at] for axis, model, at in axes_of(given.cells)}
    assert set(found) == {("N", None), ("all", None)} | set(itertools.product("TPBq", "sl"))
    for (axis, _), cells in found.items():
        if axis == "all":
            assert len(cells) == len(given.cells)
            continue
        varying = {"N": "model", "T": "T", "P": "P", "B": "B", "q": "precision"}[axis]
        fixed = {"model", "T", "P", "B", "precision"} - {varying}
        assert cells[varying].nunique() > 1
        assert (cells[list(fixed)].nunique() == 1).all()


def test_no_axis_alone_reaches_more_than_all_together():
    edges, volumes = find_axes(study(rising))
    tables.validate(edges, "frontier_axes")
    volumes = tables.validate(volumes, "hypervolume")
    for _, part in volumes.groupby("cost"):
        whole = part[part["axis"] == "all"].iloc[0]
        assert (part["hypervolume"] <= whole["hypervolume"] + 1e-12).all()
        assert (part["reach"] <= whole["reach"]).all()
        assert part["share"].max() == whole["share"] == 1
    for _, part in edges.groupby(["cost", "axis", edges["model"].fillna("")]):
        assert (part["value"].diff().dropna() >= 0).all()
        assert (part["accuracy"].diff().dropna() >= 0).all()


def test_figures_are_drawn_and_hand_back_their_points(tmp_path, dominance):
    from flopstat.frontier import crossovers

    paths = [tmp_path / "d.png", tmp_path / "d.pdf"]
    data = plot_dominance(dominance, "t", paths)
    assert (data["cost"] == "flops").all()
    assert all(path.stat().st_size > 5000 for path in paths)
    given = study(rising)
    curves = plot_crossovers(given, crossovers(given, "flops"), "t", [tmp_path / "c.png"])
    assert (curves[["small", "large"]].drop_duplicates().to_numpy() == [["s", "l"]]).all()
    np.testing.assert_allclose(curves["difference"], curves["f_large"] - curves["f_small"])
    assert (tmp_path / "c.png").stat().st_size > 5000
    one = Judged(given.cells[given.cells["model"] == "s"].reset_index(drop=True), given.values[:, :20], given.strata, given.w, 8, 0.95, 0)
    assert plot_crossovers(one, crossovers(one, "flops"), "t", [tmp_path / "one.png"]).empty  # one model: a figure that says so


def test_tick_labels_of_a_narrow_range_stay_apart(tmp_path, dominance, monkeypatch):
    gaps = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda fig, *a, **k: (gaps.extend(_gaps(fig)), save(fig, *a, **k)))
    ratio = dominance["at"] / dominance["at"].min()
    narrow = dominance.assign(at=4.1e9 * ratio ** (np.log(2.3) / np.log(ratio.max())))
    plot_dominance(narrow, "t", [tmp_path / "d.png"])
    assert gaps
    assert min(gaps) > 0


def _gaps(fig):
    """Distances of neighbouring tick labels, in pixels, over all x axes."""
    fig.canvas.draw()
    out = []
    for ax in fig.axes:
        low, high = ax.get_xlim()
        labels = [t for t in ax.get_xticklabels() if t.get_text() and low <= t.get_position()[0] <= high]
        boxes = sorted((t.get_window_extent() for t in labels), key=lambda box: box.x0)
        out += [right.x0 - left.x1 for left, right in itertools.pairwise(boxes)]
    return out
