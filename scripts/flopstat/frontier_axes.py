"""What each axis reaches alone, and all of them together: a frontier per axis, and its hypervolume."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from flopstat.columns import TABLES
from flopstat.costs import COSTS
from flopstat.frontier import Judged, pareto, with_cost
from flopstat.staircase import band, hypervolume
from flopstat.strategies import strategy

ALL = "all"
_CELL = ("arm", "T", "P", "B", "strategy")


def axes_of(cells: pd.DataFrame) -> Iterator[tuple[str, str | None, NDArray[np.int64]]]:
    """(axis, model, positions of its cells): one axis varies, the rest stays at one chain, largest T, and a model's first precision.

    N varies over models; T, P, B and q within each. An axis without a choice (one cell) is left out. `all` holds every cell.
    """
    first = cells["model"].map(cells.drop_duplicates("model").set_index("model")["precision"])
    reference, single = cells["precision"] == first, cells["strategy"] == "single"
    longest = cells["T"] == cells["T"].max()
    kinds = cells["strategy"].map({name: "none" if name == "greedy" else strategy(name).axis for name in cells["strategy"].unique()})
    masks = {
        "N": reference & single & longest,
        "T": reference & single,
        "P": reference & longest & (single | (kinds == "P")),
        "B": reference & longest & (single | (kinds == "B")),
        "q": single & longest,
    }
    for axis, mask in masks.items():
        for model in [None] if axis == "N" else list(dict.fromkeys(cells["model"])):
            positions = np.flatnonzero(mask if model is None else mask & (cells["model"] == model))
            if len(positions) > 1:
                yield axis, model, positions
    yield ALL, None, np.arange(len(cells))


def find_axes(judged: Judged) -> tuple[pd.DataFrame, pd.DataFrame]:
    """frontier_axes.csv and hypervolume.csv, for every cost that the study knows.

    Bands are simultaneous over the cells of one axis. Every hypervolume is taken over the study's whole range of a cost, so that those of
    two axes can be compared: a budget at which an axis affords nothing counts 0.
    """
    edges: list[dict[str, Any]] = []
    volumes: list[dict[str, Any]] = []
    for cost in COSTS:
        if cost not in judged.cells or judged.cells[cost].isna().all():
            continue
        known = with_cost(judged, cost)
        value, accuracy = known.cells[cost].to_numpy(dtype=float), known.values.mean(axis=0)
        span = (float(value.min()), float(value.max()))
        mine: list[dict[str, Any]] = []
        for axis, model, at in axes_of(known.cells):
            low, high = band(value[at], known.values[:, at], known.boot[:, at], known.confidence)
            on = np.flatnonzero(pareto(value[at], accuracy[at]))
            key = {"cost": cost, "axis": axis, "model": model}
            for i in on[np.argsort(value[at][on], kind="stable")]:
                cell = known.cells.iloc[at[i]]
                where = {k: cell[k] for k in _CELL}
                numbers = {"value": value[at[i]], "accuracy": accuracy[at[i]], "band_low": low[i], "band_high": high[i]}
                edges.append(key | where | numbers)
            top = on[np.argmax(accuracy[at][on])]
            volume = hypervolume(value[at], accuracy[at], known.boot[:, at], known.n_problems, known.confidence, span)
            mine.append(
                key
                | {"n_cells": len(at), "hypervolume": volume.estimate, "low": volume.low, "high": volume.high}
                | {"reach": accuracy[at[top]], "reach_low": low[top], "reach_high": high[top], "reach_at": value[at[top]]}
                | {"estimand": known.cells["estimand"].iloc[0]}
            )
        whole = next(row["hypervolume"] for row in mine if row["axis"] == ALL)
        volumes += [row | {"share": row["hypervolume"] / whole if whole > 0 else 0.0} for row in mine]
    return pd.DataFrame(edges, columns=list(TABLES["frontier_axes"])), pd.DataFrame(volumes, columns=list(TABLES["hypervolume"]))
