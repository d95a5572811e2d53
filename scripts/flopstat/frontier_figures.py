"""Figures of the frontier: where the larger model's single pass overtakes, and which axis pays most."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullLocator

from flopstat.costs import COST_NAMES, headline_cost
from flopstat.errors import InputError
from flopstat.frontier import Judged, contests
from flopstat.style import AXIS_COLORS, AXIS_MARKERS, STYLE, canvas, colors_of, finish, head, label_costs, models_of, save, say_nothing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AXIS_NAMES = {"N": "N: larger model", "T": "T: longer chains", "P": "P: more votes", "B": "B: best of more", "q": "q: more bits"}
SURE = 0.95
MAX_PANELS = 3
BEST_LINE = (0, (4, 1.5))
_STATUS = {
    "at_entry": "ahead as soon as it is affordable",
    "none_in_range": "behind in all of this range",
    "not_separable": "not separable with these problems",
}


def crossover_curves(judged: Judged, crossovers: pd.DataFrame, cost: str) -> pd.DataFrame:
    """What the crossover of single passes stands on: both staircases, their bands, and the difference with its simultaneous limits."""
    rows = crossovers[(crossovers["cost"] == cost) & (crossovers["kind"] == "single")]
    pairs = [tuple(pair) for pair in rows[["small", "large"]].itertuples(index=False)]
    parts = []
    for contest in contests(judged, cost):
        if contest.kind == "single" and (contest.small, contest.large) in pairs:
            parts.append(contest.table(judged.confidence).assign(small=contest.small, large=contest.large))
    if not parts:
        return pd.DataFrame(columns=["small", "large", "cost"])
    return pd.concat(parts, ignore_index=True)


def plot_crossovers(judged: Judged, crossovers: pd.DataFrame, title: str, paths: list[Path], cost: str | None = None) -> pd.DataFrame:
    """Where the larger model's single pass overtakes the best votes and Best-of-N of the smaller, as an interval.

    A column per pair of models, neighbours in size first. Top: best accuracy at a cost or less, with simultaneous bands. Bottom: their
    difference with the simultaneous limits that decide; shaded the interval of the crossover.

    Returns
    -------
    The points drawn.
    """
    cost = cost or headline_cost(judged.cells)
    if cost is None:
        raise InputError("figure: no arm has a cost")
    data = crossover_curves(judged, crossovers, cost)
    pairs = list(dict.fromkeys(data[["small", "large"]].itertuples(index=False, name=None)))[:MAX_PANELS]
    data = data[[pair in pairs for pair in data[["small", "large"]].itertuples(index=False, name=None)]]
    sizes = models_of(judged.cells)
    colors = colors_of(sizes)
    width = max(len(pairs), 1)
    with canvas(2, width, (max(2.9 * width, 5.6), 4.6), sharex="col", sharey="row", height_ratios=(1.5, 1)) as (fig, axes):
        for column, (small, large) in enumerate(pairs):
            axes[0, column].margins(x=0.02)
            part = data[(data["small"] == small) & (data["large"] == large)].sort_values("cost")
            row = crossovers[(crossovers["cost"] == cost) & (crossovers["kind"] == "single")]
            row = row[(row["small"] == small) & (row["large"] == large)].iloc[0]
            _draw_contest(axes[0, column], axes[1, column], part, row, colors[small], colors[large])
            axes[1, column].set_xlabel(COST_NAMES[cost])
            _label_range(axes[1, column])
        if not pairs:
            say_nothing(axes[0, 0], "one model, or no common cost: no crossover")
        axes[0, 0].set_ylabel("best accuracy (%)")
        axes[1, 0].set_ylabel("larger − smaller\n(points)")
        fig.align_ylabels()
        drawn = [model for model in sizes if any(model in pair for pair in pairs)]
        styles = [
            Line2D([], [], color="0.3", ls="-", label="single pass of the larger"),
            Line2D([], [], color="0.3", ls=BEST_LINE, label="best of the smaller, votes and best of B included"),
            Line2D([], [], color="0.3", lw=1, ls="--", label="crossover (vertical)"),
            Patch(color="0.3", alpha=0.3, lw=0, label="its interval"),
        ]
        handles = [Line2D([], [], color=colors[m], lw=3, label=m) for m in drawn] + styles
        words = f"{len(judged.values):,} problems. Bands: {judged.confidence:.0%} limits that hold at all costs at once"
        words += "; the interval of a crossover is where they hold 0."
        head(fig, title)
        finish(fig, handles, [words], paths, columns=2 if width < 3 else 3)
    return data.reset_index(drop=True)


def _draw_contest(top: Axes, bottom: Axes, part: pd.DataFrame, row: pd.Series, color_small: Any, color_large: Any) -> None:
    x = part["cost"].to_numpy(float)
    lone: dict[str, Any] = {"marker": "o" if len(x) == 1 else "", "ms": 4}  # a step of one cost has no length
    for side, color, line in (("small", color_small, BEST_LINE), ("large", color_large, "-")):
        y, low, high = (100 * part[f"f_{side}{end}"].to_numpy(float) for end in ("", "_low", "_high"))
        top.fill_between(x, low, high, step="post", color=color, alpha=0.18, lw=0)
        top.step(x, y, where="post", color=color, ls=line, **lone)
        if len(x) == 1:
            top.vlines(x, low, high, color=color, lw=0.8, alpha=0.6)
    gap, low, high = (100 * part[f"difference{end}"].to_numpy(float) for end in ("", "_low", "_high"))
    bottom.fill_between(x, low, high, step="post", color="0.5", alpha=0.25, lw=0)
    bottom.step(x, gap, where="post", color="0.2", **lone)
    if len(x) == 1:
        bottom.vlines(x, low, high, color="0.2", lw=0.8, alpha=0.6)
    bottom.axhline(0, color="black", lw=0.7)
    title = _STATUS.get(str(row["status"]), "")
    if row["status"] == "found":
        for ax in (top, bottom):
            ax.axvspan(row["at_low"], max(row["at_high"], row["at_low"] * 1.002), color=color_large, alpha=0.3, lw=0)
            ax.axvline(row["at"], color=color_large, lw=1, ls="--")
        title = f"overtakes at {_short(row['at'])} [{_short(row['at_low'])}, {_short(row['at_high'])}]"
    top.set_title(f"{row['large']} against {row['small']}\n{title}", fontsize=7.5)
    top.set_xscale("log")
    room = top.get_ylim()
    top.set_ylim(min(room[0], 0), max(room[1], 100))


def _label_range(ax: Axes, most: int = 4) -> None:
    """Tick labels that stay apart also where the axis spans less than a decade, some `most` of them there."""
    low, high = ax.get_xlim()
    ax.tick_params(axis="x", labelsize=7)
    if high / low > 5:
        label_costs(ax)
        return
    exponent = int(np.floor(np.log10(high)))
    ticks = [t for t in MaxNLocator(most).tick_values(low, high) if low <= t <= high]
    ax.set_xticks(ticks, [rf"{t / 10.0**exponent:g}$\times10^{{{exponent}}}$" for t in ticks], fontsize=7)
    ax.xaxis.set_minor_locator(NullLocator())


def _short(value: float) -> str:
    mantissa, exponent = f"{value:.2e}".split("e")
    return rf"{mantissa}$\times 10^{{{int(exponent)}}}$"


def plot_dominance(dominance: pd.DataFrame, title: str, paths: list[Path], cost: str | None = None) -> pd.DataFrame:
    """Which axis gains most accuracy per doubling of cost, from where one stands.

    Top: at each frontier cell the gain of the axis that gains most, with its limits; small dots are the other axes. Bottom: the map, a
    panel per model with T over cost (which rises with P); a marker has the colour of the axis that gains most, is filled where it gains
    for sure and most in at least 95% of the replicates, and is grey where no axis gains. Only steps that were measured; arms of the first
    precision of each model.

    Returns
    -------
    The rows drawn.
    """
    mpl.use("agg")
    import matplotlib.pyplot as plt

    cells = dominance[dominance["source"] == "cells"]
    cost = cost or ("flops" if (cells["cost"] == "flops").any() else None if cells.empty else str(cells["cost"].iloc[0]))
    data = cells[cells["cost"] == cost]
    if data.empty:
        with mpl.rc_context(STYLE):
            fig, ax = plt.subplots(figsize=(4.4, 2.0))
            say_nothing(ax, "no cell has a next one on any axis")
            head(fig, title)
            save(fig, paths)
        return data.reset_index(drop=True)
    spots = _mapped(data)
    panels = spots[["N", "arm"]].drop_duplicates().sort_values("N")["arm"].tolist()[:4]
    width = max(len(panels), 1)
    with mpl.rc_context(STYLE):
        fig = plt.figure(figsize=(7.2, 4.9))
        grid = fig.add_gridspec(2, width, height_ratios=(1.15, 1), hspace=0.5, wspace=0.12)
        top = fig.add_subplot(grid[0, :])
        drawn = _draw_along(top, data[data["place"] == "frontier"])
        top.set_title("(a) from each cell of the frontier: the axis that gains most (small: the others)", fontsize=8.5)
        top.set_xlabel(f"{COST_NAMES[cost]}, where the step starts" if cost else "")
        first: Axes | None = None
        for column, arm in enumerate(panels):
            ax = fig.add_subplot(grid[1, column], sharey=first)
            first = first or ax
            _draw_map(ax, spots[spots["arm"] == arm], 4 if width < 3 else 2)
            ax.set_title(("(b) " if not column else "") + arm, fontsize=8)
            ax.set_xlabel(COST_NAMES[cost].replace(" per problem", "") + "\nfrom left to right: P = 1, 2, ..." if cost else "")
            if column:
                ax.tick_params(labelleft=False)
            else:
                ax.set_ylabel("T (tokens)")
        drawn |= set(spots["axis"])
        names = [a for a in AXIS_NAMES if a in drawn]
        look: dict[str, Any] = {"ls": "", "ms": 6}
        handles = [Line2D([], [], color=AXIS_COLORS[a], marker=AXIS_MARKERS[a], label=AXIS_NAMES[a], **look) for a in names]
        handles += [Line2D([], [], marker="o", color="0.3", label="filled: gains most, surely", **look)]
        handles += [Line2D([], [], marker="o", mfc="none", mec="0.3", label="open: gains most, unsure", **look)]
        if "none" in drawn:
            handles.append(Line2D([], [], marker=AXIS_MARKERS["none"], mfc="none", mec=AXIS_COLORS["none"], label="no axis gains", **look))
        fig.legend(handles=handles, loc="lower center", ncols=4, fontsize=7, bbox_to_anchor=(0.5, -0.09))
        head(fig, title)
        save(fig, paths, tight=True)
    return data.reset_index(drop=True)


def _mapped(data: pd.DataFrame) -> pd.DataFrame:
    """The best axis of every place on the map, for the first arm of each size; axis none where nothing gains."""
    spots = data[data["place"] == "map"]
    first = spots.drop_duplicates("N")["arm"].tolist()
    spots = spots[spots["arm"].isin(first)]
    if spots.empty:
        return spots
    best = spots.loc[spots.groupby(["arm", "at", "T", "P"], sort=False)["gain_per_doubling"].idxmax()]
    return best.assign(axis=best["axis"].where(best["gain_per_doubling"] > 0, "none"))


def _draw_along(ax: Axes, data: pd.DataFrame) -> set[str]:
    """At each frontier cell the axis that gains most, with its limits; the others as small dots. Returns the axes drawn."""
    keys = ["at", "arm", "T", "P", "B", "strategy"]
    best = data.loc[data.groupby(keys, sort=False)["gain_per_doubling"].idxmax()]
    others = data.drop(index=best.index)
    for axis, own in others.groupby("axis"):
        look = {"marker": AXIS_MARKERS[str(axis)], "color": AXIS_COLORS[str(axis)]}
        ax.plot(own["at"], 100 * own["gain_per_doubling"], ls="", ms=2.5, mew=0, alpha=0.5, **look)
    for _, row in best.iterrows():
        gain, low, high = (100 * float(row[c]) for c in ("gain_per_doubling", "low", "high"))
        name = str(row["axis"]) if gain > 0 else "none"
        color = AXIS_COLORS[name]
        sure = row["p_best"] >= SURE and low > 0
        ax.vlines(row["at"], low, high, color=color, lw=1.1, alpha=0.7)
        ax.plot(row["at"], gain, marker=AXIS_MARKERS[name], ms=5.5, color=color, mfc=color if sure else "white", mew=1.3)
    ax.axhline(0, color="black", lw=0.7)
    ax.set_xscale("log")
    ax.set_yscale("symlog", linthresh=10, linscale=1.2)
    ax.set_yticks([-100, -10, -5, 0, 5, 10, 100], ["−100", "−10", "−5", "0", "5", "10", "100"])
    ax.set_ylabel("points per doubling of cost\n(linear to ±10, then log)")
    label_costs(ax)
    return {str(a) for a in data["axis"].unique()} | ({"none"} if (best["gain_per_doubling"] <= 0).any() else set())


def _draw_map(ax: Axes, spots: pd.DataFrame, ticks: int) -> None:
    budgets = sorted(spots["T"].unique())
    for _, spot in spots.iterrows():
        axis, sure = str(spot["axis"]), spot["p_best"] >= SURE and spot["low"] > 0
        look = {"marker": AXIS_MARKERS[axis], "color": AXIS_COLORS[axis], "mfc": AXIS_COLORS[axis] if sure else "white"}
        ax.plot(spot["at"], budgets.index(spot["T"]), ms=6, mew=1.4, ls="", **look)
    ax.set_yticks(range(len(budgets)), [str(t) for t in budgets])
    ax.set_ylim(-0.6, len(budgets) - 0.4)
    ax.set_xscale("log")
    _label_range(ax, ticks)
