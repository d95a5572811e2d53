"""Dominance: which axis (N, T, P, B or q) buys most accuracy per doubling of cost, from where one stands."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from flopstat import bootstrap
from flopstat.columns import TABLES
from flopstat.costs import COSTS
from flopstat.frontier import Judged, with_cost

Floats = NDArray[np.float64]

AXES = ("N", "T", "P", "B", "q")
NO_PART = {"flops": ("q",), "flops_nominal": ("q",)}  # the same multiplications at every precision: q has no price there
LEAST_DOUBLINGS = 0.01  # ASSUME a step that takes less than 0.7% more of a cost counts as 0.7% more, so that gains stay finite
LEAST_VOTE = 3  # a vote of 2 with ties at random is one sample: the step from one chain goes to 3 or more
MAPPED = ("single", "majority")  # strategies of the map's cells
SURFACE, FULL_BITS = "latent", 16.0  # the type of surface that is asked; weights of more bits count as these
VOTES, BEST, BOTH = "majority", "best_of_mean_logprob", "majority_of_best_of"


@dataclass(frozen=True)
class Place:
    """Cells by their keys, and the values of every axis, in the order in which a step takes them."""

    rows: list[dict[Hashable, Any]]
    at: dict[tuple[Any, ...], int]  # (model, precision, T, P, B, strategy) to position
    sizes: list[tuple[str, int]]  # models by rising size
    precisions: dict[str, list[tuple[str, float]]]  # of a model with their bits, as the cells name them
    values: dict[str, list[int]]  # of T, P and B, rising

    @classmethod
    def of(cls, cells: pd.DataFrame) -> Place:
        keys = cells[["model", "precision", "T", "P", "B", "strategy"]].itertuples(index=False, name=None)
        models = cells[["model", "n_params"]].drop_duplicates().sort_values("n_params", kind="stable")
        arms = cells[["model", "precision", "bits_effective"]].drop_duplicates(["model", "precision"])
        precisions: dict[str, list[tuple[str, float]]] = {}
        for model, precision, bits in arms.itertuples(index=False, name=None):
            precisions.setdefault(model, []).append((precision, bits))
        return cls(
            cells[["arm", "model", "n_params", "precision", "bits_effective", "T", "P", "B", "strategy"]].to_dict("records"),
            {key: i for i, key in enumerate(keys)},
            list(models.itertuples(index=False, name=None)),
            precisions,
            {column: sorted(int(v) for v in cells[column].unique()) for column in ("T", "P", "B")},
        )

    def neighbour(self, index: int, axis: str) -> int | None:
        """Position of the next cell along an axis, the others held; None where there is none.

        N: the next larger model at the same precision, or from a model's first precision to the next one's first. T, P, B: the next larger
        value that was measured. P and B change the strategy where they must: one chain becomes a vote or a best of B, a vote of P
        becomes a vote over the best of B. q: the same model's arm of next higher bits.
        """
        row = self.rows[index]
        candidates = {"N": self._larger, "T": self._longer, "P": self._wider, "B": self._deeper, "q": self._finer}[axis](row)
        return next((self.at[key] for key in candidates if key in self.at), None)

    def _larger(self, row: dict[Hashable, Any]) -> Iterator[tuple[Any, ...]]:
        for name, size in self.sizes:
            if size > row["n_params"]:
                rest = (row["T"], row["P"], row["B"], row["strategy"])
                yield (name, row["precision"], *rest)
                if row["precision"] == self.precisions[row["model"]][0][0]:
                    yield (name, self.precisions[name][0][0], *rest)

    def _above(self, column: str, value: int) -> Iterator[int]:
        return (v for v in self.values[column] if v > value)

    def _longer(self, row: dict[Hashable, Any]) -> Iterator[tuple[Any, ...]]:
        for t in self._above("T", row["T"]):
            yield (row["model"], row["precision"], t, row["P"], row["B"], row["strategy"])

    def _wider(self, row: dict[Hashable, Any]) -> Iterator[tuple[Any, ...]]:
        wider = {"single": VOTES, "greedy": VOTES, BEST: BOTH}.get(row["strategy"], row["strategy"])
        if wider == BEST or (row["P"] == 1 and wider not in (VOTES, BOTH)):
            return
        for p in self._above("P", LEAST_VOTE - 1 if row["P"] == 1 else row["P"]):
            yield (row["model"], row["precision"], row["T"], p, row["B"], wider)

    def _deeper(self, row: dict[Hashable, Any]) -> Iterator[tuple[Any, ...]]:
        deeper = {"single": BEST, "greedy": BEST, VOTES: BOTH}.get(row["strategy"], row["strategy"])
        for b in self._above("B", row["B"]):
            yield (row["model"], row["precision"], row["T"], row["P"], b, deeper)

    def _finer(self, row: dict[Hashable, Any]) -> Iterator[tuple[Any, ...]]:
        finer = [(bits, precision) for precision, bits in self.precisions[row["model"]] if bits > row["bits_effective"]]
        for _, precision in sorted(finer, key=itemgetter(0)):
            yield (row["model"], precision, row["T"], row["P"], row["B"], row["strategy"])


def gains(judged: Judged, place: Place, cost: str, positions: Sequence[int]) -> list[dict[str, Any]]:
    """One row per cell and axis that leads on from it: gain per doubling of a cost with limits, and how often it is the highest.

    gain = (A' - A) / max(log2(c' / c), LEAST_DOUBLINGS) for the step to the neighbour, with the limits of the paired difference divided by
    the same; p_best is the share of bootstrap replicates in which the axis gains most of those of its cell, ties shared. No row has an
    axis that has no part in the cost (q under FLOPs), or a step after which neither cost nor accuracy is another: the axis is spent.

    Leaves out: steps along two axes at once; the uncertainty of the costs. # ASSUME costs of steps are known, as on the frontier
    """
    value = judged.cells[cost].to_numpy(dtype=float)
    axes = [a for a in AXES if a not in NO_PART.get(cost, ())]
    steps = [(i, axis, to) for i in positions for axis in axes if (to := place.neighbour(i, axis)) is not None]
    if not steps:
        return []
    start, end = np.array([i for i, _, _ in steps]), np.array([j for _, _, j in steps])
    doublings = np.log2(value[end] / value[start])
    over = np.maximum(doublings, LEAST_DOUBLINGS)
    difference = judged.values[:, end] - judged.values[:, start]
    limits = bootstrap.paired_interval(difference, judged.w, judged.confidence)
    kept = (np.abs(doublings) >= LEAST_DOUBLINGS) | (limits.low > 0) | (limits.high < 0)
    p_best = np.full(len(steps), np.nan)
    for i in dict.fromkeys(start[kept].tolist()):
        mine = np.flatnonzero((start == i) & kept)
        boot = (judged.boot[:, end[mine]] - judged.boot[:, [i]]) / over[mine]
        best = boot >= boot.max(axis=1, keepdims=True) - bootstrap.ROUNDING
        p_best[mine] = (best / best.sum(axis=1, keepdims=True)).mean(axis=0)
    gain = difference.mean(axis=0) / over
    cells = judged.cells.to_dict("records")
    return [
        {"cost": cost, "at": value[i], "N": cells[i]["n_params"]}
        | {k: cells[i][k] for k in ("T", "P", "B", "arm", "strategy")}
        | {"axis": axis, "gain_per_doubling": gain[n], "low": limits.low[n] / over[n], "high": limits.high[n] / over[n]}
        | {"p_best": p_best[n], "doublings": doublings[n]}
        for n, (i, axis, _) in enumerate(steps)
        if kept[n]
    ]


def find_dominance(judged: Judged, frontier: pd.DataFrame, gradients: pd.DataFrame | None = None) -> pd.DataFrame:
    """Dominance at every frontier cell and over the map of (cost, N, T), per cost column.

    Parameters
    ----------
    frontier : table
        frontier.csv: its cells are the rows with place frontier. The map (place map) takes single chains and votes of all arms.
    gradients : table
        surface_gradients.csv: its rows of type SURFACE within the measured range are added with source surface, see `on_surface`.
    """
    rows: list[dict[str, Any]] = []
    for cost in COSTS:
        if cost not in judged.cells or judged.cells[cost].isna().all():
            continue
        known = with_cost(judged, cost)
        place = Place.of(known.cells)
        edge = frontier[frontier["cost"] == cost]
        keys = edge[["model", "precision", "T", "P", "B", "strategy"]].itertuples(index=False, name=None)
        on_edge = [place.at[key] for key in keys if key in place.at]
        mapped = np.flatnonzero(known.cells["strategy"].isin(MAPPED))
        if gradients is not None:
            rows += on_surface(known, place, cost, gradients)
        for where, positions in (("frontier", on_edge), ("map", mapped)):
            rows += [row | {"place": where, "source": "cells"} for row in gains(known, place, cost, [int(i) for i in positions])]
    return pd.DataFrame(rows, columns=list(TABLES["dominance"]))


def on_surface(judged: Judged, place: Place, cost: str, gradients: pd.DataFrame) -> list[dict[str, Any]]:
    """Gains per doubling of a cost by the fitted surface, at the points of surface_gradients.csv that are nearest to a measured cell.

    The surface gives dA per doubling of the axis; the cells give how many doublings of the cost a doubling of the axis takes, between
    the cell nearest in (N, T, P, B, q) and its neighbour along the axis: gain = gradient / max(log2(c'/c) / log2(x'/x), LEAST_DOUBLINGS).
    No p_best: the limits of the gradients are not joint.
    """
    cells = judged.cells.reset_index(drop=True)
    value = cells[cost].to_numpy(dtype=float)
    bits = np.minimum(cells["bits_effective"].to_numpy(dtype=float), FULL_BITS)
    candidates = np.flatnonzero(cells["strategy"].isin((*MAPPED, BEST, BOTH)))
    points = np.log2(np.column_stack([cells[["n_params", "T", "P", "B"]].to_numpy(dtype=float), bits]))
    told = gradients[(gradients["type"] == SURFACE) & gradients["inside"]]
    heres = np.log2(told[["N", "T", "P", "B", "q"]].to_numpy(dtype=float))
    rows = []
    for row, here in zip(told.to_dict("records"), heres, strict=True):
        axis = str(row["axis"])
        if axis in NO_PART.get(cost, ()):
            continue
        index = int(candidates[np.argmin(np.abs(points[candidates] - here).sum(axis=1))])
        to = place.neighbour(index, axis)
        along = 0.0 if to is None else float(points[to, AXES.index(axis)] - points[index, AXES.index(axis)])
        if to is None or along <= 0:
            continue
        price = max(float(np.log2(value[to] / value[index])) / along, LEAST_DOUBLINGS)
        cell = place.rows[index]
        where = {"cost": cost, "at": value[index], "place": "map", "source": "surface", "N": cell["n_params"]}
        numbers = {name: row[key] / price for name, key in (("gain_per_doubling", "gradient"), ("low", "low"), ("high", "high"))}
        rows.append(where | {k: cell[k] for k in ("T", "P", "B", "arm", "strategy")} | {"axis": axis} | numbers)
    return rows


def passes(dominance: pd.DataFrame) -> pd.DataFrame:
    """Where along the frontier the dominant axis changes: one row per change, by cost.

    The dominant axis at a cell is that of the highest gain per doubling, if it gains at all.

    Returns
    -------
    dominance_passes.csv: cost, at (the first cell of the new axis), before, after, p_before and p_after (p_best of each at its own cell)
    """
    rows: list[dict[str, Any]] = []
    for cost, part in dominance[(dominance["place"] == "frontier") & (dominance["source"] == "cells")].groupby("cost", sort=False):
        best = part.loc[part.groupby(["at", "arm", "T", "P", "B", "strategy"], sort=False)["gain_per_doubling"].idxmax()]
        best = best[best["gain_per_doubling"] > 0].sort_values("at", kind="stable")
        for (_, one), (_, other) in zip(best.iloc[:-1].iterrows(), best.iloc[1:].iterrows(), strict=True):
            if one["axis"] != other["axis"]:
                ends = {"before": one["axis"], "after": other["axis"], "p_before": one["p_best"], "p_after": other["p_best"]}
                rows.append({"cost": cost, "at": other["at"]} | ends)
    return pd.DataFrame(rows, columns=list(TABLES["dominance_passes"]))
