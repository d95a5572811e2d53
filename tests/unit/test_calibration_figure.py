"""The calibration's figure: the rates it shows are those of the measured points."""

import json

import pandas as pd
import pytest
from matplotlib.figure import Figure

from flopstat import calibration
from flopstat.calibration_figure import plot_calibration, points
from flopstat.costs import Flops, weight_bytes

SETTINGS = {"prompt_tokens": 8, "decode_tokens": 2, "prefill_tokens": [4, 8], "batches": [1, 3], "contexts": [8, 12], "repeats": 5}


@pytest.fixture(scope="module")
def data(shipped, tmp_path_factory):
    card, store = shipped("ladder-30k"), tmp_path_factory.mktemp("calibrations")
    parts = []
    for precision in ("fp32", "rtn3"):
        path = calibration.calibrate(card, precision, "float32", "cpu", SETTINGS, store, "code")
        parts.append(points(f"ladder-30k@{precision}", card, json.loads(path.read_text(encoding="utf-8"))))
    return pd.concat(parts, ignore_index=True)


def test_rates_are_those_of_the_points(data, shipped):
    card = shipped("ladder-30k")
    assert len(data) == 2 * (3 + 4)
    step = data[(data["arm"] == "ladder-30k@fp32") & (data["phase"] == "decode") & (data["batch"] == 3) & (data["context"] == 12)].iloc[0]
    assert step["flops"] == pytest.approx(3 * float(Flops.of(card).step(12)))
    keys_and_values = 2 * card.n_layers * card.n_kv_heads * card.head_dim * 4  # bytes per token in float32
    assert step["bytes"] == pytest.approx(weight_bytes(card, 32) + 3 * 12 * keys_and_values)
    assert step["flops_per_s"] == pytest.approx(step["flops"] / step["measured"])
    prefill = data[(data["phase"] == "prefill") & (data["batch"] == 2) & (data["context"] == 4)].iloc[0]
    assert prefill["flops"] == pytest.approx(2 * float(Flops.of(card).prefill(4)))


def test_weights_that_are_only_rounded_move_as_they_are_held(data):
    by_arm = data.groupby("arm")["bytes"].sum()
    assert by_arm["ladder-30k@rtn3"] == by_arm["ladder-30k@fp32"]


def test_the_figure_is_drawn_and_says_so_where_devices_are_mixed(data, tmp_path, monkeypatch):
    notes = []
    text = Figure.text
    monkeypatch.setattr(Figure, "text", lambda self, x, y, s, **kwargs: notes.append(s) or text(self, x, y, s, **kwargs))
    paths = [tmp_path / "c.pdf", tmp_path / "c.png"]
    plot_calibration(data, "100% of $5 & more_", paths)
    assert all(p.stat().st_size > 5000 for p in paths)
    assert not [n for n in notes if "devices" in n]
    mixed = data.assign(fingerprint=data["fingerprint"].where(data["arm"] == "ladder-30k@fp32", "another"))
    plot_calibration(mixed, "", paths)
    assert [n for n in notes if "2 devices" in n and "another" in n]


def test_a_peak_below_the_points_is_spelled_out_inside_the_axes(data, tmp_path, monkeypatch):
    """float16 on a CPU without it: the matrix product of the compute dtype is slower than the points."""
    panels = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda fig, *a, **k: (panels.append(_texts(fig.axes[1])), save(fig, *a, **k)))
    slow = data.assign(peak_flops=3.5e5, bandwidth=1.2e10, compute_dtype="float16")
    plot_calibration(slow, "t", [tmp_path / "c.png"])
    title, top, texts = panels[0]
    above = (slow["flops_per_s"] > 3.5e5).sum()
    assert title.endswith(f"{above} of {len(slow)} points above the peak of a float16 product")
    assert top > slow["flops_per_s"].max()
    assert texts["matrix product 0.00035 GFLOP/s"]
    assert texts["2.9e-05 FLOP/byte:\ncopy 12 GB/s"]
    plot_calibration(data.assign(peak_flops=1e15), "t", [tmp_path / "c.png"])
    assert "above" not in panels[1][0]


def _texts(ax):
    """Title, upper limit, and whether each text lies inside the axes (a point of slack)."""
    frame = ax.get_window_extent().expanded(1.02, 1.02)
    boxes = {t.get_text(): t.get_window_extent() for t in ax.texts}
    return (
        ax.get_title(loc="left"),
        ax.get_ylim()[1],
        {w: frame.contains(b.x0, b.y0) and frame.contains(b.x1, b.y1) for w, b in boxes.items()},
    )
