"""The calibration's figure: do predicted times hold on points that no fit has seen, and what bounds a prefill and a step here?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from flopstat.costs import DTYPE_BITS, Flops, kv_bytes_per_token, weight_bytes
from flopstat.devices import mixed_devices
from flopstat.models import ModelCard
from flopstat.style import canvas, colors_of, finish, head, markers_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FILLS: dict[str, Any] = {"prefill": "full", "decode": "none"}
FILL_WORDS = {"prefill": "prefill (filled)", "decode": "decode (open)"}


def points(arm: str, card: ModelCard, measured: Mapping[str, Any]) -> pd.DataFrame:
    """One row per timed point of an arm: measured and predicted seconds, FLOP, bytes, and the rates that follow.

    FLOP are the cost model's. Bytes are those of the weights as they are held, once per prefill or step, and of keys and values, once per
    row and attended token, written in a prefill and read in a step.

    # ASSUME activations and logits stay in caches, and weights do not; a small model's do, so it can lie above the roofline
    """
    held = DTYPE_BITS[measured["identity"]["compute_dtype"]]
    weights = weight_bytes(card, held if measured["emulated"] else measured["bits_effective"])
    table = pd.DataFrame(measured["held_out"], columns=["phase", "batch", "context", "measured", "predicted"])
    b, c = table["batch"].to_numpy(float), table["context"].to_numpy(float)
    flops = Flops.of(card)
    table["flops"] = b * np.where(table["phase"] == "prefill", flops.prefill(c), flops.step(c))
    table["bytes"] = weights + b * c * kv_bytes_per_token(card, held)
    table["flops_per_byte"] = table["flops"] / table["bytes"]
    table["flops_per_s"] = table["flops"] / table["measured"]
    device = measured["device"]
    rates = {"peak_flops": device["peak_flops"], "bandwidth": device["bandwidth"], "fingerprint": device["fingerprint"]}
    rates["compute_dtype"] = measured["identity"]["compute_dtype"]
    return table.assign(**rates).assign(arm=arm, model=card.name)


def plot_calibration(data: pd.DataFrame, title: str, paths: list[Path]) -> None:
    """Left: measured against predicted seconds of points left out, all arms. Right: the roofline, measured rates under measured limits.

    Parameters
    ----------
    data : table
        The `points` of all arms, one below the other.
    """
    colors, markers = colors_of(data["model"]), markers_of(data["model"])
    with canvas(1, 2, (7.6, 3.8)) as (fig, axes):
        _draw_predictions(axes[0, 0], data, colors)
        _draw_roofline(axes[0, 1], data, colors)
        head(fig, title)
        handles = [Line2D([], [], color=color, marker=markers[model], ls="", ms=5, label=model) for model, color in colors.items()]
        looks: dict[str, Any] = {"color": "0.35", "marker": "o", "ls": "", "ms": 4}
        handles += [Line2D([], [], fillstyle=fill, label=FILL_WORDS[phase], **looks) for phase, fill in FILLS.items()]
        note = mixed_devices(data)
        if note:
            fig.text(0.99, 0.985, note, ha="right", va="top", fontsize=7, color="firebrick")
        finish(fig, handles, [], paths)


def _scatter(ax: Axes, data: pd.DataFrame, x: str, y: str, colors: dict[str, Any]) -> None:
    markers = markers_of(colors)
    key: Any
    for key, some in data.groupby(["model", "phase"], sort=False):
        model, phase = key
        look: dict[str, Any] = {"marker": markers[model], "fillstyle": FILLS[str(phase)], "color": colors[model], "alpha": 0.7}
        ax.plot(some[x], some[y], ms=3.5, mew=0.8, ls="", **look)
    ax.set_xscale("log")
    ax.set_yscale("log")


def _draw_predictions(ax: Axes, data: pd.DataFrame, colors: dict[str, Any]) -> None:
    milli = data.assign(measured=1e3 * data["measured"], predicted=1e3 * data["predicted"])
    both = milli[["measured", "predicted"]]
    ends = np.array([both.min().min() / 1.3, both.max().max() * 1.3])
    ax.fill_between(ends, ends * 0.9, ends * 1.1, color="0.5", alpha=0.2, lw=0)
    ax.plot(ends, ends, color="black", lw=0.8)
    _scatter(ax, milli, "measured", "predicted", colors)
    errors = (milli["predicted"] / milli["measured"] - 1).abs()
    lines = [f"median error {errors.median():.1%} of {len(errors)} points"]
    lines += [f"  {phase} {errors[milli['phase'] == phase].median():.1%}" for phase in FILLS]
    ax.text(0.04, 0.96, "\n".join(lines), transform=ax.transAxes, va="top", fontsize=8)
    ax.set(xlim=ends, ylim=ends, xlabel="measured, ms per prefill or step", ylabel="predicted without the point, ms")
    ax.set_title("(a) times of points left out (grey: ±10%)")
    span = ends[1] / ends[0]
    subs = (1.0, 2.0, 5.0) if span < 1e2 else (1.0, 3.0) if span < 1e3 else (1.0,)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(subs=subs))
        axis.set_major_formatter(FuncFormatter(lambda ms, _: f"{ms:,g}"))
        axis.set_minor_formatter(NullFormatter())


def _draw_roofline(ax: Axes, data: pd.DataFrame, colors: dict[str, Any]) -> None:
    _scatter(ax, data, "flops_per_byte", "flops_per_s", colors)
    x = np.geomspace(data["flops_per_byte"].min() / 2, data["flops_per_byte"].max() * 2, 200)
    for _, device in data.drop_duplicates("fingerprint").iterrows():
        ax.plot(x, np.minimum(x * device["bandwidth"], device["peak_flops"]), color="black", lw=1.2)
        turn = device["peak_flops"] / device["bandwidth"]
        ax.plot([turn, turn], [ax.get_ylim()[0], device["peak_flops"]], color="black", lw=0.7, ls=":")
    first = data.iloc[0]
    peak, bandwidth = first["peak_flops"], first["bandwidth"]
    turn = peak / bandwidth
    low = min(data["flops_per_s"].min() / 2, data["peak_flops"].min() / 4)
    high = data[["flops_per_s", "peak_flops"]].max().max() * 2.2
    ax.text(x[-1], peak * 1.12, f"matrix product {peak / 1e9:,.3g} GFLOP/s", ha="right", va="bottom", fontsize=8)
    beside = x[0] < turn < x[-1] / 8  # room for the words right of the turn; else they stand at the right end, below the peak
    words = f"{turn:.2g} FLOP/byte:\ncopy {bandwidth / 1e9:,.3g} GB/s"
    ax.text(turn * 1.1 if beside else x[-1], low * 1.2, words, ha="left" if beside else "right", va="bottom", fontsize=8)
    ax.set(xlim=(x[0], x[-1]), ylim=(low, high))
    ax.set(xlabel="FLOP per byte of weights, keys and values", ylabel="FLOP/s reached")
    above = int((data["flops_per_s"] > data["peak_flops"]).sum())
    dtypes = ", ".join(dict.fromkeys(data["compute_dtype"]))
    note = f"\n{above} of {len(data)} points above the peak of a {dtypes} product" if above else ""
    ax.set_title("(b) roofline of this device" + note, fontsize=8 if above else None)
