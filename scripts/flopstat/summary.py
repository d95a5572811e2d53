"""A study's answer in plain text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from flopstat import tables
from flopstat.costs import COST_NAMES, headline_cost
from flopstat.errors import InputError
from flopstat.findings import findings
from flopstat.stored import read_json

BUDGETS = 5


def _cell(row: pd.Series) -> str:
    return f"{row['arm']} T={row['T']} P={row['P']} B={row['B']} {row['strategy']}"


def _percent(row: pd.Series) -> str:
    name = "accuracy_chosen" if pd.notna(row["accuracy_chosen"]) else "accuracy"
    return f"{100 * row[name]:.1f}% [{100 * row[f'{name}_low']:.1f}, {100 * row[f'{name}_high']:.1f}]"


def _lead(row: pd.Series) -> str:
    """The lead over the runner-up in points, and what would resolve it."""
    if pd.isna(row["runner_up"]):
        return "no other arm is affordable"
    text = f"{100 * row['lead']:+.1f} points [{100 * row['lead_low']:+.1f}, {100 * row['lead_high']:+.1f}] on {row['runner_up']}"
    more = []
    for what in ("problem", "sample"):
        n = row[f"more_{what}s"]
        if pd.notna(n) and n > 0:
            more.append(f"{int(n):,} more {what}{'s' if n > 1 else ''}")
    return text + (f"; {' or '.join(more)} would resolve it" if more else "")


def _fragile(table: pd.DataFrame) -> str:
    """How many conclusions of laws flip, by law and parameter; empty if none does."""
    groups = table.drop_duplicates(["law", "arm", "T", "parameter"])
    flipped = groups[groups["fragile"]]
    if flipped.empty:
        return ""
    counts = (flipped["law"] + " " + flipped["parameter"]).value_counts(sort=False)
    told = ", ".join(f"{name} {count}" for name, count in counts.items())
    found = f"{len(flipped)} of {len(groups)} conclusions of laws flip with the choices of the fit"
    return f"Fragile: {found} ({told}); see law_sensitivity.csv"


def summarize(study: Path) -> str:
    """Best cells for a few budgets with intervals, the crossovers, and where the files lie.

    Raises
    ------
    InputError
        If the folder holds no finished study.
    """
    if not (study / "frontier.csv").is_file():
        raise InputError(f"{study}: no frontier.csv; run the study first (`make run`)")
    edge = tables.read("frontier", study / "frontier.csv")
    crossings = tables.read("crossovers", study / "crossovers.csv")
    configurations = tables.read("configurations", study / "configurations.csv")
    cost = headline_cost(configurations)
    if cost is None:
        raise InputError(f"{study}: no arm has a cost, so there is no budget to choose for; see configurations.csv")
    edge = edge[edge["cost"] == cost].sort_values("value")
    n = int(configurations.loc[configurations["split"] == "study", "n_problems"].iloc[0])
    confidence = read_json(study / "run.json", "record of a run")["config"]["statistics"]["confidence"]
    name = configurations["study"].iloc[0]
    out = [
        f"{name}: best cell for a budget ({n} study problems, {confidence:.0%} intervals over problems like these)",
        "accuracy is corrected for the choice; below it the lead over the best cell of another arm",
    ]
    unit = "FLOP/problem" if cost == "flops" else "FLOP/problem (nominal)"
    for budget in np.geomspace(edge["value"].min(), edge["value"].max(), BUDGETS) * (1 + 1e-9):
        row = edge[edge["value"] <= budget].iloc[-1]
        out.append(f"  {budget:8.2e} {unit}  {_percent(row):24}  {_cell(row)}")
        out.append(f"{'':25}{_lead(row)}")
    out.append(f"Where the larger model overtakes the best of the smaller ({COST_NAMES[cost]}, simultaneous limits):")
    for _, row in crossings[crossings["cost"] == cost].iterrows():
        where = ""
        if pd.notna(row["at"]):
            where = f" at {row['at']:.2e} [{row['at_low']:.2e}, {row['at_high']:.2e}]"
        elif pd.notna(row["at_high"]):
            where = f" from {row['at_low']:.2e}, ahead from {row['at_high']:.2e} on"
        if pd.notna(row["n_more"]):
            where += f" (about {int(row['n_more'])} more problems would settle it)"
        out.append(f"  {row['large']}, {row['kind']}, against {row['small']}: {row['status'].replace('_', ' ')}{where}")
    found = findings(study, configurations, crossings, cost)
    out += [f"What was found ({confidence:.0%} intervals):", *(f"  {text}" for text in found)] if found else []
    if (study / "law_sensitivity.csv").is_file() and (told := _fragile(tables.read("law_sensitivity", study / "law_sensitivity.csv"))):
        out.append(told)
    places = {"paper": "paper/flopstat.pdf", "report": "report.html", "figure": "figures/accuracy.png", "tables": "*.csv"}
    for name, place in places.items():
        there = any(study.glob(place))
        out.append(f"{name + ':':8} {study / place}{'' if there else ' (not built)'}")
    return "\n".join(out)
