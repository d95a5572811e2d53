"""Figures of the laws: votes with residuals, coverage with the k not seen, α over bits, and the surface predicted against measured."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from flopstat.alpha_law import FULL_BITS, alpha_curve
from flopstat.bootstrap import ROUNDING
from flopstat.style import AXIS_COLORS, AXIS_MARKERS, canvas, colors_of, doublings, finish, head, looks_of, markers_of, say_nothing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LAW_NAMES = {"coverage": r"$\exp(a k^b)$", "coverage-beta": "beta-binomial", "ttspm": r"$F_{\max}(1-(1-p)^k)$"}
LAW_LINES = {law: line for law, (_, line) in looks_of(LAW_NAMES).items()}
TYPE_NAMES = {"logs": "additive in logs", "latent": "latent Beta", "bnsl": "broken power laws", "nearest": "nearest measured cell"}
LEAST_TOP = 1.0  # percent that an axis of coverage shows at least: below that the laws' own floors would be drawn large
LEAST_WIDTH = 4.4  # inches: a study's title has room
LEFT_OUT = {"N": "a size", "T": "the largest T", "P": "the largest P", "q": "a precision"}


def plot_votes(gains: pd.DataFrame, laws: pd.DataFrame, title: str, paths: list[Path]) -> pd.DataFrame:
    """A(P) - A(1) in points against P >= 3 at the largest T, a column per model, with κ ln P; below, what the line leaves.

    Lines of laws that are rejected are dashed.

    Returns
    -------
    The points drawn: rows of vote_gains at the largest T with `residual`.
    """
    top = gains[gains["T"] == gains["T"].max()] if len(gains) else gains
    data = top.assign(
        model=top["arm"].str.split("@").str[0], precision=top["arm"].str.split("@").str[1], residual=top["gain"] - top["fitted"]
    )
    models = list(dict.fromkeys(data["model"]))
    colors, markers = colors_of(data["precision"]), markers_of(data["precision"])
    size = (max(2.5 * len(models) + 0.6, LEAST_WIDTH), 4.4) if models else (LEAST_WIDTH, 2.0)
    without = _without_kappa(laws)
    if not models:
        with canvas(1, 1, size) as (fig, axes):
            reasons = list(without) or ["no pool of four samples or more of calibration problems"]
            say_nothing(axes[0, 0], "no law of votes is fitted:\n" + "\n".join(reasons))
            head(fig, title)
            finish(fig, [], [], paths)
        return data
    with canvas(2, len(models), size, sharex=True, sharey="row", height_ratios=(2, 1)) as (fig, axes):
        for column, model in enumerate(models):
            upper, lower = axes[:, column]
            for arm, part in data[data["model"] == model].groupby("arm", sort=False):
                color, marker = (looks[str(arm).partition("@")[2]] for looks in (colors, markers))
                x = part["P"].to_numpy(float)
                low, high = (100 * part[end].to_numpy(float) for end in ("low", "high"))
                upper.fill_between(x, low, high, color=color, alpha=0.13, lw=0)
                fitted = x > 2  # a vote of 2 equals one of 1 and takes no part in the fit
                upper.plot(x[fitted], 100 * part["gain"][fitted], ls="", marker=marker, ms=2.8, mew=0, color=color)
                kept = laws[(laws["parameter"] == "kappa") & (laws["arm"] == arm) & (laws["T"] == part["T"].iloc[0])]["verdict"]
                line = "--" if kept.str.contains("log law rejected").any() else "-"
                upper.plot(x, 100 * part["fitted"], color=color, lw=1.0, ls=line)
                lower.plot(x[fitted], 100 * part["residual"][fitted], color=color, marker=marker, ms=2.6, mew=0, lw=0.7)
            lower.axhline(0, color="0.3", lw=0.8)
            doublings(lower, int(data["P"].max()))
            upper.set_title(model)
            lower.set_xlabel("P, streams that vote")
        axes[0, 0].set_ylabel("gain over one\nstream (points)")
        axes[1, 0].set_ylabel("residual\n(points)")
        fig.align_ylabels()
        handles = [Line2D([], [], color=c, marker=markers[p], ms=4, ls="", label=p) for p, c in colors.items()]
        for line, word in (("-", r"$\kappa$ ln P"), ("--", r"$\kappa$ ln P, rejected")):
            handles.append(Line2D([], [], color="0.35", lw=1.0, ls=line, label=word))
        notes = ["Bands: intervals over problems, each P alone. A vote of 2 equals one stream and takes no part in the fit."]
        notes += [f"Not drawn, as {reason}: {', '.join(arms)}." for reason, arms in without.items()]
        head(fig, title)
        finish(fig, handles, notes, paths, columns=7)
    return data


def _without_kappa(laws: pd.DataFrame) -> dict[str, list[str]]:
    """Why arms have no κ at the largest T, and which these are."""
    rows = laws[laws["parameter"] == "kappa"]
    rows = rows[(rows["T"] == rows["T"].max()) & rows["estimate"].isna()]
    reasons = rows["verdict"].astype(str).str.removeprefix("not identified: ")
    return {str(reason): own["arm"].tolist() for reason, own in rows.groupby(reasons, sort=False)}


def plot_coverage(curves: pd.DataFrame, laws: pd.DataFrame, title: str, paths: list[Path]) -> pd.DataFrame:
    """pass@k against k, a panel per arm at its largest T: measured with its band, three laws, and the k that they had not seen shaded.

    Laws that are rejected at the unseen k are drawn pale.
    """
    arms = list(dict.fromkeys(curves["arm"]))
    columns = min(max(len(arms), 1), 5)
    rows = max(-(-len(arms) // columns), 1)
    colors = colors_of(LAW_NAMES)
    errors = laws[laws["parameter"] == "rmse_unseen_k"]
    with canvas(rows, columns, (max(1.75 * columns + 0.5, LEAST_WIDTH), 1.75 * rows + 1.2), sharex=True, sharey=True) as (fig, axes):
        flat = axes.ravel()
        handles: list[Any] = []
        for ax in flat[len(arms) :]:
            ax.set_axis_off()
        if not arms:
            say_nothing(flat[0], "no pool of eight samples or more")
        for ax, arm in zip(flat, arms, strict=False):
            part = curves[curves["arm"] == arm]
            first = part[part["law"] == part["law"].iloc[0]]
            k = first["k"].to_numpy(float)
            half = float(first.loc[first["seen"].astype(bool), "k"].max())
            ax.axvspan(half + 0.5, k[-1] * 1.1, color="0.5", alpha=0.12, lw=0)
            ax.fill_between(k, 100 * first["low"], 100 * first["high"], color="0.3", alpha=0.15, lw=0)
            ax.plot(k, 100 * first["measured"], ls="", marker="o", ms=2.2, color="0.15")
            for law, line in part.groupby("law", sort=False):
                found = errors[(errors["arm"] == arm) & (errors["law"] == law)]
                kept = found["verdict"].str.startswith("holds").any()
                ax.plot(
                    line["k"], 100 * line["fitted"], color=colors[str(law)], ls=LAW_LINES[str(law)], lw=1.4, alpha=1.0 if kept else 0.45
                )
            doublings(ax, int(k[-1]))
            ax.set_title(f"{arm}", fontsize=7.5)
        if arms:
            top = flat[0].get_ylim()[1]
            flat[0].set_ylim(top=max(top, LEAST_TOP), bottom=min(flat[0].get_ylim()[0], -0.05 * LEAST_TOP))
            for ax in axes[:, 0]:
                ax.set_ylabel("pass@k (%)")
            for ax in axes[-1]:
                ax.set_xlabel("k, samples")
            handles = [Line2D([], [], color="0.15", marker="o", ms=3, ls="", label="measured")]
            handles += [Line2D([], [], color=colors[law], ls=LAW_LINES[law], label=name) for law, name in LAW_NAMES.items()]
            handles.append(Patch(color="0.5", alpha=0.15, label="k not seen by the fits"))
        notes = ["Band: interval over problems, each k alone. Pale lines: laws that the unseen k reject."]
        if still := [arm for arm, part in curves.groupby("arm", sort=False) if part["fitted"].isna().all()]:
            notes.append(f"No law is identified, as no resample of the problems differs: {', '.join(map(str, still))}.")
        head(fig, title)
        finish(fig, handles, notes, paths)
    return curves


def plot_alpha(laws: pd.DataFrame, bits: dict[str, float], title: str, paths: list[Path]) -> pd.DataFrame:
    """α of every quantised arm at the largest T against its effective bits, with the curve of γ; one-sided bounds as arrows.

    Parameters
    ----------
    bits : mapping of arm to bits_effective
    """
    mine = laws[(laws["law"] == "alpha-q") & laws["T"].notna()]
    top = mine[mine["T"] == mine["T"].max()] if len(mine) else mine
    data = top[top["parameter"] == "alpha"].assign(bits_effective=lambda d: d["arm"].map(bits).astype(float))
    data = data[data["bits_effective"].notna()]
    curve = top[(top["parameter"] == "gamma") & top["estimate"].notna()]
    colors = colors_of(data["arm"].str.split("@").str[0])
    with canvas(1, 1, (4.8, 3.9)) as (fig, axes):
        ax, handles = axes[0, 0], []
        if data[["estimate", "low", "high"]].isna().all(axis=None):
            say_nothing(ax, "no α is identified or bounded")
        else:
            handles = _draw_alpha(ax, data, curve, colors)
        notes = ["Bars: intervals over problems. Arms of nearly the same bits are drawn side by side."]
        head(fig, title)
        finish(fig, handles, notes, paths, columns=2)
    return pd.concat([data, curve])[["arm", "T", "parameter", "bits_effective", "estimate", "low", "high", "verdict"]]


def _draw_alpha(ax: Axes, data: pd.DataFrame, curve: pd.DataFrame, colors: dict[str, Any]) -> list[Any]:
    """Bars, arrows and the curve; returns the legend's handles."""
    reach = max(FULL_BITS / 1.4, float(data["bits_effective"].max()) * 1.05)
    q = np.linspace(2.0, reach, 200)
    handles = []
    gammas = curve[["estimate", "low", "high"]].to_numpy(np.float64)
    for (gamma, low, high), verdict in zip(gammas, curve["verdict"], strict=True):
        if np.isfinite([low, high]).all():
            ax.fill_between(q, alpha_curve(q, high), alpha_curve(q, low), color="0.4", alpha=0.18, lw=0)
        rejected = "curve is rejected" in str(verdict)
        line = "--" if rejected else "-"
        ax.plot(q, alpha_curve(q, gamma), color="0.3", ls=line)
        words = rf"curve, $\gamma$ = {gamma:.2g} bits" + (" (rejected)" if rejected else "")
        handles.append(Line2D([], [], color="0.3", ls=line, label=words))
    ax.axhline(1, color="0.6", lw=0.8, zorder=0)
    top = 1.25
    limits = data[["bits_effective", "estimate", "low", "high"]].to_numpy(np.float64)
    limits[:, 0] = _apart(limits[:, 0], 0.012 * reach)
    markers = markers_of(colors)
    for i, (name, (x, estimate, low, high)) in enumerate(zip(data["arm"], limits, strict=True)):
        model, _, precision = str(name).partition("@")
        color = colors[model]
        ax.plot([x, x], [np.nan_to_num(low), top if np.isnan(high) else min(high, top)], color=color, lw=1.1)
        if np.isnan(low):
            ax.plot(x, 0.0, marker="v", mfc="white", color=color, ms=5, clip_on=False)
        if np.isnan(high):
            ax.plot(x, top, marker="^", mfc="white", color=color, ms=5, clip_on=False)
        if np.isfinite(estimate):
            ax.plot(x, estimate, marker=markers[model], color=color, ms=5)
        label = estimate if np.isfinite(estimate) else min(high, top) if np.isfinite(high) else 1.02
        ax.annotate(precision, (x, label), xytext=(5, -3 if i % 2 else 4), textcoords="offset points", fontsize=7, color=color)
    ax.set(xlabel="q, effective bits per weight", ylabel=r"$\alpha$, effective parameters over N", ylim=(0, top), xlim=(2.5, reach + 0.6))
    bound = Line2D([], [], color="0.35", marker="v", mfc="white", ms=5, lw=1.1, label="only bounded on this side")
    return [*handles, bound, *(Line2D([], [], color=c, marker=markers[m], ms=5, lw=1.1, label=m) for m, c in colors.items())]


