"""Calibration of a shipped model: what is measured, stored and reused, and how arms are compared."""

import json
import sys
from math import comb
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import mannwhitneyu

from flopstat import calibration, devices
from flopstat.calibration import Visit, visits
from flopstat.cli import app
from flopstat.energy import Nvml, Rapl, meter
from flopstat.engine import GREEDY, Request, SamplingSettings
from flopstat.errors import InputError
from flopstat.latency import Latency
from flopstat.precisions import emulated, load
from flopstat.rehearsal import Rehearsal
from flopstat.transformers_engine import TransformersEngine
from flopstat.verdicts import _lower_tail, speed_ratio, verdict, verdict_rows

SETTINGS = {"prompt_tokens": 16, "decode_tokens": 4, "prefill_tokens": [4, 16], "batches": [1, 3], "contexts": [8, 24], "repeats": 5}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("calibrations")


@pytest.fixture(scope="module")
def measured(shipped, store):
    """Two arms of one model: their stored files."""
    card = shipped("ladder-30k")
    return {p: calibration.calibrate(card, p, "float32", "cpu", SETTINGS, store, "code") for p in ("fp32", "rtn4")}


def content(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_every_point_is_measured_and_every_row_is_in_order(measured):
    rows = content(measured["fp32"])["rows"]
    seconds = {(r["phase"], r["batch"], r["context"]) for r in rows if r["metric"] == "seconds"}
    prefills = {("prefill", 1, 4), ("prefill", 4, 4), ("prefill", 1, 16)}
    assert seconds == prefills | {("decode", b, c) for b in (1, 3) for c in (8, 24)}
    for row in rows:
        assert 0 < row["low"] <= row["value"] <= row["high"]
        if row["metric"] in ("seconds", "draw_seconds"):
            assert len(row["rounds"]) == SETTINGS["repeats"]
            assert row["value"] == pytest.approx(np.median(row["rounds"]))
    (chain,) = (r for r in rows if r["phase"] == "chain")
    assert (chain["batch"], chain["metric"], chain["unit"]) == (3, "chain_seconds", "s/chain")
    by_place = {(r["phase"], r["batch"], r["context"], r["metric"]): r["value"] for r in rows}
    for phase, b, c in seconds - prefills:
        assert by_place[phase, b, c, "draw_seconds"] < by_place[phase, b, c, "seconds"]


def test_c_is_of_one_prompt_and_counts_what_the_closed_form_says(measured, shipped):
    card, rows = shipped("ladder-30k"), content(measured["fp32"])["rows"]
    prefill = {r["metric"]: r for r in rows if r["phase"] == "prefill" and r["metric"] != "seconds"}
    assert {(r["batch"], r["context"]) for r in prefill.values()} == {(1, 16)}
    assert prefill["c_counted"]["value"] == pytest.approx(prefill["c_closed_form"]["value"])
    device = {r["metric"]: r["value"] for r in rows if r["phase"] == "device"}
    assert prefill["c_effective"]["value"] == pytest.approx(device["peak"] * prefill["seconds_per_token"]["value"] / card.n_params)
    assert device["intensity"] == pytest.approx(device["peak"] / device["bandwidth"])
    decode = {r["metric"]: r["value"] for r in rows if (r["phase"], r["batch"], r["context"]) == ("decode", 3, 24)}
    assert decode["seconds_per_token"] == pytest.approx(decode["seconds"] / 3)
    assert decode["c_effective"] == pytest.approx(device["peak"] * decode["seconds_per_token"] / card.n_params)


def test_a_measurement_is_reused_and_its_identity_holds_code_settings_and_draw(measured, shipped, store):
    card = shipped("ladder-30k")
    before = measured["fp32"].stat().st_mtime_ns
    same = [card, "fp32", "float32", "cpu", SETTINGS, store, "code"]
    assert calibration.calibrate(*same) == measured["fp32"]
    assert measured["fp32"].stat().st_mtime_ns == before
    identity = content(measured["fp32"])["identity"]
    assert identity["fingerprint"] == calibration.fingerprint("cpu")
    assert identity["draw"] == {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}
    few = SETTINGS | {"batches": [1], "contexts": [8], "prefill_tokens": [4]}
    others = {
        calibration.calibrate(card, "fp32", "float32", "cpu", few, store, "other code"),
        calibration.calibrate(card, "fp32", "float32", "cpu", few, store, "code"),
        calibration.calibrate(card, "fp32", "float32", "cpu", few, store, "code", draw={"top_p": 0.8}),
    }
    assert len(others | {measured["fp32"]}) == 4
    assert len(list(store.glob("device-*.json"))) == 1  # one peak for all arms of a device


def test_the_stored_model_predicts_the_measured_steps(measured):
    for path in measured.values():
        latency = Latency.read(path)
        assert latency.max_batch == 3
        assert latency.step_s(3, 24) > 0
        assert latency.chain_s == next(r["value"] for r in content(path)["rows"] if r["metric"] == "chain_seconds")
        found = content(path)
        assert latency.device.fingerprint == devices.short_hash(found["identity"]["fingerprint"])
        assert len(found["held_out"]) == 7


def test_lengths_beyond_the_context_are_cut_to_it_once():
    found = visits(SETTINGS | {"prompt_tokens": 512, "prefill_tokens": [8, 64, 512], "contexts": [16, 64, 512]}, longest=64)
    assert found[0] == Visit("prefill", 1, 64, "plain")
    assert [(v.batch, v.context) for v in found if v.phase == "prefill" and v.kind == "engine"] == [(1, 8), (8, 8), (1, 64)]
    assert [(v.batch, v.context) for v in found if v.phase == "decode"] == [(1, 16), (1, 64), (3, 16), (3, 64)]


def test_a_step_sees_as_many_tokens_as_asked_for_and_leaves_the_rows_in_place(shipped):
    engine = Rehearsal(load(shipped("ladder-30k"), "fp32", "float32", "cpu"), SamplingSettings(0, 1.0, 1.0, 0, 64), 40, "cpu")
    for batch, context in ((1, 2), (1, 9), (40, 10), (3, 33)):
        engine.seat(batch, context)
        for _ in range(3):
            total, draw = engine.step()
            assert 0 < draw < total
            step = engine._slots.step
            assert step.rows == batch
            assert (step.bias == 0).sum(dim=-1).flatten().tolist() == [context] * batch
        assert step.prompts == -(-batch // 16)
    assert engine.turnover(40, 20) > 0
    assert (engine.account.chains, engine.account.new_tokens, engine.account.batch_rows) == (40, 40, 40)
    assert engine.account.model_seconds == 0  # no step is taken
    assert engine.prefill(3, 12) > 0
    assert engine._slots.prompt_lengths.tolist() == [12, 12, 12]


def test_a_seated_step_gives_the_logits_of_the_engine_itself(shipped):
    """One token again and again: the slots hold what a prefill of the same tokens without positions would."""
    model = load(shipped("ladder-30k"), "fp32", "float32", "cpu")
    engine = Rehearsal(model, SamplingSettings(0, 1.0, 1.0, 0, 64), 40, "cpu")
    engine.seat(2, 2)
    with torch.inference_mode():
        engine._batch.length[:] = engine._own
        engine._batch.ids[:, 0] = 1
        logits = engine._decode()
        whole = model(input_ids=torch.ones((1, 2), dtype=torch.long)).logits[:, -1]
    torch.testing.assert_close(logits, whole.expand(2, -1), rtol=1e-4, atol=1e-4)


def test_a_point_without_memory_is_left_out_and_the_rest_is_measured(shipped, capsys):
    class Small(Rehearsal):
        def seat(self, batch, context):
            if batch > 2:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
            super().seat(batch, context)

    engine = Small(load(shipped("ladder-30k"), "fp32", "float32", "cpu"), SamplingSettings(0, 1.0, 1.0, 0, 64), 40, "cpu")
    found = calibration.measure(engine, visits(SETTINGS, 62), 2, 2, "cpu")
    assert {v.batch for v in found if v.phase == "decode"} == {1}
    assert Visit("chain", 3, 24, "engine") in found
    assert "decode at batch 3 and 24 tokens: no memory, left out" in capsys.readouterr().err
    assert all(len(values) == 2 for values in found.values())


def test_the_rehearsal_changes_nothing_of_what_the_engine_draws(shipped):
    model = load(shipped("ladder-30k"), "fp32", "float32", "cpu")
    settings = SamplingSettings(3, 1.0, 1.0, 0, 12)
    requests = [Request("p", (5, 6, 7), i) for i in (GREEDY, 0, 1, 2)]

    def ids(engine):
        return [c.ids.tolist() for chains in engine.draw(requests) for c in chains]

    before = ids(TransformersEngine(model, settings, (1,), 4))
    engine = Rehearsal(model, settings, 4, "cpu")
    engine.seat(4, 8)
    engine.step()
    assert ids(TransformersEngine(model, settings, (1,), 4)) == before


# --- the command line -----------------------------------------------------------------------------------------------------


def test_the_command_measures_all_arms_in_one_go_and_names_what_is_wrong(measured, shipped, store, tmp_path, monkeypatch):
    monkeypatch.setattr("flopstat.provenance.code_hash", lambda *modules: "code")
    card = tmp_path / "ladder-30k.json"
    card.write_text(shipped("ladder-30k").to_json(), encoding="utf-8")
    draw = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}
    wanted = {"calibration": SETTINGS, "compute_dtype": "float32", "device": "cpu", "offload": "none", "device_memory": None, "draw": draw}
    call = ["calibrate", "--card", str(card), "--store", str(store), "--out", str(tmp_path / "out"), "--settings"]
    arms = ["--arm", "ladder-30k@fp32", "--arm", "ladder-30k@rtn4"]
    app([*call, json.dumps(wanted), *arms], standalone_mode=False)
    for precision, path in measured.items():
        assert (tmp_path / "out" / f"ladder-30k@{precision}.json").read_bytes() == path.read_bytes()
    for arm in ("other@fp32", "ladder-30k"):
        with pytest.raises(InputError, match=r"no model@precision of a card.*ladder-30k"):
            app([*call, json.dumps(wanted), "--arm", arm], standalone_mode=False)
    with pytest.raises(InputError, match="lacks 'draw'"):
        app([*call, json.dumps({k: v for k, v in wanted.items() if k != "draw"}), *arms], standalone_mode=False)
    with pytest.raises(InputError, match="not JSON"):
        app([*call, "{", *arms], standalone_mode=False)


# --- devices --------------------------------------------------------------------------------------------------------------


def test_a_calibration_of_another_machine_is_refused(measured, tmp_path):
    latency = Latency.read(measured["fp32"])
    devices.check_device(latency)
    with pytest.raises(InputError, match=r"this is another machine .*calibrate here"):
        devices.check_device(latency, "0123456789ab")
    moved = content(measured["fp32"])
    moved["device"]["machine"] = "elsewhere"
    (tmp_path / "moved.json").write_text(json.dumps(moved), encoding="utf-8")
    with pytest.raises(InputError, match=r"machine elsewhere"):
        devices.check_device(Latency.read(tmp_path / "moved.json"))


def test_mixed_devices_are_told_and_one_device_is_not():
    assert devices.mixed_devices(pd.DataFrame({"fingerprint": ["a", "a", None]})) is None
    assert "2 devices or settings (a, b)" in devices.mixed_devices(pd.DataFrame({"fingerprint": ["a", "b", "a"]}))


# --- verdicts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 2), (3, 5), (5, 5), (7, 4)])
def test_the_distribution_of_u_is_scipys(n, m):
    tail = _lower_tail(n, m)
    assert len(tail) == n * m + 1
    assert tail[0] == pytest.approx(1 / comb(n + m, n))
    for u in range(n + 1):  # no ties, and the last u of the first sample lie above the lowest of the second
        y = n + 0.5 + np.arange(m)
        x = np.where(np.arange(n) >= n - u, n + 0.75, 0) + np.arange(n) * 1e-3
        exact = mannwhitneyu(x, y, alternative="less", method="exact")
        assert exact.statistic == u
        assert tail[u] == pytest.approx(exact.pvalue)


def test_a_ratio_worked_by_hand():
    assert speed_ratio([2.0, 4.0], [1.0, 1.0]) == pytest.approx((8**0.5, 2.0, 4.0))
    reference, arm = [5.0, 1.0, 2.0, 4.0, 3.0], [1.0] * 5
    # 25 ratios: 1 to 5, five of each. P(U <= 2) = 4/252 is within 2.5%, P(U <= 3) = 7/252 is not: the third smallest and largest.
    assert speed_ratio(reference, arm) == pytest.approx((3.0, 1.0, 5.0))
    assert speed_ratio(reference, arm, confidence=0.5)[1:] == pytest.approx((2.0, 4.0))


def test_the_interval_covers_a_true_ratio_and_is_exact_at_its_level():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        reference, arm = np.exp(rng.standard_normal(5)), np.exp(rng.standard_normal(5)) / 2
        _, low, high = speed_ratio(reference, arm)
        covered += low <= 2 <= high
    assert covered / 2000 == pytest.approx(1 - 2 * 4 / 252, abs=0.015)


def test_verdicts_follow_the_interval():
    assert verdict(1.1, 1.3, False) == "faster"
    assert verdict(0.7, 0.9, False) == "slower"
    assert verdict(0.9, 1.1, False) == "the same"
    assert verdict(1.1, 1.3, True) == "emulated"


def test_a_precision_is_emulated_where_its_weights_are_held_in_the_compute_dtype():
    assert [emulated(p, "float32") for p in ("fp32", "bf16", "fp16", "rtn3", "gguf-q4_1")] == [False, True, True, True, True]
    assert not any(emulated(p, "float32") for p in ("int8", "nf4", "quanto-int8", "torchao-int8"))
    assert not emulated("bf16", "bfloat16")
    assert emulated("fp32", "bfloat16")


def test_arms_are_compared_at_batch_1_and_the_largest_and_only_on_one_device(measured):
    arm, reference = content(measured["rtn4"]), content(measured["fp32"])
    rows = verdict_rows(arm, reference)
    assert [(r["batch"], r["context"], r["verdict"]) for r in rows] == [(1, 24, "emulated"), (3, 24, "emulated")]
    for row in rows:
        assert 0 < row["low"] <= row["value"] <= row["high"]
    twice = content(measured["fp32"])
    for row in twice["rows"]:
        row["rounds"] = [2 * s for s in row["rounds"]]
    slower = verdict_rows(twice, reference)
    assert [r["value"] for r in slower] == pytest.approx([0.5, 0.5], rel=0.5)
    twice["device"]["fingerprint"] = "another"
    assert verdict_rows(twice, reference) == []


# --- energy ---------------------------------------------------------------------------------------------------------------


def powercap(root, *packages):
    """A tree as the kernel's: packages of (name, µJ, range), each with a part of its own."""
    for i, (name, used, most) in enumerate(packages):
        for folder, called in ((root / f"intel-rapl:{i}", name), (root / f"intel-rapl:{i}:0", "core")):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "name").write_text(f"{called}\n")
            (folder / "energy_uj").write_text(f"{used}\n")
            (folder / "max_energy_range_uj").write_text(f"{most}\n")
    (root / "intel-rapl").mkdir(exist_ok=True)
    return root


