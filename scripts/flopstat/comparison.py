"""Two arms on the same problems: the paired difference of their accuracies beside the ratio of their costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from flopstat import bootstrap
from flopstat.columns import TABLES
from flopstat.costs import COSTS
from flopstat.frontier import Judged


def compare_pairs(judged: Judged, pairs: list[list[str]]) -> pd.DataFrame:
    """Rows of pairs.csv: for each pair and each T that both arms have, the difference of their single samples' accuracies.

    accuracy_a - accuracy_b over the study problems, interval by `bootstrap.paired_interval` with the weights that all cells share. The
    cost ratio stands once per cost column that both arms have; without any the row stays, its cost missing.
    """
    single = judged.cells[judged.cells["strategy"] == "single"]
    rows: list[dict[str, Any]] = []
    for a, b in pairs:
        mine, theirs = (single[single["arm"] == arm].reset_index(names="cell").set_index("T") for arm in (a, b))
        for t in sorted(set(mine.index) & set(theirs.index)):
            one, other = mine.loc[t], theirs.loc[t]
            difference = (judged.values[:, one["cell"]] - judged.values[:, other["cell"]])[:, None]
            interval = bootstrap.paired_interval(difference, judged.w, judged.confidence)
            flags = [f for cell in (one, other) if pd.notna(cell["flags"]) for f in cell["flags"].split(";") if f != "small_counts"]
            row = {
                "study": one["study"],
                "arm_a": a,
                "arm_b": b,
                "T": t,
                "n_problems": judged.n_problems,
                "accuracy_a": one["accuracy"],
                "accuracy_b": other["accuracy"],
                "difference": float(difference.mean()),
                "low": float(interval.low[0]),
                "high": float(interval.high[0]),
                "estimand": bootstrap.ESTIMAND,
                "flags": ";".join([*dict.fromkeys(flags), *["small_counts"] * bool(interval.few[0])]) or None,
            }
            known = [cost for cost in COSTS if pd.notna(one[cost]) and pd.notna(other[cost])]
            ratios = [{"cost": cost, "cost_ratio": one[cost] / other[cost]} for cost in known] or [{"cost": None, "cost_ratio": np.nan}]
            rows += [row | ratio for ratio in ratios]
    return pd.DataFrame(rows, columns=list(TABLES["pairs"]))
