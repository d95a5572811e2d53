"""The figure of plan against reality."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from flopstat.reality import COMPARED, MEASURED, TOTAL
from flopstat.style import canvas, colors_of, finish, head

TITLES = {"tokens": "tokens generated", "seconds": "time of the sampling jobs", "memory_bytes": "peak memory"}
TARGETS = {"tokens": 0.1, "seconds": 0.2}  # relative, that a plan is meant to keep on the ladder


def plot_plan(actual: pd.DataFrame, title: str, paths: list[Path]) -> pd.DataFrame:
    """Actual over planned of tokens, time and memory, a row per arm and one for the study, with the plan's interval around 1.

    Parameters
    ----------
    actual : table
        plan_actual.csv.

    Returns
    -------
    The points drawn: arm, quantity, ratio, and the plan's limits over its value.
    """
    data = actual.assign(low=actual["low"] / actual["planned"], high=actual["high"] / actual["planned"])
    data = data[["arm", "quantity", "ratio", "low", "high", "status"]]
    arms = list(dict.fromkeys(data["arm"]))
    places = {arm: len(arms) - 1 - i - 0.4 * (arm == TOTAL) for i, arm in enumerate(arms)}
    color = colors_of(["plan"])["plan"]
    with canvas(1, len(COMPARED), (7.6, 1.8 + 0.26 * len(arms)), sharey=True) as (fig, axes):
        for ax, quantity in zip(axes[0], COMPARED, strict=True):
            rows = data[data["quantity"] == quantity]
            y = rows["arm"].map(places).to_numpy(float)
            ratio, low, high = (rows[c].to_numpy(float) for c in ("ratio", "low", "high"))
            if quantity in TARGETS:
                ax.axvspan(1 - TARGETS[quantity], 1 + TARGETS[quantity], color="0.5", alpha=0.12, lw=0)
            ax.axvline(1, color="0.3", lw=0.8)
            ax.hlines(y, low, high, color=color, lw=4, alpha=0.3)
            ax.plot(ratio, y, "o", ms=4.5, color=color)
            spread = np.concatenate([ratio, low, high, [0.88, 1.12]])
            left, right = float(np.nanmin(spread)), float(np.nanmax(spread))
            ax.set_xlim(max(0.0, left - 0.1 * (right - left)), right + 0.1 * (right - left))
            for place, found in zip(y, rows["status"], strict=True):
                if found != MEASURED:
                    beside = ax.get_yaxis_transform()  # the status of an arm stands at the panel's right end, wherever 1 is
                    ax.text(0.99, place + 0.22, found, transform=beside, fontsize=6, color="0.35", ha="right", va="center")
            ax.set_title(TITLES[quantity])
            ax.set_xlabel("actual / planned")
        axes[0, 0].set_yticks(list(places.values()), list(places))
        axes[0, 0].set_ylim(min(places.values()) - 0.6, max(places.values()) + 0.6)
        head(fig, title)
        handles = [
            Line2D([], [], color=color, marker="o", ms=4.5, ls="", label="what the jobs took"),
            Patch(color=color, alpha=0.3, lw=0, label="the plan's own limits"),
            Line2D([], [], color="0.3", lw=0.8, label="as planned"),
            Patch(color="0.5", alpha=0.12, lw=0, label="target"),
        ]
        finish(fig, handles, [], paths)
    return data
