"""The latency model: recovers planted coefficients, predicts points left out, and refuses damaged files."""

import json
import math
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest

from flopstat.errors import InputError
from flopstat.latency import (
    Decode,
    Device,
    Latency,
    Point,
    Prefill,
    choose_form,
    fit,
    fit_decode,
    fit_prefill,
    held_out,
    points_of,
    relative_error,
    to_json,
)

DEVICE = Device("toy", 100.0, 10.0, "abc", machine="def")
BATCHES, CONTEXTS, LENGTHS = (1, 4, 16, 64, 256), (32, 128, 512), (32, 64, 256, 512)
LINE = Decode(2e-3, 1e-5, 0.0, 2e-8)
TURNED = Decode(1e-3, 1e-5, 64.0, 3e-9)
PREFILL = Prefill(1e-3, 2e-4, 3e-6, 1e-9)


def decoded(model, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    return [
        Point("decode", b, c, float(model.seconds(b, c)) * float(np.exp(noise * rng.standard_normal()))) for b in BATCHES for c in CONTEXTS
    ]


def prefilled(noise=0.0):
    rng = np.random.default_rng(1)
    return [
        Point("prefill", b, n, float(PREFILL.seconds(b, n)) * float(np.exp(noise * rng.standard_normal()))) for b in (1, 8) for n in LENGTHS
    ]


def rows(points):
    timed = [{"phase": p.phase, "batch": p.batch, "context": p.context, "metric": "seconds", "value": p.seconds} for p in points]
    return [*timed, {"phase": "chain", "batch": 8, "context": 1, "metric": "chain_seconds", "value": 1e-4}]


def stored(tmp_path, **changes):
    measured = rows(prefilled() + decoded(LINE))
    model, _ = fit(measured, DEVICE)
    content = {"rows": measured, "latency": to_json(model), "device": asdict(DEVICE)} | changes
    path = tmp_path / "arm.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path, model


def test_a_step_worked_by_hand():
    model = Decode(overhead=1.0, row=0.5, turn=4.0, attention=0.01)
    assert model.seconds(1, 10) == pytest.approx(1 + 0.5 * 4 + 0.1)  # the weights' time, whether one row or four
    assert model.seconds(4, 10) == pytest.approx(1 + 0.5 * 4 + 0.4)
    assert model.seconds(8, 10) == pytest.approx(1 + 0.5 * 8 + 0.8)


def test_a_prefill_worked_by_hand():
    assert Prefill(1.0, 2.0, 0.5, 0.01).seconds(3, 10) == pytest.approx(1 + 3 * (2 + 5) + 0.01 * 3 * 100)
    assert Prefill(1.0, 2.0, 0.5, 0.01, floor=30.0).seconds(3, 10) == pytest.approx(1 + 30 + 3)


def test_times_broadcast_over_batches_and_contexts():
    model = Latency(DEVICE, PREFILL, LINE, 0.1, 256, "line")
    grid = model.step_s(np.array(BATCHES)[:, None], np.array(CONTEXTS))
    assert grid.shape == (5, 3)
    assert grid[2, 1] == LINE.seconds(16, 128)
    assert model.prefill_s(1, [10, 20]).shape == (2,)
    assert (np.diff(grid, axis=0) > 0).all()
    assert (np.diff(grid, axis=1) > 0).all()


def test_the_fit_recovers_planted_coefficients():
    found = fit_decode(decoded(LINE), "line")
    assert asdict(found) == pytest.approx(asdict(LINE), rel=1e-6)
    assert asdict(fit_prefill(prefilled())) == pytest.approx(asdict(PREFILL), rel=1e-6, abs=1e-15)


def test_a_roofline_is_found_where_the_weights_hold_up_small_batches():
    points = decoded(TURNED)
    assert choose_form(points) == "roofline"
    found = fit_decode(points, "roofline")
    assert max(relative_error(found, p) for p in points) < 0.05
    assert 30 < found.turn < 130
    assert max(relative_error(fit_decode(points, "line"), p) for p in points) > 0.05


def test_a_line_stays_a_line():
    assert choose_form(decoded(LINE)) == "line"


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_points_left_out_are_predicted_to_the_noise(noise):
    measured = rows(prefilled(noise) + decoded(TURNED, noise))
    model, predictions = fit(measured, DEVICE)
    assert len(predictions) == len(points_of(measured)) == len(measured) - 1
    errors = [abs(p["predicted"] - p["measured"]) / p["measured"] for p in predictions]
    assert model.held_out_error == pytest.approx(float(np.median(errors)))
    assert model.held_out_error < 0.02 + noise


def test_a_point_is_predicted_by_a_fit_that_has_not_seen_it():
    points = decoded(LINE)
    wrong = [replace(p, seconds=p.seconds * 100) if i == 7 else p for i, p in enumerate(points)]
    predicted = held_out(wrong)[7]
    assert predicted.seconds == pytest.approx(points[7].seconds, rel=1e-6)  # not drawn towards its own outlier


def test_coefficients_are_never_negative():
    falling = [Point("decode", b, c, 1e-2 / b) for b in BATCHES for c in CONTEXTS]
    assert min(asdict(fit_decode(falling, "line")).values()) >= 0


def test_the_model_is_read_back_as_written(tmp_path):
    path, model = stored(tmp_path)
    assert Latency.read(path) == model
    assert model.chain_s == 1e-4
    assert Latency.read(path).device.intensity == pytest.approx(10.0)


def test_one_point_per_phase_gives_a_model_without_an_error(tmp_path):
    model, predictions = fit(rows([prefilled()[0], decoded(LINE)[0]]), DEVICE)
    assert math.isnan(model.held_out_error)
    assert predictions == []
    path, _ = stored(tmp_path, latency=to_json(model))
    assert math.isnan(Latency.read(path).held_out_error)


@pytest.mark.parametrize("seconds", [0, -1e-3, math.nan, math.inf, None, "fast", True, 10**400])
def test_times_that_nothing_takes_are_refused(tmp_path, seconds):
    damaged = rows([*prefilled(), *decoded(LINE)])
    damaged[3]["value"] = seconds
    with pytest.raises(InputError, match=r"prefill at batch 1 and 512 tokens takes .* s"):
        points_of(damaged)
    path, _ = stored(tmp_path, rows=damaged)
    with pytest.raises(InputError, match=r"arm\.json.*takes.*snakemake"):
        Latency.read(path)


def test_damaged_files_are_named_with_the_remedy(tmp_path):
    with pytest.raises(InputError, match=r"no such calibration; make it again"):
        Latency.read(tmp_path / "nothing.json")
    path, model = stored(tmp_path)
    written = to_json(model)
    for changes, message in (
        ({"latency": None}, "holds no latency model"),
        ({"latency": written | {"decode": {"overhead": 1.0}}}, "holds no latency model"),
        ({"latency": written | {"decode": asdict(LINE) | {"row": -1e-5}}}, r"latency\.decode\.row is -1e-05"),
        ({"latency": written | {"decode": asdict(Decode(0, 0, 0, 0))}}, "a time of 0"),
        ({"latency": written | {"max_batch": 0}}, "no batch"),
        ({"latency": written | {"chain_s": -1.0}}, r"latency\.chain_s is -1\.0"),
        ({"device": asdict(DEVICE) | {"bandwidth": 0}}, r"device\.bandwidth is 0"),
        ({"device": asdict(DEVICE) | {"peak_flops": "fast"}}, r"device\.peak_flops"),
        ({"rows": [{"phase": "decode"}]}, "holds no latency model"),
    ):
        path, _ = stored(tmp_path, **changes)
        with pytest.raises(InputError, match=message):
            Latency.read(path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="not a calibration"):
        Latency.read(path)


def test_a_phase_without_points_is_refused():
    with pytest.raises(InputError, match="no timed point of phase prefill"):
        fit(rows(decoded(LINE)), DEVICE)


FLOPS = SimpleNamespace(step=lambda c: 200.0 + 8.0 * c, prefill=lambda n: 150.0 * n + 8.0 * n**2 + 50.0)


def test_the_nominal_model_worked_by_hand():
    model = Latency.roofline(FLOPS, weight_bytes=100.0, kv_bytes_per_token=1.0, device=DEVICE)
    assert model.step_s(1, 10) == pytest.approx(11.0)
    assert model.step_s(10, 10) == pytest.approx(30.0)
    assert model.prefill_s(1, 1) == pytest.approx(10.08)  # the weights: 100 / 10; the square: 8 / 100
    assert model.prefill_s(2, 10) == pytest.approx((2 * (1500 + 50) + 2 * 800) / 100)
    assert math.isnan(model.held_out_error)
    assert model.form == "nominal"
    assert model.chain_s == 0
    assert model.max_batch >= 10**9


def test_the_nominal_model_never_takes_less_than_arithmetic_or_traffic_alone():
    model = Latency.roofline(FLOPS, 100.0, 1.0, DEVICE)
    for b in (1, 3, 10, 100):
        for c in (0, 1, 10, 1000):
            assert model.step_s(b, c) >= b * FLOPS.step(c) / DEVICE.peak_flops * (1 - 1e-12)
            assert model.step_s(b, c) >= (100.0 + b * c) / DEVICE.bandwidth * (1 - 1e-12)
    for n in (1, 10, 100):
        assert model.prefill_s(2, n) >= 2 * FLOPS.prefill(n) / DEVICE.peak_flops * (1 - 1e-12)


def test_a_nominal_model_without_weights_is_refused():
    with pytest.raises(InputError, match="bytes of weights"):
        Latency.roofline(FLOPS, 0.0, 1.0, DEVICE)