def test_rapl_sums_the_packages_and_no_part_of_them_twice(tmp_path):
    root = powercap(tmp_path, ("package-0", 1_000_000, 10_000_000), ("package-1", 500, 10_000_000), ("psys", 9, 10_000_000))
    found = Rapl.find(root)
    assert found.read() == [1_000_000, 500]
    before = found.read()
    (root / "intel-rapl:0" / "energy_uj").write_text("3500000\n")
    (root / "intel-rapl:1" / "energy_uj").write_text("500500\n")
    assert found.joules(before, found.read()) == pytest.approx(3.0)
    assert meter("cpu", root).name == "RAPL"


def test_rapl_goes_on_where_a_counter_returns_to_zero(tmp_path):
    root = powercap(tmp_path, ("package-0", 90_000_000, 100_000_000))
    found = Rapl.find(root)
    before = found.read()
    (root / "intel-rapl:0" / "energy_uj").write_text("10000000\n")
    assert found.joules(before, found.read()) == pytest.approx(20.0)


def test_without_a_counter_that_can_be_read_there_is_no_meter(tmp_path):
    assert Rapl.find(tmp_path) is None
    assert Rapl.find(tmp_path / "nothing") is None
    root = powercap(tmp_path / "broken", ("package-0", 1, 100))
    (root / "intel-rapl:0" / "energy_uj").write_text("denied")
    assert Rapl.find(root) is None
    (root / "intel-rapl:0" / "energy_uj").unlink()  # as where the kernel keeps it to the administrator: no number comes out
    assert Rapl.find(root) is None
    assert meter("mps") is None


