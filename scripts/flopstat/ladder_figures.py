"""Figures of the ladder itself: the laws of its training, and how good its models are on fresh problems."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from flopstat.errors import InputError
from flopstat.lawbook.result import Fit
from flopstat.style import AXIS_COLORS, AXIS_MARKERS, canvas, colors_of, finish, head, looks_of, markers_of, models_of, percent, say_nothing
from flopstat.training_laws import BY_MODEL, BY_TOKENS, EXPONENTS, LAWS, branches

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TRAINING = (*LAWS, BY_MODEL, BY_TOKENS)
GRID = 60  # points of a fitted curve
LAW_NAMES = {"hoffmann": r"$E + A/N^\alpha + B/D^\beta$ (hoffmann)", "kaplan-nd": "kaplan-nd"}
STRATEGIES = ("single", "greedy", "vote of 16")
QUALITY = ["model", "n_params", "precision", "T", "strategy", "steps", "n_problems", "accuracy", "low", "high"]


def joint_fits(details: Path) -> dict[str, Fit]:
    """The joint training laws of a study, from laws/<law>.json; a law that the data do not identify is left out."""
    out = {}
    for law in LAWS:
        path = details / f"{law}.json"
        if path.is_file() and (stored := json.loads(path.read_text(encoding="utf-8")).get("fit")):
            out[law] = Fit.from_json(json.dumps(stored))
    return out


def training_table(points: pd.DataFrame, fits: dict[str, Fit], exponents: pd.DataFrame) -> pd.DataFrame:
    """Everything that the figure of training laws draws.

    - series `branch`: held-out loss (nat/token) at the end of a decay branch, over all tokens seen.
    - series of a law's id: its loss at the size of each model over the tokens seen, with the limits of its refits over branches.
    - series `exponent`: exponents with limits, those of a line through a few sizes without.

    Parameters
    ----------
    points : `training_laws.branches`
    fits : `joint_fits`
    exponents : exponents.csv
    """
    parts = [points.assign(panel="loss", series="branch", value=points["loss"])]
    for model in models_of(points):
        own = points[points["model"] == model]
        tokens = np.geomspace(own["tokens"].min(), own["tokens"].max(), GRID)
        size = int(own["n_params"].iloc[0])
        for law, fit in fits.items():
            value, low, high = fit.predict({"N": np.full(GRID, float(size)), "D": tokens})
            curve = {"model": model, "n_params": size, "tokens": tokens, "value": value, "low": low, "high": high}
            parts.append(pd.DataFrame(curve).assign(panel="loss", series=law))
    rows = exponents[exponents["law"].isin(TRAINING)].rename(columns={"estimate": "value"})
    parts.append(rows.assign(panel="exponents", series="exponent"))
    wanted = ["panel", "series", "model", "n_params", "tokens", "law", "exponent", "source", "certified", "value", "low", "high"]
    table = pd.concat([part.astype(object) for part in parts], ignore_index=True).reindex(columns=wanted)
    return table.astype({"n_params": "Int64"} | dict.fromkeys(("tokens", "value", "low", "high"), float))


def plot_training_laws(
    logs: Iterable[Path], details: Path, exponents: pd.DataFrame, confidence: float, title: str, paths: list[Path]
) -> pd.DataFrame:
    """Left: held-out loss of every decay branch over tokens, with the joint laws at each size. Right: exponents with limits.

    Returns
    -------
    The points drawn.
    """
    data = training_table(branches(logs), joint_fits(details), exponents)
    loss, rows = data[data["panel"] == "loss"], data[data["panel"] == "exponents"]
    n = int((loss["series"] == "branch").sum())
    with canvas(1, 2, (8.4, 4.2), width_ratios=(1.15, 1)) as (fig, axes):
        ends = _draw_losses(axes[0, 0], loss)
        _draw_exponents(axes[0, 1], rows, ["ladder", *models_of(loss)])
        runs = loss["model"].nunique()
        axes[0, 0].set_title(f"(a) {n} decay branches of {runs} training runs")
        axes[0, 1].set_title("(b) exponents")
        head(fig, title)
        handles = [Line2D([], [], color="0.35", marker="o", ms=4, ls="", label="measured, one branch")]
        looks = looks_of(LAWS)
        handles += [Line2D([], [], color="0.35", ls=looks[law][1], label=LAW_NAMES[law]) for law in LAWS if law in set(loss["series"])]
        for axis, words in (("N", "over parameters N"), ("D", "over tokens D")):
            handles.append(Line2D([], [], color=_color(axis), marker=_marker(axis), ms=5, lw=1.4, label=words))
        notes = [
            f"Band of hoffmann's law and bars: {confidence:.0%} over resampled branches; those of a run share a trunk, so too narrow.",
            "Losses of single branches have no interval: one run per size. Open: a fit that is not certified; no bar: no interval.",
        ]
        finish(fig, handles, notes, paths, ends={axes[0, 0]: ends})
    return data


def _color(axis: str) -> Any:
    return AXIS_COLORS["N" if axis == "N" else "T"]


def _marker(axis: str) -> str:
    return AXIS_MARKERS["N" if axis == "N" else "T"]


def _draw_losses(ax: Axes, loss: pd.DataFrame) -> list[tuple[float, float, str, Any]]:
    """Points and curves; returns where each model's name belongs."""
    points = loss[loss["series"] == "branch"]
    models = models_of(points)
    colors, markers, looks = colors_of(models), markers_of(models), looks_of(LAWS)
    ends = []
    for model in models:
        for law in LAWS:
            curve = loss[(loss["series"] == law) & (loss["model"] == model)]
            x, y, low, high = (curve[c].to_numpy(float) for c in ("tokens", "value", "low", "high"))
            ax.plot(x, y, color=colors[model], ls=looks[law][1], lw=1.2)
            if law == LAWS[0]:
                ax.fill_between(x, low, high, color=colors[model], alpha=0.18, lw=0)
        own = points[points["model"] == model].sort_values("tokens")
        x, y = own["tokens"].to_numpy(float), own["value"].to_numpy(float)
        ax.plot(x, y, ls="", marker=markers[model], ms=4.5, color=colors[model])
        ends.append((x[-1], y[-1], model, colors[model]))
    ax.set(xscale="log", yscale="log", xlabel="training tokens seen, decay included", ylabel="held-out loss (nat per token)")
    ax.set_xlim(right=3.4 * float(points["tokens"].max()))  # room for the names
    for axis, divide, unit in ((ax.xaxis, 1e6, "M"), (ax.yaxis, 1.0, "")):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _, divide=divide, unit=unit: f"{value / divide:g}{unit}"))
        axis.set_minor_formatter(NullFormatter())
    return ends


