"""Budgets: what a user may ask for, and which cells meet it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from flopstat.costs import COST_UNITS
from flopstat.errors import InputError

# Option of the command line: cost column.
OPTIONS = {
    "flops": "flops",
    "eflops": "eflops",
    "device-seconds": "device_s",
    "latency": "latency_p50_s",
    "latency-p90": "latency_p90_s",
    "memory": "memory_bytes",
    "usd": "usd",
    "joules": "joules",
}
FAR = 10.0  # times the dearest cell: no budget beyond says anything of this study
_NAMES = {column: f"--{option}" for option, column in OPTIONS.items()}


def name_of(cost: str) -> str:
    """The option of a cost column, or the column where it has none."""
    return _NAMES.get(cost, cost)


def amount(cost: str, value: float) -> str:
    """A cost with its unit, for people."""
    return f"{value:.3g} {COST_UNITS.get(cost, '')}".strip()


def describe(row: Mapping[str, object] | pd.Series) -> str:
    """A cell in one phrase."""
    return f"{row['arm']} T={row['T']} P={row['P']} B={row['B']} {row['strategy']}"


def check_numbers(budgets: Mapping[str, float]) -> None:
    """Refuse what is no budget of any study.

    Raises
    ------
    InputError
        If there is none, or one that is not a finite number above 0.
    """
    if not budgets:
        raise InputError(f"no budget: give one of {', '.join(_NAMES.values())}")
    for cost, value in budgets.items():
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"{name_of(cost)} {value:g}: a budget is a finite number above 0")


def check(budgets: Mapping[str, float], cells: pd.DataFrame) -> None:
    """Refuse budgets that mean nothing for these cells.

    Raises
    ------
    InputError
        As `check_numbers`; for a kind that the cells have no cost of; and if all of them lie beyond FAR times the dearest cell. One line
        that names the option.
    """
    check_numbers(budgets)
    for cost in budgets:
        if cost not in cells or cells[cost].isna().all():
            measured = [name_of(c) for c in COST_UNITS if c in cells and cells[c].notna().any()]
            raise InputError(f"{name_of(cost)}: not measured in this study; choose from {', '.join(measured) or 'nothing'}")
    dearest = {cost: float(cells[cost].max()) for cost in budgets}
    if all(value > FAR * dearest[cost] for cost, value in budgets.items()):
        cost = min(budgets, key=lambda c: budgets[c] / dearest[c])
        raise InputError(
            f"{name_of(cost)} {budgets[cost]:g}: the data end at {amount(cost, dearest[cost])} (dearest cell); beyond {FAR:g} times that "
            "this study can't say what more would buy; ask for less, or measure larger cells"
        )


def feasible(budgets: Mapping[str, float], cells: pd.DataFrame) -> NDArray[np.int64]:
    """Positions of the cells that meet all budgets at once.

    A cell whose cost is unknown does not meet a budget of it.

    Raises
    ------
    InputError
        If none does, naming the nearest budgets that one would meet: of all cells the one that overspends least, by its worst ratio.
    """
    costs = cells[list(budgets)].to_numpy(dtype=float)
    limits = np.array(list(budgets.values()), dtype=float)
    with np.errstate(invalid="ignore"):
        meets = (costs <= limits * (1 + 1e-12)).all(axis=1)
    if meets.any():
        return np.flatnonzero(meets)
    ratios = costs / np.maximum(limits, 1e-200 * np.nan_to_num(costs).max(axis=0))  # of limits next to nothing still a number
    worst = np.where(np.isnan(costs).any(axis=1), np.inf, ratios.max(axis=1))
    if not np.isfinite(worst).any():
        raise InputError(f"{', '.join(name_of(c) for c in budgets)}: no cell has all of these costs; give them one at a time")
    nearest = int(np.argmin(worst))
    needed = ", ".join(
        f"{name_of(cost)} {_up(value)}" for cost, value, limit in zip(budgets, costs[nearest], limits, strict=True) if value > limit
    )
    alone = all((cells[cost] <= limit).any() for cost, limit in budgets.items())
    why = "each can be met alone, but no cell meets all together" if len(budgets) > 1 and alone else "no cell is that cheap"
    asked = ", ".join(f"{name_of(cost)} {value:g}" for cost, value in budgets.items())
    raise InputError(f"{asked}: {why}; the nearest that can be met is {needed} ({describe(cells.iloc[nearest])})")


def _up(value: float) -> str:
    """A number to four digits, never below it: a budget of that size is met."""
    digits = 3 - math.floor(math.log10(value))
    return f"{math.ceil(value * 10.0**digits) / 10.0**digits:.6g}"