def test_nvml_reads_millijoules_and_is_left_out_where_the_counter_fails(monkeypatch):
    library = ModuleType("pynvml")
    library.NVMLError = type("NVMLError", (Exception,), {})
    readings = iter([1000, 1000, 4500])
    library.nvmlInit = lambda: None
    library.nvmlDeviceGetHandleByIndex = lambda index: index
    library.nvmlDeviceGetTotalEnergyConsumption = lambda handle: next(readings)
    monkeypatch.setitem(sys.modules, "pynvml", library)
    found = meter("cuda")
    assert found.joules(found.read(), found.read()) == pytest.approx(3.5)

    def fails():
        raise library.NVMLError

    library.nvmlInit = fails
    assert meter("cuda") is None
    monkeypatch.setitem(sys.modules, "pynvml", None)  # not installed
    assert Nvml.find() is None


def test_power_is_measured_where_there_is_a_counter_and_null_elsewhere(measured, shipped, tmp_path, monkeypatch):
    root = powercap(tmp_path / "powercap", ("package-0", 0, 10**12))

    class Ticking(Rapl):
        def read(self):
            now = super().read()
            (root / "intel-rapl:0" / "energy_uj").write_text(str(now[0] + 50_000_000))
            return now

    monkeypatch.setattr(calibration, "meter", lambda device: Ticking.find(root))
    monkeypatch.setattr(calibration, "POWER_SECONDS", 0.1)
    path = calibration.calibrate(shipped("ladder-30k"), "fp32", "float32", "cpu", SETTINGS, tmp_path / "store", "code")
    found = content(path)
    assert found["energy"] == "RAPL"
    assert 100 < found["device"]["watts"] < 501  # 50 J in at least 0.1 s
    power = next(r for r in found["rows"] if r["metric"] == "power")
    assert (power["batch"], power["value"], power["unit"]) == (3, found["device"]["watts"], "W")
    unread = content(measured["fp32"])
    if unread["device"]["watts"] is None:
        assert unread["energy"] == "not measured"
        assert not [r for r in unread["rows"] if r["metric"] == "power"]
