"""The figure of chain lengths: what a larger budget T buys a single chain, and what becomes of the chains at each T."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from flopstat.style import BLUE, ORANGE, canvas, colors_of, finish, head, looks_of, models_of, percent, places_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# State, its colour and hatch: from dark and plain to light, so that the order can be told in grey.
STATES: dict[str, tuple[str, Any, str]] = {
    "right": ("answered, right", BLUE, ""),
    "wrong": ("answered, wrong", ORANGE, "///"),
    "no_answer": ("ended without an answer", "0.6", "..."),
    "truncated": ("truncated at T", "0.92", ""),
    "failed": ("failed", "black", ""),
}
MOST_MODELS = 4
COLUMNS = ["arm", "model", "n_params", "precision", "T", "n_problems", "n_asked", "accuracy", "accuracy_low", "accuracy_high"]


def length_table(configurations: pd.DataFrame) -> pd.DataFrame:
    """Single chains of study problems at every T: accuracy with its interval, and the share of all chains in each state.

    right + wrong + no_answer + truncated + failed = 1; right is the accuracy, correct over asked.

    Parameters
    ----------
    configurations : configurations.csv

    Returns
    -------
    One row per arm and T, arms in the order of the table.
    """
    rows = configurations[(configurations["split"] == "study") & (configurations["strategy"] == "single")]
    asked = rows["n_asked"].to_numpy(float)
    out = rows[COLUMNS].reset_index(drop=True)
    out["right"] = rows["accuracy"].to_numpy(float)
    out["wrong"] = np.clip(rows["n_answered"].to_numpy(float) / asked - out["right"], 0, None)  # a rounding error can lie below 0
    for state in ("no_answer", "truncated", "failed"):
        out[state] = rows[f"n_{state}"].to_numpy(float) / asked
    rank = {arm: i for i, arm in enumerate(dict.fromkeys(out["arm"]))}
    return out.assign(rank=out["arm"].map(rank)).sort_values(["rank", "T"], kind="stable", ignore_index=True).drop(columns="rank")


def plot_lengths(
    configurations: pd.DataFrame, references: dict[str, str], confidence: float, title: str, paths: list[Path]
) -> pd.DataFrame:
    """Top: accuracy of a single chain at each T, every arm, a column per model. Below: chains of the reference precision by state.

    Of more than four models the four largest are drawn, and the title says so.

    Parameters
    ----------
    references : mapping of model to its reference precision

    Returns
    -------
    The points of all arms, drawn or not.
    """
    data = length_table(configurations)
    models = models_of(data)
    drawn = models[-MOST_MODELS:]
    budgets = sorted(data["T"].unique())
    colors, looks = colors_of(data["precision"]), looks_of(data["precision"])
    size = (max(2.4 * len(drawn) + 0.6, 4.6), 4.9)
    with canvas(2, len(drawn), size, sharex=True, sharey="row", height_ratios=(1.25, 1)) as (fig, axes):
        for column, model in enumerate(drawn):
            upper, lower = axes[:, column]
            places = places_of(lower, budgets)
            own = data[data["model"] == model]
            for precision, part in own.groupby("precision", sort=False):
                _draw_curve(upper, part, places, colors[precision], looks[precision])
            _draw_states(lower, own[own["precision"] == references[model]], places)
            upper.set_title(model)
            lower.set_title(f"chains at {references[model]}", fontsize=8)
            lower.set_xlabel("T, budget of a chain (tokens)")
            lower.set_ylim(0, 1)
            lower.grid(False)
        for ax, words in zip(axes[:, 0], ("accuracy of a single chain\n(correct / asked)", "share of chains"), strict=True):
            percent(ax)
            ax.set_ylabel(words)
        axes[0, 0].set_ylim(bottom=0)
        fig.align_ylabels()
        n = int(data["n_problems"].iloc[0])
        head(fig, f"{title}, {n:,} problems" + (f", {len(drawn)} of {len(models)} models" if len(drawn) < len(models) else ""))
        notes = [f"Bars: {confidence:.0%} over problems, each T alone. Shares below are of all sampled chains, without an interval."]
        reference = data[data["model"].isin(drawn) & (data["precision"] == data["model"].map(references))]
        finish(fig, _handles(reference, colors, looks), notes, paths)
    return data


def _draw_curve(ax: Axes, part: pd.DataFrame, places: dict[int, int], color: Any, look: tuple[str, Any]) -> None:
    x = part["T"].map(places).to_numpy(float)
    ax.plot(x, part["accuracy"], color=color, marker=look[0], ls=look[1], ms=4)
    ax.vlines(x, part["accuracy_low"], part["accuracy_high"], color=color, lw=1.0, alpha=0.6)


def _draw_states(ax: Axes, part: pd.DataFrame, places: dict[int, int]) -> None:
    """Stacked bars that reach 1."""
    x, bottom = part["T"].map(places).to_numpy(float), np.zeros(len(part))
    for state, (_, color, hatch) in STATES.items():
        share = part[state].to_numpy(float)
        if share.any():
            ax.bar(x, share, 0.75, bottom=bottom, color=color, hatch=hatch, edgecolor="white", lw=0.4)
        bottom = bottom + share


def _handles(reference: pd.DataFrame, colors: dict[Any, Any], looks: dict[Any, tuple[str, Any]]) -> list[Any]:
    curves = [Line2D([], [], color=colors[p], marker=m, ls=s, ms=4, label=p) for p, (m, s) in looks.items()]
    bars = [
        Patch(facecolor=c, hatch=h, edgecolor="white", label=words) for state, (words, c, h) in STATES.items() if reference[state].any()
    ]
    return [*curves, *bars]
