"""The thermostat's answers for a grid of budgets, and what choosing by measured accuracy loses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from flopstat import bootstrap
from flopstat.budgets import describe
from flopstat.columns import TABLES
from flopstat.costs import COSTS
from flopstat.crossfit import CrossFit
from flopstat.thermostat import Thermostat

Floats = NDArray[np.float64]

BUDGETS = 12


def budgets_of(cells: pd.DataFrame) -> dict[str, Floats]:
    """Log-spaced budgets from the cheapest cell to the dearest, by cost that the study knows."""
    known = [cost for cost in COSTS if cost in cells and (cells[cost] > 0).any()]
    return {cost: np.unique(np.geomspace(cells[cost].min() * (1 + 1e-9), cells[cost].max(), BUDGETS)) for cost in known}


def recommend_cells(thermostat: Thermostat) -> pd.DataFrame:
    """recommendations.csv: one row per cost and budget."""
    rows: list[dict[str, Any]] = []
    for cost, grid in budgets_of(thermostat.cells).items():
        for budget in grid:
            found = thermostat.recommend({cost: float(budget)})
            row = {
                "cost": cost,
                "budget": budget,
                "value": found.costs[cost].value,
                "n_feasible": found.n_feasible,
                "estimand": found.estimand,
            }
            row |= {k: getattr(found.cell, k) for k in ("arm", "T", "P", "B", "strategy")}
            row |= {k: getattr(found, k) for k in ("accuracy", "accuracy_low", "accuracy_high", "accuracy_measured")}
            row |= dict.fromkeys(("runner_up", "lead", "lead_low", "lead_high", "next_at", "next_axes", "next_gain"))
            if (second := found.runner_up) is not None:
                row |= {
                    "runner_up": describe(vars(second.cell)),
                    "lead": second.lead,
                    "lead_low": second.lead_low,
                    "lead_high": second.lead_high,
                }
            for step in found.steps:
                row |= {"next_at": step.needed, "next_axes": " ".join(step.axes), "next_gain": step.gain}
            rows.append(row)
    return pd.DataFrame(rows, columns=list(TABLES["recommendations"]))


def find_regret(thermostat: Thermostat) -> pd.DataFrame:
    """regret.csv: cross-fitted regret per cost and budget, with limits, beside its noise floor.

    regret: mean over random halves, both ways, of the accuracy on one half of that half's best cell minus that of the cell which the
    other half chooses. floor: the same after all cells that can't be told from the best (the paired limits of their difference hold 0)
    were moved to its accuracy: there no choice among them loses anything, and what is left is noise. A study of one problem has none.

    Leaves out: that these cells do differ a little, which makes the floor somewhat too high.
    """
    judged = thermostat.judged
    rows: list[dict[str, Any]] = []
    if judged.n_problems < 2:
        return pd.DataFrame(rows, columns=list(TABLES["regret"]))
    fit = CrossFit.of(judged.values, judged.strata, np.random.default_rng([judged.seed, 7]))
    mean = judged.values.mean(axis=0)
    for cost, grid in budgets_of(thermostat.cells).items():
        value = thermostat.cells[cost].to_numpy(dtype=float)
        order = np.argsort(value, kind="stable")
        for budget in grid:
            cells = order[value[order] <= budget * (1 + 1e-12)]
            best = int(cells[np.argmax(mean[cells])])
            lead = bootstrap.paired_interval(judged.values[:, [best]] - judged.values[:, cells], judged.w, judged.confidence)
            equal = cells[lead.low <= 0]
            level = judged.values.copy()
            level[:, equal] += mean[best] - mean[equal]
            floor = CrossFit.on(level, fit.sides).regrets(cells).mean()
            regret = fit.regrets(cells)[:, None]
            limits = bootstrap.paired_interval(np.clip(regret, -1, 1), judged.w, judged.confidence)
            rows.append(
                {"cost": cost, "budget": budget, "regret": float(regret.mean()), "low": float(limits.low[0]), "high": float(limits.high[0])}
                | {"floor": float(floor), "n_feasible": len(cells)}
            )
    return pd.DataFrame(rows, columns=list(TABLES["regret"]))
