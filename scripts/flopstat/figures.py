"""The figure of accuracy against a cost. As every figure's, its function returns the table it was drawn from."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from flopstat.costs import COST_NAMES, MEASURED_COSTS, headline_cost
from flopstat.errors import InputError
from flopstat.style import canvas, colors_of, finish, head, label_costs, looks_of, models_of, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SERIES = {
    "single": ("single chain, T rising", "o", (0, (1, 1))),
    "majority": ("votes of P at the largest T", "s", "-"),
    "best_of_mean_logprob": ("best of B by log-probability", "^", "--"),
}


def _series(configurations: pd.DataFrame, frontier: pd.DataFrame, references: dict[str, str], cost: str) -> pd.DataFrame:
    """The points of the figure: panel, series and cell, by rising cost within a curve."""
    study = configurations[(configurations["split"] == "study") & configurations[cost].notna()]
    study = study.assign(**{f"cost{end}": study[f"{cost}{end}"] for end in ("", "_low", "_high")})
    top = study["T"] == study["T"].max()
    is_reference = study["precision"] == study["model"].map(references)
    single = study["strategy"] == "single"
    parts = [study[single & is_reference].assign(panel="axes", series="single")]
    for name in ("majority", "best_of_mean_logprob"):
        if (study["strategy"] == name).any():  # else its curve would be one chain alone
            parts.append(study[top & is_reference & ((study["strategy"] == name) | single)].assign(panel="axes", series=name))
    parts.append(study[top & is_reference & (study["strategy"] == "greedy")].assign(panel="axes", series="greedy"))
    parts.append(study[top & ((study["strategy"] == "majority") | single)].assign(panel="precisions", series="majority"))
    edge = frontier[frontier["cost"] == cost].drop(columns="cost").rename(columns={"value": "cost"})
    edge = edge.assign(panel="axes", series="frontier", cost_low=np.nan, cost_high=np.nan)
    wanted = ["panel", "series", "arm", "model", "n_params", "precision", "T", "P", "B", "strategy", "cost", "cost_low", "cost_high"]
    wanted += ["accuracy", "accuracy_low", "accuracy_high"]
    data = pd.concat([p[wanted] for p in parts] + [edge[[*wanted, "band_low", "band_high"]]], ignore_index=True)
    return data.sort_values(["panel", "series", "n_params", "arm", "cost"], kind="stable", ignore_index=True)


def _curve(ax: Axes, points: pd.DataFrame, color: Any, marker: str, line: Any, bars: bool = True, **kwargs: Any) -> None:
    x, y = points["cost"].to_numpy(float), points["accuracy"].to_numpy(float)
    ax.plot(x, y, color=color, marker=marker, ms=4, ls=line, **kwargs)
    if bars:
        low, high = points["accuracy_low"].to_numpy(float), points["accuracy_high"].to_numpy(float)
        ax.vlines(x, low, high, color=color, lw=0.8, alpha=0.45)


def plot_accuracy(
    configurations: pd.DataFrame,
    frontier: pd.DataFrame,
    crossovers: pd.DataFrame,
    references: dict[str, str],
    title: str,
    paths: list[Path],
    cost: str | None = None,
    note: str | None = None,
) -> pd.DataFrame:
    """Accuracy against a cost per problem, study problems.

    Left: the axes T, P and B at each model's reference precision, the Pareto frontier over all cells with its simultaneous band, and the
    cost range in which the larger model's single pass overtakes the best of the smaller. Right: votes at the largest T by precision, left
    out where there are neither.

    Arms of unknown cost are left out.

    Parameters
    ----------
    cost : column of configurations.csv; None: counted FLOPs, or nominal ones where no arm has those, as with imported samples only
    note : what a reader must know of measured costs, such as that they come from several devices; left out where the cost is not measured

    Returns
    -------
    The points drawn, one row each, with `cost` in the column's unit.

    Raises
    ------
    InputError
        If no arm has the cost.
    """
    cost = cost or headline_cost(configurations)
    if cost is not None and configurations[cost].isna().all():
        raise InputError(f"figure: no arm has {cost}; unknown_costs.csv says why")
    if cost is None:
        arms = ", ".join(dict.fromkeys(configurations["arm"]))
        raise InputError(f"figure: no cost is known for {arms}; declare models.N.tokens_per_solution, or import token counts")
    data = _series(configurations, frontier, references, cost)
    colors, precisions = colors_of(models_of(data)), list(dict.fromkeys(configurations["precision"]))
    votes = data[(data["panel"] == "precisions") & ((data["P"] > 1) | (data["precision"] != data["model"].map(references)))]
    # Without votes or a second precision panel (b) would repeat the points of panel (a).
    columns = 1 if votes.empty else 2
    with canvas(1, columns, (7.6, 4.0), sharey=True, sharex=True, width_ratios=(1.25, 1)[:columns]) as (fig, axes):
        left = axes[0, 0]
        left.set_xscale("log")
        _draw_axes(left, data[data["panel"] == "axes"], colors)
        _draw_crossovers(left, crossovers[crossovers["cost"] == cost], colors)
        left.set_ylabel("accuracy (correct / asked)")
        n = int(configurations.loc[configurations["split"] == "study", "n_problems"].iloc[0])
        left.set_title(f"(a) T, P and B at the reference precision, {n:,} problems" if len(votes) else f"{n:,} problems")
        if len(votes):
            _draw_precisions(axes[0, 1], data[data["panel"] == "precisions"], colors, precisions)
            axes[0, 1].set_title("(b) votes at the largest T, by precision")
            axes[0, 1].yaxis.set_tick_params(labelleft=True)
        for ax in axes[0]:
            ax.set_xlabel(COST_NAMES[cost])
            label_costs(ax)
            percent(ax)
        top = float(data[["accuracy_high", "band_high"]].max().max())
        left.set_ylim(*(-0.06, 1.02) if top > 0.4 else (-0.08 * top, 1.3 * top))  # near the floor the upper half would be empty
        head(fig, title)
        notes = [
            "Bars: interval of each point alone, over problems. Grey: frontier over cells of all precisions, band for all costs at once."
        ]
        if note and cost in MEASURED_COSTS:
            notes.append(note)
        finish(fig, _handles(data, colors, precisions if len(votes) else []), notes, paths, columns=4)
    return data


def _handles(data: pd.DataFrame, colors: dict[str, Any], precisions: list[str]) -> list[Line2D]:
    """The legend: models by colour, strategies of panel (a), and precisions of panel (b) if there is one."""
    drawn = set(data.loc[data["panel"] == "axes", "series"])
    names = [Line2D([], [], color=color, lw=3, label=model) for model, color in colors.items()]
    styles = [Line2D([], [], color="0.35", marker=m, ls=s, ms=4, label=label) for name, (label, m, s) in SERIES.items() if name in drawn]
    if data["T"].nunique() == 1:
        styles[0].set_label("single chain")
    if "greedy" in drawn:
        styles.append(Line2D([], [], color="0.35", marker="*", ls="", ms=8, label="greedy, largest T"))
    styles.append(Line2D([], [], color="black", lw=2.2, alpha=0.55, label="Pareto frontier"))
    looks = looks_of(precisions).items()
    return [*names, *styles, *(Line2D([], [], color="0.35", marker=m, ls=s, ms=4, label=f"(b) {p}") for p, (m, s) in looks)]


def _draw_axes(ax: Axes, data: pd.DataFrame, colors: dict[str, Any]) -> None:
    edge = data[data["series"] == "frontier"].sort_values("cost")
    first_cost, last_cost = float(data["cost"].min()), float(data["cost"].max())
    x = edge["cost"].to_numpy(float)
    ax.fill_between(x, edge["band_low"].to_numpy(float), edge["band_high"].to_numpy(float), step="post", color="0.5", alpha=0.18, lw=0)
    ax.step(x, edge["accuracy"].to_numpy(float), where="post", color="black", lw=2.2, alpha=0.55)
    for model, color in colors.items():
        for series, (_, marker, line) in SERIES.items():
            points = data[(data["model"] == model) & (data["series"] == series)]
            _curve(ax, points, color, marker, line)
        greedy = data[(data["model"] == model) & (data["series"] == "greedy")]
        first = data[(data["model"] == model) & (data["series"] == "single")].head(1)
        for x_first, low in first[["cost", "accuracy_low"]].itertuples(index=False):
            plain = {"facecolor": "white", "edgecolor": "none", "alpha": 0.6, "pad": 0.3}
            right = np.log(x_first / first_cost) > 0.7 * np.log(last_cost / first_cost)
            place: dict[str, Any] = {"xytext": (5 if right else -5, -3), "ha": "right" if right else "left"}
            place |= {"textcoords": "offset points", "va": "top", "zorder": 6}
            ax.annotate(model, (x_first, low), fontsize=7, color=color, bbox=plain, **place)
        ax.plot(greedy["cost"], greedy["accuracy"], marker="*", ms=9, ls="", color=color, mec="black", mew=0.5, zorder=5)


def _draw_crossovers(ax: Axes, crossovers: pd.DataFrame, colors: dict[str, Any]) -> None:
    """Shade the cost range in which each model's single pass overtakes the next smaller one, and mark where it is ahead for sure."""
    rows = crossovers[(crossovers["kind"] == "single") & crossovers["at_high"].notna()]
    neighbours = set(itertools.pairwise(colors))  # models by size
    rows = rows[[pair in neighbours for pair in rows[["small", "large"]].itertuples(index=False, name=None)]]
    left, right = ax.get_xlim()
    for number, (_, row) in enumerate(rows.iterrows()):
        low, high, large = float(row["at_low"]), float(row["at_high"]), str(row["large"])
        color = colors[large]
        ax.axvspan(low, high, color=color, alpha=0.15 if row["status"] == "found" else 0.07, lw=0)
        ax.axvline(high, color=color, lw=0.9, ls=":")
        on_the_right = np.log(high / left) > 0.55 * np.log(right / left)
        ax.annotate(
            f"single pass of {large} ahead \N{RIGHTWARDS ARROW}",
            (high, 0.995 - 0.05 * number),
            xycoords=("data", "axes fraction"),
            xytext=(-3 if on_the_right else 3, 0),
            textcoords="offset points",
            fontsize=6.5,
            color=color,
            ha="right" if on_the_right else "left",
            va="top",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.5},
        )


def _draw_precisions(ax: Axes, data: pd.DataFrame, colors: dict[str, Any], precisions: list[str]) -> None:
    for model, color in colors.items():
        for precision, (marker, line) in looks_of(precisions).items():
            points = data[(data["model"] == model) & (data["precision"] == precision)]
            if not points.empty:
                _curve(ax, points, color, marker, line)
