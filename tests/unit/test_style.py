"""The one style: names at the ends of curves stay apart, legends read by rows, and no other module has a style of its own."""

import itertools
import re

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.lines import Line2D

from flopstat import style


def test_names_at_the_ends_of_curves_stay_apart(tmp_path):
    ends = [(1.0, 0.50, "b", "black"), (1.0, 0.501, "c", "black"), (1.0, 0.1, "a", "black")]
    with style.canvas(1, 1, (3, 3)) as (fig, axes):
        ax = axes[0, 0]
        ax.set(xlim=(0, 1), ylim=(0, 1))
        style.finish(fig, [], [], [tmp_path / "a.png"], ends={ax: ends})
        boxes = {t.get_text(): t.get_window_extent() for t in ax.texts}
        middles = sorted((box.y0 + box.y1) / 2 for box in boxes.values())
        assert all(above - below > 7.0 * fig.dpi / 72 for below, above in itertools.pairwise(middles))  # names are 7 points high
        assert boxes["a"].y0 < boxes["b"].y0 < boxes["c"].y0
        point = ax.transData.transform((1.0, 0.1))[1]
        assert boxes["a"].y0 < point < boxes["a"].y1


@pytest.mark.parametrize("n", [3, 5, 7, 8])
def test_a_legend_reads_by_rows(tmp_path, n):
    handles = [Line2D([], [], label=str(i)) for i in range(n)]
    with style.canvas(1, 1, (6, 3)) as (fig, _):
        style.finish(fig, handles, ["note"], [tmp_path / "a.png"], columns=5)
        (legend,) = fig.legends
        at = {t.get_text(): t.get_window_extent() for t in legend.get_texts()}
    order = sorted(at, key=lambda name: (-round(at[name].y0), at[name].x0))
    assert order == [str(i) for i in range(n)]


def test_every_series_can_be_told_without_its_colour():
    names = [f"q{i}" for i in range(8)]
    looks = style.looks_of(names)
    assert len({marker for marker, _ in looks.values()}) == len({str(line) for _, line in looks.values()}) == 8
    assert len(set(style.AXIS_MARKERS.values())) == len(style.AXIS_MARKERS) == len(style.AXIS_COLORS)
    assert list(style.colors_of(["b", "a", "b"])) == ["b", "a"]


def test_doublings_end_at_the_top():
    with style.canvas(1, 1, (3, 3)) as (_, axes):
        style.doublings(axes[0, 0], 32)
        assert axes[0, 0].get_xticks().tolist() == [1, 2, 4, 8, 16, 32]
        style.doublings(axes[0, 0], 20)
        assert axes[0, 0].get_xticks().tolist() == [1, 2, 4, 8, 16]


def test_points_are_written_with_ten_digits(tmp_path):
    style.write_data(pd.DataFrame({"a": [np.pi, np.nan], "b": ["x", "y"]}), tmp_path / "new" / "a.csv")
    assert (tmp_path / "new" / "a.csv").read_bytes() == b"a,b\n3.141592654,x\n,y\n"


def test_style_stands_in_one_module(root):
    """Palettes, hexadecimal colours and parameters of matplotlib are nowhere else."""
    for path in (root / "scripts").rglob("*.py"):
        if path.name != "style.py":
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"color_palette|rcParams|\"#[0-9a-fA-F]{6}\"|\.savefig\(", text), path.name
    assert mpl.rcParams["savefig.dpi"] != style.STYLE["savefig.dpi"]  # nothing is set for good


def test_notes_are_broken_where_the_figure_is_too_narrow(tmp_path):
    with style.canvas(1, 1, (3, 3)) as (fig, _):
        style.finish(fig, [], ["a note that goes on and on " * 6, "another"], [tmp_path / "a.png"])
        notes = fig.texts[0]
        assert notes.get_text().splitlines()[-1] == "another"
        assert notes.get_window_extent().x1 <= 3 * style.STYLE["savefig.dpi"]  # laid out last when it was saved
