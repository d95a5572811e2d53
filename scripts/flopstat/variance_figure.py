"""The figure of the variance split: what more problems and what more samples per problem would buy, cell by cell."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from flopstat.style import MARKERS, canvas, colors_of, finish, head, models_of, places_of, say_nothing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Part of the error, its column, words and line.
PARTS = {
    "total": ("se_total", "as measured", "-"),
    "problems": ("se_problems", "from the choice of problems: more samples leave it", (0, (5, 1.5))),
    "sampling": ("se_sampling", "from the finite pool: more samples remove it", (0, (1, 1.2))),
}
MOST_MODELS = 4
KEYS = ["panel", "arm", "model", "n_params", "precision", "T", "P", "n_problems"]


def variance_table(configurations: pd.DataFrame) -> pd.DataFrame:
    """Standard errors of accuracy on the study problems, by what they come from.

    se_total² = se_problems² + se_sampling², in shares. m times the problems divide both by √m; m times the samples divide se_sampling by
    about √m and leave se_problems.

    Parameters
    ----------
    configurations : configurations.csv

    Returns
    -------
    Rows `budgets`, single chains at every T, and `votes`, majorities of P at the largest T, one of P = 1 being a single chain. Cells whose
    error is not split, such as a vote of the whole pool, are left out. small_counts: few are right or wrong, or strata all alike; there the
    error is too small, and the accuracy has Wilson's limits.
    """
    study = configurations[(configurations["split"] == "study") & configurations[["se_sampling", "se_problems"]].notna().all(axis=1)]
    single = study["strategy"] == "single"
    top = study["T"] == study["T"].max()
    parts = [study[single].assign(panel="budgets"), study[top & (single | (study["strategy"] == "majority"))].assign(panel="votes")]
    data = pd.concat(parts, ignore_index=True)
    data["se_total"] = np.hypot(data["se_problems"].astype(float), data["se_sampling"].astype(float))
    data["small_counts"] = data["flags"].fillna("").str.contains("small_counts")
    columns = [*KEYS, "se_problems", "se_sampling", "se_total", "small_counts"]
    return data[columns].sort_values(["panel", "n_params", "arm", "T", "P"], ignore_index=True)


def plot_variance(configurations: pd.DataFrame, references: dict[str, str], title: str, paths: list[Path]) -> pd.DataFrame:
    """Standard error in points and its two parts, a column per model: over T for single chains, over P for votes at the largest T.

    Thick with marks: the reference precision; thin: the model's other precisions. Of more than four models the four largest.

    Returns
    -------
    The points drawn.
    """
    data = variance_table(configurations)
    drawn = models_of(data)[-MOST_MODELS:]
    data = data[data["model"].isin(drawn)].reset_index(drop=True)
    colors = colors_of(PARTS)
    size = (max(2.4 * len(drawn) + 0.6, 4.6), 4.9)
    with canvas(2, max(len(drawn), 1), size, sharey=True) as (fig, axes):
        if not drawn:
            for ax in axes[:, 0]:
                say_nothing(ax, "no error is split: pools of one sample")
        for (row, panel), name in zip(enumerate(("budgets", "votes")), ("T", "P"), strict=True):
            for column, model in enumerate(drawn):
                ax, rows = axes[row, column], data[(data["panel"] == panel) & (data["model"] == model)]
                places = places_of(ax, sorted(data.loc[data["panel"] == panel, name].unique()))
                for precision, part in rows.groupby("precision", sort=False):
                    _draw(ax, part, part[name].map(places).to_numpy(float), colors, precision == references[model])
                ax.set_title(f"{model}, " + ("single chain" if name == "T" else f"votes, T = {int(data['T'].max()):,}"), fontsize=8)
                ax.set_xlabel("T, budget of a chain (tokens)" if name == "T" else "P, streams that vote")
            if drawn:
                axes[row, 0].set_ylabel("standard error of\naccuracy (points)")
        axes[0, 0].set_ylim(bottom=-0.04 * axes[0, 0].get_ylim()[1])
        n = f", {int(data['n_problems'].iloc[0]):,} problems" if drawn else ""
        head(fig, title + n)
        handles = [
            Line2D([], [], color=colors[part], ls=line, marker=MARKERS[i], ms=4, label=words)
            for i, (part, (_, words, line)) in enumerate(PARTS.items())
        ]
        notes = [
            "The squares of the two parts add up to that of the whole. Marks: reference precision; thin: the others. No intervals.",
            "Open marks: few right or wrong answers; the error is too small there, and the accuracy has Wilson's limits instead.",
        ]
        finish(fig, handles, notes, paths, columns=1 if len(drawn) < 3 else 2)
    return data


def _draw(ax: Axes, part: pd.DataFrame, x: Any, colors: dict[Any, Any], is_reference: bool) -> None:
    for i, (name, (column, _, line)) in enumerate(PARTS.items()):
        y, few = 100 * part[column].to_numpy(float), part["small_counts"].to_numpy(bool)
        ax.plot(x, y, color=colors[name], ls=line, lw=1.3 if is_reference else 0.6, alpha=1.0 if is_reference else 0.5)
        if is_reference:
            look: dict[str, Any] = {"marker": MARKERS[i], "ms": 4, "ls": "", "color": colors[name], "zorder": 4}
            ax.plot(x[~few], y[~few], **look)
            ax.plot(x[few], y[few], mfc="white", **look)