def _apart(x: NDArray[np.float64], least: float) -> NDArray[np.float64]:
    """Places at least `least` apart, near the values given."""
    out = x.copy()
    order = np.argsort(x, kind="stable")
    for before, after in itertools.pairwise(order):
        out[after] = max(x[after], out[before] + least)
    return out


def plot_surface(predictions: pd.DataFrame, laws: pd.DataFrame, title: str, paths: list[Path]) -> pd.DataFrame:
    """Accuracy predicted from calibration problems against accuracy measured on study problems, a panel per type.

    Grey: cells that the fit has seen. Coloured: cells left out with all of their size, budget, streams or precision.
    """
    kinds = [k for k in TYPE_NAMES if k in set(predictions["type"])]
    axis_of = {"N": "N", "T": "T", "P": "P", "precision": "q"}
    data = predictions.assign(axis=predictions["held_out"].str.split("=").str[0].map(axis_of).fillna(""))
    columns = max(len(kinds), 1)
    with canvas(1, columns, (max(2.15 * columns + 0.5, LEAST_WIDTH), 3.3), sharex=True, sharey=True) as (fig, axes):
        if not kinds:
            say_nothing(axes[0, 0], "no surface is fitted")
        for ax, kind in zip(axes[0], kinds, strict=False):
            part = data[data["type"] == kind]
            seen = part[part["axis"] == ""]
            ax.plot([0, 100], [0, 100], color="0.4", lw=0.8, zorder=1)
            ax.plot(100 * seen["measured"], 100 * seen["predicted"], ls="", marker=".", ms=2.5, color="0.65", zorder=2, rasterized=True)
            for axis in LEFT_OUT:
                out = part[part["axis"] == axis]
                ax.plot(
                    100 * out["measured"],
                    100 * out["predicted"],
                    ls="",
                    marker=AXIS_MARKERS[axis],
                    ms=2.6,
                    mew=0,
                    alpha=0.55,
                    color=AXIS_COLORS[axis],
                    zorder=3,
                    rasterized=True,
                )
            error = laws[laws["parameter"] == f"heldout_rmse.{kind}"]
            ax.set_title(TYPE_NAMES[kind] + _told_error(error), fontsize=8)
            ax.set_xlabel("measured (%)")
            ax.set_aspect("equal")
            ax.set(xlim=(-2, 102), ylim=(-2, 102))
        if kinds:
            axes[0, 0].set_ylabel("predicted (%)")
        handles = [Line2D([], [], color="0.65", marker=".", ls="", label="seen by the fit")]
        handles += [
            Line2D([], [], color=AXIS_COLORS[a], marker=AXIS_MARKERS[a], ls="", ms=4, label=f"left out with {name}")
            for a, name in LEFT_OUT.items()
            if a in set(data["axis"])
        ]
        notes = [
            "A point is a cell, without bars. In the titles: root mean square error of the cells left out, with its interval over problems."
        ]
        if laws.loc[laws["parameter"].astype(str).str.startswith("heldout_rmse."), "low"].isna().any():
            notes.append("No limits: no resample of the problems differs (one problem per number of steps, or all alike).")
        for column in ("measured", "predicted"):
            if len(data) and np.ptp(data[column]) <= ROUNDING:
                notes.append(f"All cells are {column} alike: {100 * data[column].iloc[0]:.3g}%.")
        head(fig, title)
        finish(fig, handles, notes, paths)
    return data


def _told_error(error: pd.DataFrame) -> str:
    """The held-out error of a type, a row of laws.csv or none, as a title's second line."""
    if error.empty:
        return ""
    value, low, high = (float(error[c].iloc[0]) for c in ("estimate", "low", "high"))
    return f"\nleft out: {value:.1f}" + (" points, no limits" if np.isnan(low) else f" [{low:.1f}, {high:.1f}] points")
