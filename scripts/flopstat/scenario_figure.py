"""The figure of what-if scenarios: a panel per cost, the frontier as measured beside that of each scenario that moves the cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from flopstat.costs import COST_NAMES
from flopstat.scenarios import RESERVED
from flopstat.style import LINES, canvas, colors_of, finish, head, label_costs, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# flops_nominal goes with flops, the 90th percentile with the median, and joules with device_s
PANELS = ("flops", "eflops", "memory_bytes", "device_s", "latency_p50_s", "usd")
WORDS = "Frontiers as estimated, without bands. Bar through a diamond: cost range of the crossover's simultaneous limits."
BOUND = "Times and prices of another device are a roofline's: lower bounds."


def _points(scenarios: pd.DataFrame) -> pd.DataFrame:
    """Frontier cells by cost and scenario, the study's own once per cost; by rising value."""
    cell = ["arm", "model", "T", "P", "B", "strategy", "unit", "accuracy", "accuracy_low", "accuracy_high"]
    own = scenarios[scenarios["on_frontier"]][["cost", "scenario", *cell, "value"]]
    measured = scenarios[scenarios["on_frontier_as_measured"]].drop_duplicates(["cost", *cell[:1], *cell[2:6]])
    measured = measured.drop(columns="value").rename(columns={"value_as_measured": "value"}).assign(scenario=RESERVED)
    data = pd.concat([measured[["cost", "scenario", *cell, "value"]], own], ignore_index=True)
    data = data[data["cost"].isin(PANELS)]
    rank = data["cost"].map({cost: i for i, cost in enumerate(PANELS)})
    return data.assign(rank=rank).sort_values(["rank", "scenario", "value"], kind="stable", ignore_index=True).drop(columns="rank")


def plot_scenarios(
    scenarios: pd.DataFrame, scenario_crossovers: pd.DataFrame, crossovers: pd.DataFrame, title: str, note: str | None, paths: list[Path]
) -> pd.DataFrame:
    """Pareto frontiers under each scenario, for each cost that one of them moves; diamonds where a larger model overtakes.

    Parameters
    ----------
    scenarios, scenario_crossovers, crossovers : the tables of these names
    note : printed below, such as that times of different devices are mixed

    Returns
    -------
    The frontier cells drawn, one row each.
    """
    data = _points(scenarios)
    names = [RESERVED, *dict.fromkeys(scenarios["scenario"])]
    looks = _looks(names)
    crossings = pd.concat([crossovers.assign(scenario=RESERVED), scenario_crossovers], ignore_index=True)
    crossings = crossings[(crossings["kind"] == "best") & crossings["at"].notna()]
    costs = list(dict.fromkeys(data["cost"]))
    columns = min(3, max(1, len(costs)))
    rows = max(1, -(-len(costs) // columns))
    with canvas(rows, columns, (max(4.2, 2.6 * columns), 2.3 * rows + 1.0), sharey=True) as (fig, axes):
        for ax in axes.ravel()[len(costs) :]:
            ax.set_visible(False)
        for i, cost in enumerate(costs):
            ax = axes[i // columns, i % columns]
            _draw(ax, data[data["cost"] == cost], crossings[crossings["cost"] == cost], looks)
            ax.set_xlabel(COST_NAMES[cost])
            ax.set_title(f"({chr(ord('a') + i)})")
            if i % columns == 0:
                ax.set_ylabel("accuracy (correct / asked)")
        axes[0, 0].set_ylim(bottom=0)
        percent(axes[0, 0])
        handles = [Line2D([], [], color=color, ls=line, lw=1.6, label=name) for name, (color, line) in looks.items()]
        handles[0].set(lw=2.8, alpha=0.4)
        handles.append(Line2D([], [], color="0.35", marker="D", ms=4.5, ls="", label="a larger model overtakes"))
        head(fig, title)
        timed = data["cost"].isin(("device_s", "latency_p50_s", "usd")) & (data["scenario"] != RESERVED)
        notes = [WORDS, *([BOUND] if timed.any() else []), *([note] if note else [])]
        finish(fig, handles, notes, paths)
    return data


def _looks(names: list[str]) -> dict[str, tuple[Any, Any]]:
    """Black for the study, then colours with their own lines."""
    colors = colors_of(names[1:])
    return {names[0]: ("black", "-")} | {name: (colors[name], LINES[(i + 1) % len(LINES)]) for i, name in enumerate(names[1:])}


def _draw(ax: Axes, data: pd.DataFrame, crossings: pd.DataFrame, looks: dict[str, tuple[Any, Any]]) -> None:
    ax.set_xscale("log")
    left, right = float(data["value"].min()) / 1.5, float(data["value"].max()) * 1.5
    for name, (color, line) in looks.items():
        edge = data[data["scenario"] == name]
        if edge.empty:
            continue
        x, y = edge["value"].to_numpy(float), edge["accuracy"].to_numpy(float)
        own = name == RESERVED
        ends = np.append(x, right), np.append(y, y[-1])
        ax.step(*ends, where="post", color=color, ls=line, lw=2.8 if own else 1.5, alpha=0.4 if own else 1.0)
        for _, row in crossings[crossings["scenario"] == name].iterrows():
            at = float(row["at"])
            height = float(y[np.searchsorted(x, at, side="right") - 1]) if at >= x[0] else float(y[0])
            size, inside = (7, "white") if own else (4.5, color)
            ax.plot(at, height, marker="D", ms=size, mfc=inside, mec=color, mew=0.9, ls="", zorder=4 if own else 5)
            ax.hlines(height, float(row["at_low"]), float(row["at_high"]), color=color, lw=3, alpha=0.35)
    ax.set_xlim(left, right)
    label_costs(ax)
