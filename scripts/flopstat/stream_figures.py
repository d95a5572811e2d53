"""Figures over the number of parallel streams P: FLOP per right answer, waiting time and throughput."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.transforms import offset_copy

from flopstat.streams import THROUGHPUT
from flopstat.study_pools import REFERENCES
from flopstat.style import canvas, colors_of, doublings, finish, head, looks_of, markers_of, models_of, say_nothing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = {
    "latency_p50_s": ("time to the vote, median", ""),
    "latency_p90_s": ("time to the vote, 90th percentile", ""),
    THROUGHPUT: ("throughput of a full batch", "problems per second"),
}
SCALED = ["value", "low", "high", "fitted", "slope", "slope_low", "slope_high"]


def plot_cost(
    curve: pd.DataFrame, minima: pd.DataFrame, references: dict[str, str], confidence: float, title: str, paths: list[Path]
) -> pd.DataFrame:
    """FLOP per right answer against P, votes at the largest T. Left: first precisions with limits; right: every arm.

    Rings mark each curve's minimum, bars below the interval of its P. Arms that are never right have no such cost and are named below.

    Parameters
    ----------
    curve : rows of `streams_of(...).curve` of all arms
    minima : cost_per_correct.csv

    Returns
    -------
    The points drawn.
    """
    colors, looks = colors_of(models_of(curve)), looks_of(curve["precision"])
    reference = curve["precision"] == curve["model"].map(references)
    several = not reference.all()
    most, n, t = int(curve["P"].max()), int(curve["n_problems"].iloc[0]), int(curve["T"].iloc[0])
    with canvas(1, 1 + several, (7.6 if several else 4.4, 3.8), sharey=True, sharex=True) as (fig, axes):
        for ax, own in zip(axes[0], (curve[reference], curve), strict=False):
            for arm, points in own.groupby("arm", sort=False):
                points = points[np.isfinite(points["value"])]
                if points.empty:
                    continue
                color, line = colors[str(points["model"].iloc[0])], looks[str(points["precision"].iloc[0])][1]
                ax.plot(points["P"], points["value"], color=color, ls=line if own is curve else "-")
                if own is not curve:
                    top = np.where(np.isfinite(points["high"]), points["high"], points["value"].max() * 1e3)
                    ax.fill_between(points["P"], points["low"], top, color=color, alpha=0.18, lw=0)
                    first = points.iloc[0]
                    words = {"xytext": (2, 12), "textcoords": "offset points", "fontsize": 7, "color": color}
                    name = first["model"] if first["precision"] in REFERENCES else arm
                    ax.annotate(str(name), (first["P"], first["value"]), **words)
                for _, row in minima[minima["arm"] == arm].iterrows():
                    ax.plot(row["P"], row["value"], marker="o", ms=6, mfc="white", mec=color, mew=1.4, ls="", zorder=5)
                    if own is not curve:
                        ax.hlines(row["value"], row["P_low"], row["P_high"], color=color, lw=3, alpha=0.5)
            doublings(ax, most)
            ax.set_xlabel("parallel streams P")
            ax.set_yscale("log")
        finite = curve.loc[np.isfinite(curve["value"]), "value"]
        if finite.size:
            axes[0, 0].set_ylim(finite.min() / 1.5, finite.max() * 1.7)
        else:
            for ax in axes[0]:
                say_nothing(ax, "no arm has a right answer")
        axes[0, 0].set_ylabel("FLOP per right answer")
        lone = _without_reference(curve[reference])
        kind = "first" if lone else "reference"
        axes[0, 0].set_title(f"(a) {kind} precision, {n:,} problems, T = {t:,}" if several else f"{n:,} problems, T = {t:,}")
        if several:
            axes[0, 1].set_title("(b) every arm, without bands")
        handles = [Line2D([], [], color=color, lw=3, label=model) for model, color in colors.items()]
        handles.append(Line2D([], [], marker="o", ms=6, mfc="white", mec="0.35", mew=1.4, ls="", label="P of least FLOP"))
        if several:
            handles += [Line2D([], [], color="0.35", ls=line, label=precision) for precision, (_, line) in looks.items()]
        head(fig, title)
        meaning = f"Majority votes. Bands: {confidence:.0%} over problems. Bar through a ring: interval of its P; none where that is one P."
        notes = [meaning, *lone]
        right = set(curve.loc[np.isfinite(curve["value"]), "arm"])
        if never := [str(arm) for arm in dict.fromkeys(curve["arm"]) if arm not in right]:
            notes.append(f"Never right, so without a cost per right answer: {', '.join(never)}.")
        finish(fig, handles, notes, paths)
    return curve


def _without_reference(first: pd.DataFrame) -> list[str]:
    """A line that names models whose first precision is quantised, none if there are none; `first` are rows of first precisions."""
    arms = list(dict.fromkeys(first.loc[~first["precision"].isin(REFERENCES), "arm"].astype(str)))
    return [f"The first precision is quantised, and so no reference: {', '.join(arms)}."] if arms else []


def plot_latency(
    speed: pd.DataFrame, references: dict[str, str], confidence: float, title: str, note: str | None, paths: list[Path]
) -> pd.DataFrame:
    """Waiting time and throughput against P at the first precision of each model, each with its log fit.

    Times are drawn in milliseconds where none is longer than a second, otherwise in seconds.

    Parameters
    ----------
    speed : latency_by_streams.csv
    note : printed below, such as that times of different devices are mixed

    Returns
    -------
    The points drawn, with the fitted value beside each.
    """
    data = speed[speed["precision"] == speed["model"].map(references)]
    data = data.assign(fitted=data["intercept"] + data["slope"] * np.log(data["P"])).reset_index(drop=True)
    colors, markers = colors_of(models_of(data)), markers_of(models_of(data))
    n, t, most = int(data["n_problems"].iloc[0]), int(data["T"].iloc[0]), int(data["P"].max())
    with canvas(1, len(PANELS), (8.4, 4.0)) as (fig, axes):
        for i, (metric, (label, unit)) in enumerate(PANELS.items()):
            ax, own = axes[0, i], data[data["metric"] == metric].copy()
            short, factor = ("/s", 1.0) if unit else ("ms", 1e3) if own["value"].max() < 1 else ("s", 1.0)
            own[SCALED] *= factor
            for model, color in colors.items():
                points = own[own["model"] == model]
                ax.plot(points["P"], points["value"], color=color, marker=markers[model], ms=4, ls="")
                ax.vlines(points["P"], points["low"], points["high"], color=color, lw=1, alpha=0.6)
                ax.plot(points["P"], points["fitted"], color=color, ls="--", lw=1.1)
            doublings(ax, most)
            ax.set_xlabel("parallel streams P")
            ax.set_ylim(bottom=0)
            ax.set_title(f"({chr(ord('a') + i)}) {label}", fontsize=8)
            ax.set_ylabel(unit or {"ms": "milliseconds", "s": "seconds"}[short])
            _write_fits(ax, own, short, colors, markers)
        handles = [Line2D([], [], color=color, marker=markers[model], ms=4, ls="", label=model) for model, color in colors.items()]
        handles.append(Line2D([], [], color="0.35", ls="--", lw=1.1, label="fit a + b ln P"))
        lone = _without_reference(data)
        which = "First" if lone else "Reference"
        notes = [
            f"{which} precision, {n:,} problems, T = {t:,}. Bars: {confidence:.0%} over problems, without the latency model's own error.",
            "Below each panel: b ln 2, the change per doubling of P, with its limits, and whether lack of fit rejects a + b ln P.",
            *lone,
        ]
        head(fig, title)
        finish(fig, handles, notes if note is None else [*notes, note], paths)
    return data


def _plain(value: float, sign: str = "") -> str:
    """Three significant digits without an exponent: 1,410, 0.0123."""
    return format(float(f"{value:.3g}"), f"{sign},g")


def _write_fits(ax: Axes, own: pd.DataFrame, unit: str, colors: dict[str, Any], markers: dict[str, str]) -> None:
    """The slope per doubling with its interval, and whether the form is rejected, below a panel, one line and marker per model."""
    for i, (model, color) in enumerate(colors.items()):
        row = own[own["model"] == model].iloc[0]
        if np.isnan(row["slope"]):
            text = str(row["verdict"])
        else:
            slope, low, high = (float(row[key]) * np.log(2) for key in ("slope", "slope_low", "slope_high"))
            limits = "" if np.isnan(low) else f" [{_plain(low)}, {_plain(high)}]"
            text = f"{_plain(slope, '+')}{limits} {unit}: {row['verdict']}"
        below = (8, -34 - 10 * i)  # points, under the axis label
        beside = offset_copy(ax.transAxes, ax.get_figure(root=True), x=3, y=below[1] - 3, units="points")
        ax.plot(0, 0, marker=markers[model], ms=3.5, ls="", color=color, transform=beside, clip_on=False)
        ax.annotate(text, (0, 0), xycoords="axes fraction", xytext=below, textcoords="offset points", fontsize=7, color=color, va="top")