def _draw_exponents(ax: Axes, rows: pd.DataFrame, sources: list[str]) -> None:
    """A row per exponent: over parameters first, then over tokens; joint laws first, then models by size."""
    if rows.empty:
        say_nothing(ax, "no exponent is identified")
        return
    axis = np.where(rows["source"].str.contains("loss over N"), "N", "D")
    rows = rows.assign(axis=axis, rank=rows["source"].str.partition(":")[0].map(sources.index))
    rows = rows.sort_values(["axis", "rank"], ascending=[False, True], kind="stable")
    names = []
    for place, (_, row) in enumerate(rows.iterrows()):
        color, marker = _color(row["axis"]), _marker(row["axis"])
        ax.hlines(-place, float(row["low"]), float(row["high"]), color=color, lw=1.4)
        ax.plot(float(row["value"]), -place, marker=marker, ms=5, color=color, mfc=color if row["certified"] else "white", ls="")
        fitted_to = str(row["source"]).partition(":")[0]
        several = len(EXPONENTS[str(row["law"])]) > 1
        names.append(f"{row['law']}" + (f", {row['exponent']}" if several else "") + ("" if fitted_to == "ladder" else f", {fitted_to}"))
    ax.set_yticks([-i for i in range(len(names))], names, fontsize=7.5)
    ax.set_ylim(-len(names) + 0.4, 0.6)
    ax.set_xlim(left=0)
    ax.set_xlabel("exponent (no unit)")


def read_quality(path: Path) -> pd.DataFrame:
    """The ladder's accuracy.csv, as `flopstat card` writes it.

    Raises
    ------
    InputError
        If a column is missing.
    """
    table = pd.read_csv(path)
    if lost := sorted(set(QUALITY) - set(table.columns)):
        raise InputError(f"{path}: no column {', '.join(lost)}; write it with `flopstat card`")
    return table[QUALITY]


def plot_ladder(quality: pd.DataFrame, title: str, paths: list[Path]) -> pd.DataFrame:
    """Accuracy on fresh problems by number of steps, a panel per model: one sample, greedy and a vote of 16, fp32, largest T.

    Parameters
    ----------
    quality : `read_quality`; steps 0 are all problems

    Returns
    -------
    The points drawn.
    """
    top = quality["T"] == quality["T"].max()
    data = quality[top & (quality["precision"] == "fp32") & quality["strategy"].isin(STRATEGIES)]
    data = data.sort_values(["n_params", "strategy", "steps"], kind="stable", ignore_index=True)
    models, most = models_of(data), int(data["steps"].max())
    colors, looks = colors_of(STRATEGIES), looks_of(STRATEGIES)
    with canvas(1, max(len(models), 1), (2.5 * max(len(models), 1) + 0.6, 3.5), sharey=True) as (fig, axes):
        for ax, model in zip(axes[0], models, strict=True):
            for i, strategy in enumerate(STRATEGIES):
                own = data[(data["model"] == model) & (data["strategy"] == strategy)]
                x = own["steps"].where(own["steps"] > 0, most + 1.5).to_numpy(float) + 0.14 * (i - 1)  # side by side
                by_steps, (marker, line) = (own["steps"] > 0).to_numpy(), looks[strategy]
                ax.vlines(x, own["low"], own["high"], color=colors[strategy], lw=1.1, alpha=0.7)
                ax.plot(x[by_steps], own["accuracy"][by_steps], color=colors[strategy], marker=marker, ls=line, ms=4)
                ax.plot(x[~by_steps], own["accuracy"][~by_steps], color=colors[strategy], marker=marker, ls="", ms=4)
            ax.set_xticks([*range(1, most + 1), most + 1.5], [*map(str, range(1, most + 1)), "all"])
            ax.set_xlabel("steps of the problem")
            ax.set_title(f"{model} (N = {int(data.loc[data['model'] == model, 'n_params'].iloc[0]):,})")
        axes[0, 0].set_ylabel("accuracy (correct / asked)")
        axes[0, 0].set_ylim(-0.02, 1.02)
        percent(axes[0, 0])
        each, whole = (data.loc[data["steps"] == step, "n_problems"] for step in (1, 0))
        head(fig, f"{title}, {int(whole.iloc[0]):,} fresh problems")
        handles = [Line2D([], [], color=colors[s], marker=m, ls=line, ms=4, label=s) for s, (m, line) in looks.items()]
        words = f"{int(each.iloc[0]):,} problems per number of steps, fp32, T = {int(data['T'].max()):,}. Bars: 95% over problems."
        finish(fig, handles, [words], paths)
    return data
