"""The one style of all figures: sizes, colours, marks, ticks, labels, and how a figure is saved."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator, PercentFormatter

from flopstat import stored

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

End = tuple[float, float, str, Any]  # x and y in data units, name, colour
STYLE: dict[Any, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "font.size": 8.5,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "pdf.fonttype": 42,
    "savefig.dpi": 200,
    "svg.hashsalt": "flopstat",
}
PALETTE = "colorblind"
TITLE_SIZE = 10
NOTE_SIZE = 6.5
NOTE_WIDTH = 20  # characters of a note per inch, at least
# Every series has a marker or a line of its own as well as a colour: prints in grey stay readable.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
LINES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (9, 2)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (5, 5)))
BLUE, ORANGE, GREEN, RED, PINK = sns.color_palette(PALETTE)[:5]
AXIS_COLORS: dict[str, Any] = {"N": BLUE, "T": ORANGE, "P": GREEN, "B": PINK, "q": RED, "none": "0.7"}
AXIS_MARKERS = {"N": "o", "T": "s", "P": "^", "B": "v", "q": "D", "none": "X"}


def colors_of(names: Iterable[Any]) -> dict[Any, Any]:
    """A colour for each name, in their order."""
    unique = list(dict.fromkeys(names))
    return dict(zip(unique, sns.color_palette(PALETTE, max(len(unique), 1)), strict=False))


def markers_of(names: Iterable[Any]) -> dict[Any, str]:
    """A marker for each name, in their order."""
    return {name: MARKERS[i % len(MARKERS)] for i, name in enumerate(dict.fromkeys(names))}


def looks_of(names: Iterable[Any]) -> dict[Any, tuple[str, Any]]:
    """Marker and line of each name, such as a precision, in their order."""
    return {name: (MARKERS[i % len(MARKERS)], LINES[i % len(LINES)]) for i, name in enumerate(dict.fromkeys(names))}


def models_of(table: pd.DataFrame) -> list[str]:
    """Models of a table by size; columns model and n_params."""
    return table[["model", "n_params"]].drop_duplicates().sort_values("n_params", kind="stable")["model"].tolist()


@contextmanager
def canvas(rows: int, columns: int, size: tuple[float, float], **kwargs: Any) -> Iterator[tuple[Figure, Any]]:
    """Figure and axes (rows, columns) in the project's style; size in inches; closed at the end."""
    mpl.use("agg")
    import matplotlib.pyplot as plt

    with mpl.rc_context(STYLE):
        fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, **kwargs)
        try:
            yield fig, axes
        finally:
            plt.close(fig)


def save(fig: Figure, paths: list[Path], tight: bool = False) -> None:
    """Write a figure without dates and names of programs, so that the same data gives the same bytes, and close it.

    tight crops or extends it to what is drawn, such as a legend below the panels.
    """
    import matplotlib.pyplot as plt

    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"CreationDate": None} if path.suffix == ".pdf" else {"Software": None}
        fig.savefig(path, metadata=metadata, bbox_inches="tight" if tight else None)
        stored.seal(path)
    plt.close(fig)


def write_data(data: pd.DataFrame, path: Path) -> None:
    """Write the points of a figure beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data.to_csv(path, index=False, float_format="%.10g", lineterminator="\n")
    stored.seal(path)


def head(fig: Figure, title: str) -> None:
    """The study's title above all panels, a dollar sign shown as one."""
    fig.suptitle(title.replace("$", r"\$"), x=0.01, ha="left", fontsize=TITLE_SIZE)


