"""The figure of grader disagreement: how far the grader alone moves an arm's accuracy, and which chains it judges differently."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from flopstat.style import canvas, colors_of, finish, head, markers_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DIRECTIONS = {"only_grader": ("right by this grader only", "0.25", ""), "only_reference": ("right by the reference only", "0.75", "///")}
KEPT = ["arm", "T", "grader", "reference", "foreign", "n_problems", "n_asked", "n_differ", "accuracy", "accuracy_low", "accuracy_high"]


def grader_table(shift: pd.DataFrame, disagreements: pd.DataFrame, study_problems: Iterable[str]) -> pd.DataFrame:
    """Every grader but the reference, per arm at its largest T: shift in accuracy with limits, and verdicts that differ by direction.

    only_grader + only_reference = n_differ, sampled chains of study problems; greedy chains are left out.

    Parameters
    ----------
    shift, disagreements : grader_shift.csv, grader_disagreements.csv
    study_problems : ids of the problems that judge
    """
    rows = shift[(shift["grader"] != shift["reference"]) & (shift["T"] == shift.groupby("arm")["T"].transform("max"))]
    rows = rows[[*KEPT, "difference", "difference_low", "difference_high"]].reset_index(drop=True)
    chains = disagreements[disagreements["problem_id"].isin(set(study_problems)) & (disagreements["sample"] >= 0)]
    counts: dict[str, list[int]] = {name: [] for name in DIRECTIONS}
    for row in rows.itertuples():
        # The reference is the config's first grader, so it is always the first one of a pair.
        where = (chains["arm"] == row.arm) & (chains["T"] == row.T)
        mine = chains[where & (chains["grader_a"] == row.reference) & (chains["grader_b"] == row.grader)]
        counts["only_grader"].append(int(mine["correct_b"].sum()))
        counts["only_reference"].append(int(mine["correct_a"].sum()))
    return rows.assign(**counts)


def plot_graders(
    shift: pd.DataFrame, disagreements: pd.DataFrame, study_problems: Iterable[str], confidence: float, title: str, paths: list[Path]
) -> pd.DataFrame:
    """Left: accuracy under each grader minus that under the reference, in points. Right: share of chains that the two judge differently.

    Single samples at each arm's largest T, study problems; a row per arm, graders below each other.

    Returns
    -------
    The points drawn.
    """
    data = grader_table(shift, disagreements, study_problems)
    arms, graders = list(dict.fromkeys(data["arm"])), list(dict.fromkeys(data["grader"]))
    colors, markers = colors_of(graders), markers_of(graders)
    step, middle_one = 0.8 / max(len(graders), 1), (len(graders) - 1) / 2
    y = -data["arm"].map(arms.index).to_numpy(float) - step * (data["grader"].map(graders.index).to_numpy(float) - middle_one)
    with canvas(1, 2, (7.6, 1.7 + max(0.19 * len(data), 0.34 * len(arms))), sharey=True) as (fig, axes):
        left, right = axes[0]
        left.axvline(0, color="0.3", lw=0.8)
        for grader in graders:
            mine = (data["grader"] == grader).to_numpy()
            low, middle, high = (100 * data[f"difference{end}"].to_numpy(float)[mine] for end in ("_low", "", "_high"))
            left.hlines(y[mine], low, high, color=colors[grader], lw=1.4)
            left.plot(middle, y[mine], ls="", marker=markers[grader], ms=5, color=colors[grader])
        _draw_counts(right, data, y, step)
        left.set_yticks([-i for i in range(len(arms))], arms)
        left.set_ylim(-len(arms) + 0.4, 0.6)
        left.set_xlabel("shift of accuracy (points)")
        right.set_xlabel("% of the chains asked")
        reference, n = str(data["reference"].iloc[0]), int(data["n_problems"].iloc[0])
        left.set_title(f"(a) shift against {reference}, {n:,} problems")
        right.set_title("(b) chains judged differently")
        head(fig, title)
        names = [Line2D([], [], color=colors[g], marker=markers[g], ms=5, lw=1.4, label=g) for g in graders]
        bars = [Patch(facecolor=c, hatch=h, edgecolor="white", label=words) for words, c, h in DIRECTIONS.values()]
        notes = [
            "Single samples at each arm's largest T. Shift: accuracy under the grader less that under the reference, on the same chains.",
            f"Bars in (a): {confidence:.0%}, paired over problems. (b) counts chains, without an interval.",
        ]
        finish(fig, [*names, *bars], notes, paths, columns=4)
    return data


def _draw_counts(ax: Axes, data: pd.DataFrame, y: Any, step: float) -> None:
    """Stacked bars of both directions, with the counts in words."""
    asked, start = data["n_asked"].to_numpy(float), np.zeros(len(data))
    for name, (_, color, hatch) in DIRECTIONS.items():
        share = 100 * data[name].to_numpy(float) / asked
        ax.barh(y, share, 0.8 * step, left=start, color=color, hatch=hatch, edgecolor="white", lw=0.4)
        start = start + share
    for place, end, differ, whole in zip(y, start, data["n_differ"], data["n_asked"], strict=True):
        ax.annotate(f"{differ:,} of {whole:,}", (end, place), xytext=(3, 0), textcoords="offset points", fontsize=6.5, va="center")
    ax.set_xlim(0, max(1.45 * float(start.max(initial=0.0)), 1.0))
    ax.grid(axis="y", visible=False)