def finish(
    fig: Figure,
    handles: Sequence[Any],
    notes: Sequence[str],
    paths: list[Path],
    columns: int = 5,
    ends: Mapping[Axes, Sequence[End]] | None = None,
) -> None:
    """Legend and notes below the panels, room for both whatever the figure's height, names at the ends of curves, and save.

    Parameters
    ----------
    notes : small print, such as what bars and bands are; each begins a line, and is broken where the figure is too narrow
    columns : of the legend, fewer where they do not fit
    ends : last points of the curves to name, by panel
    """
    width, height = (float(side) for side in fig.get_size_inches())
    lines = [line for note in notes for line in textwrap.wrap(note, int(NOTE_WIDTH * width))]
    below = 0.04 + 0.13 * len(lines)  # inches
    rows = _legend(fig, handles, below / height, columns) if handles else 0
    if lines:
        fig.text(0.01, 0.04 / height, "\n".join(lines).replace("$", r"\$"), fontsize=NOTE_SIZE, color="0.3")
    fig.tight_layout(rect=(0, (below + 0.08 + 0.19 * rows) / height, 1, 1))
    for ax, points in (ends or {}).items():
        _label_ends(ax, points)
    save(fig, paths)


def _legend(fig: Figure, handles: Sequence[Any], bottom: float, columns: int) -> int:
    """A legend that reads by rows, in as many columns as fit into the figure; returns its rows."""
    ncols = min(len(handles), columns)
    while True:
        by_rows = [handle for column in range(ncols) for handle in handles[column::ncols]]  # a legend fills its columns first
        legend = fig.legend(handles=by_rows, loc="lower center", bbox_to_anchor=(0.5, bottom), ncols=ncols, columnspacing=1.4)
        if ncols == 1 or legend.get_window_extent().width <= fig.bbox.width:
            return -(-len(handles) // ncols)
        legend.remove()
        ncols -= 1


def say_nothing(ax: Axes, words: str) -> None:
    """An empty panel that says why."""
    ax.text(0.5, 0.5, words, ha="center", va="center", transform=ax.transAxes, color="0.4")
    ax.set_axis_off()


def percent(ax: Axes) -> None:
    """Ticks of shares as percent."""
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def doublings(ax: Axes, top: int) -> None:
    """A logarithmic axis of streams or samples with a tick at every doubling."""
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator([2**i for i in range(int(top).bit_length())]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlim(0.9, top * 1.1)


def places_of(ax: Axes, budgets: Sequence[int]) -> dict[int, int]:
    """An axis of budgets T or streams P with equal steps; the place of each."""
    wide = sum(len(f"{value:,}") for value in budgets) > 20  # they would touch in a third of the page's width
    ax.set_xticks(range(len(budgets)), [f"{value:,}" for value in budgets], rotation=35 if wide else 0)
    ax.set_xlim(-0.6, len(budgets) - 0.4)
    return {value: i for i, value in enumerate(budgets)}


def label_costs(ax: Axes) -> None:
    """Tick labels of a logarithmic cost axis that stay apart: decades; 1 and 3 of each, or 1, 2 and 5, where it spans few."""
    low, high = ax.get_xlim()
    decades = np.log10(high / low)
    subs = (1.0,) if decades > 2.2 else (1.0, 3.0) if decades > 1.5 else (1.0, 2.0, 5.0)
    ax.xaxis.set_major_locator(LogLocator(subs=subs))
    ax.xaxis.set_major_formatter(FuncFormatter(_power))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _power(value: float, _position: int | None = None) -> str:
    """A tick's label: 0.02, 500, 10⁶, 2 × 10⁶."""
    if 1e-3 < value < 1e4:
        return f"{value:g}"
    exponent = int(np.floor(np.log10(value) + 1e-9))
    digit = round(value / 10.0**exponent)
    times = "" if digit == 1 else f"{digit}" + r" \times "
    return f"${times}10^{{{exponent}}}$"


def _label_ends(ax: Axes, ends: Sequence[End], size: float = 7.0) -> None:
    """Write each curve's name to the right of its last point, names at least a line apart; distances are those of the final layout."""
    scale = ax.figure.dpi / 72
    heights = [float(ax.transData.transform((x, y))[1]) / scale for x, y, _, _ in ends]  # points
    shown = -np.inf
    for i in np.argsort(heights, kind="stable"):
        x, y, name, color = ends[i]
        place = max(heights[i], shown + 1.3 * size)
        shown = place
        ax.annotate(
            name,
            (x, y),
            xytext=(5, place - heights[i]),
            textcoords="offset points",
            fontsize=size,
            color=color,
            va="center",
            annotation_clip=False,
        )
