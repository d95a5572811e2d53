"""Plans: by hand, without torch, against a small real pool, and beside what a run took."""

import dataclasses
import json
import math
import shutil
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import yaml

from flopstat import cli, config, devices, latency, pilot, plan_inputs, plan_text, planning, reality, sampling, tables
from flopstat.errors import InputError
from flopstat.forcing import Plan
from flopstat.latency import Decode, Device, Latency, Prefill
from flopstat.plan_figure import plot_plan
from flopstat.planning import Expectation
from flopstat.problems import select_problems
from flopstat.rates import Rate

QWEN = ["config/config.yaml", "config/studies/qwen2.5-gsm8k.yaml"]
PERSONAS = {"colab-t4": "T4", "rtx4090": "RTX-4090"}
LADDER = {
    "study": "s",
    "dataset": {"source": "ladder", "n_study": 30, "n_calibration": 0, "max_steps": 3},
    "models": [{"name": "ladder-160k", "source": "ladder", "precisions": ["fp32", "int8"]}],
    "budgets": {"T": [16, 48]},
    "sampling": {"samples": 3, "batch_rows": 32, "device": "cpu"},
}
GPU = Device("GPU", 1e12, 1e11, "f", memory_bytes=8 * 2**30)
FIT = Latency(GPU, Prefill(0.0, 0.0, 1e-4, 0.0), Decode(0.01, 1e-3, 0.0, 0.0), 0.1, 64, "line")


def run(root, *arguments):
    command = [sys.executable, "-X", "importtime", "-m", "flopstat.cli", "plan", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("name", "n_params"), [("Qwen2.5-1.5B-Instruct", 1_543_714_304), ("Qwen2.5-7B-Instruct", 7_615_616_512)])
def test_shipped_shapes_have_the_published_sizes(name, n_params):
    shape = plan_inputs.read_shape({"name": name, "source": "hub", "path": None, "shape": None})
    assert shape.n_params == n_params
    assert plan_inputs.read_shape({"name": "x", "source": "hub", "path": None, "shape": name}) == shape
    with pytest.raises(InputError, match=r"models x: its shape is not known yet; set shape to one of Qwen2"):
        plan_inputs.read_shape({"name": "x", "source": "hub", "path": None, "shape": None})


@pytest.mark.parametrize("persona", PERSONAS)
def test_the_qwen_overlays_are_planned_without_torch_beside_the_recipe(root, tmp_path, persona):
    done = run(root, "--config", *QWEN, f"config/personas/{persona}.yaml", "--results", str(tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    loaded = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "numpy" in loaded  # the report was read
    assert not loaded & {"torch", "transformers", "bitsandbytes", "datasets"}
    plan = json.loads(done.stdout)
    assert plan["device"]["name"] == PERSONAS[persona]
    assert plan["recipe_hours"] == 2
    assert any("the recipe says 2" in line for line in plan["notes"])
    hours, tokens = plan["total"]["hours"], plan["total"]["tokens"]
    chains = 150 * 17 * len(plan["arms"])
    assert (tokens["low"], tokens["value"], tokens["worst"]) == (chains, 300 * chains, 4096 * chains)
    assert 0 < hours["low"] < hours["value"] < hours["high"] <= hours["worst"]
    assert all(arm["fits_memory"] for arm in plan["arms"])
    assert plan["total"]["usd"]["value"] == pytest.approx(hours["value"] * plan["price_usd_per_hour"])
    assert "joules" not in plan["total"]
    assert "Energy: not measured." in plan["notes"]
    assert list(tmp_path.iterdir()) == []


def test_a_plan_for_people_is_plain_and_bounded(root, tmp_path):
    done = run(root, "--config", *QWEN, "config/personas/colab-t4.yaml", "--results", str(tmp_path), "--resolve", "5")
    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert max(map(len, lines)) <= plan_text.WIDTH
    assert "\x1b" not in done.stdout
    assert any("To fit, cut to" in line for line in lines)
    assert any("A difference of 5 points is resolved by" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*QWEN, "--device", "Z80"], "flopstat: device 'Z80': not in the hardware table; it knows T4, "),
        (["absent.yaml"], "flopstat: absent.yaml: no such config file"),
        (["config/config.yaml", "config/studies/openai-gsm8k.yaml"], "flopstat: openai-gsm8k: all samples are imported"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(root, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "argv", ["flopstat", "plan", "--config", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    out, err = capsys.readouterr()
    assert (left.value.code, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith(message)


def calibration(path, device):
    """A calibration file as far as a plan reads it."""
    rows = [{"phase": p, "batch": 1, "context": 9, "metric": "seconds", "value": 0.1, "unit": "s"} for p in ("prefill", "decode")]
    stored = {"rows": rows, "latency": latency.to_json(FIT), "device": dataclasses.asdict(device), "bits_effective": 9.5}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(stored), encoding="utf-8")


def test_a_calibration_of_another_machine_is_refused_unless_a_device_is_named(tmp_path):
    study = config.resolve(LADDER)
    calibration(tmp_path / "calibration" / "ladder-160k@fp32.json", dataclasses.replace(GPU, machine="elsewhere"))
    with pytest.raises(InputError, match=r"calibration of GPU \(machine elsewhere\): this is another machine"):
        plan_inputs.read_inputs(study, tmp_path)
    assert plan_inputs.read_inputs(study, tmp_path, "l4").device.name == "L4"
    calibration(tmp_path / "calibration" / "ladder-160k@fp32.json", dataclasses.replace(GPU, machine=devices.machine(), watts=100.0))
    inputs = plan_inputs.read_inputs(study, tmp_path)
    assert (inputs.arms["ladder-160k@fp32"].bits, inputs.device.watts) == (9.5, 100)
    made = planning.plan_arm(inputs.study, "ladder-160k@fp32", inputs.arms["ladder-160k@fp32"], inputs.device, 3.6)
    assert made.speed == "calibration"
    assert math.isnan(made.quantities["seconds"].value)  # no pilot, no guess: a range
    assert made.quantities["joules"].worst == pytest.approx(100 * made.quantities["seconds"].worst)
    assert made.quantities["usd"].low == pytest.approx(made.quantities["seconds"].low / 1000)


def test_before_a_pilot_there_is_a_range_or_the_configs_guess(tmp_path):
    for guess, wanted in ((None, math.nan), (20, 20 * 120), (400, 48 * 120)):
        inputs = plan_inputs.read_inputs(config.resolve(LADDER | {"plan": {"tokens_per_chain": guess}}), tmp_path)
        made = plan_text.make_plan(inputs, 2, 2)
        tokens = made.arms[0].quantities["tokens"]
        assert tokens.value == pytest.approx(wanted, nan_ok=True)
        assert (tokens.low, tokens.high, tokens.worst) == (120, 48 * 120, 48 * 120)
        assert made.arms[0].speed == "unknown"
        assert "hours" not in made.total
        assert made.total["tokens"].worst == 2 * 48 * 120
        tables.validate(pd.DataFrame(plan_text.table_rows(made)), "plan")
        json.dumps(plan_text.to_json(made), allow_nan=False)


def test_bits_before_loading_by_hand():
    shape = plan_inputs.read_shape({"name": "Qwen2.5-1.5B-Instruct", "source": "hub", "path": None, "shape": None})
    outside = 151936 * 1536 / 1_543_714_304
    assert planning.stored_bits(shape, "bf16", "bfloat16") == 16
    assert planning.stored_bits(shape, "nf4", "bfloat16") == pytest.approx(4.5 * (1 - outside) + 16 * outside)
    assert planning.stored_bits(shape, "int8", "float32") == pytest.approx((8 + 32 / 1536) * (1 - outside) + 32 * outside)
    assert planning.stored_bits(shape, "rtn3", "float32") == 32


def test_memory_by_hand_and_what_to_change():
    study = plan_inputs.read_study(config.resolve(LADDER), None)
    shape = plan_inputs.read_shape({"name": "ladder-160k", "source": "ladder", "path": None, "shape": None})
    kv, rows, weights = 2 * shape.n_layers * shape.n_kv_heads * shape.head_dim * 4, 10, 1000.0
    prompts = 1 + rows / 4
    by_hand = planning.LIBRARY_BYTES + weights + kv * (rows * 48 + prompts * 20) + kv * prompts * 20 + 16 * shape.vocab_size * rows
    assert planning.memory_of(study, shape, weights, rows, 20, 48) == pytest.approx(by_hand)

    slack = 1 + planning.ALLOCATOR_SHARE
    worst = planning.memory_of(study, shape, shape.n_params * 4, rows, 20, 48) * slack

    def advice(memory):
        known = planning.Known(shape, 32.0, None, None)
        device = dataclasses.replace(GPU, memory_bytes=memory)
        return planning.fit_memory(study, "ladder-160k@fp32", known, worst, rows, 20, device)

    one = planning.memory_of(study, shape, shape.n_params * 4, 1, 20, 48) * slack
    assert advice(worst) == (True, "")
    assert advice(one) == (False, "set sampling.batch_rows to 1")
    assert advice(one - shape.n_params) == (False, "take ladder-160k at int8")
    assert advice(planning.LIBRARY_BYTES) == (False, "set sampling.offload to cpu or disk, or take a device with more memory")
    assert planning.fit_memory(study, "a@fp32", planning.Known(shape, 32.0, None, None), by_hand, rows, 20, None) == (None, "")


def test_jobs_side_by_side_by_hand():
    assert planning.makespan([3, 5, 4], 2) == 7
    assert planning.makespan([3, 5, 4], 1) == 12
    assert planning.makespan([3, 5, 4], 9) == 5


def test_rates_meet_what_was_measured_and_follow_the_calibration_elsewhere():
    points = [
        {"rows": 4, "context": 20, "step": 0.03, "prompt_token": 1e-3},
        {"rows": 32, "context": 20, "step": 0.08, "prompt_token": 3e-3},
    ]
    rate = {"points": points, "startup_seconds": 5.0}
    plain, fitted = Rate.of_pilot(rate, None), Rate.of_pilot(rate, FIT)
    rows = np.array([4.0, 18.0, 32.0])
    np.testing.assert_allclose(plain._step(rows, np.full(3, 99.0)), [0.03, 0.055, 0.08])
    np.testing.assert_allclose(fitted._step(rows, np.full(3, 20.0)), [0.03, 0.028 * (0.03 / 0.014 + 0.08 / 0.042) / 2, 0.08])
    assert (plain.prefill, plain.startup) == (2e-3, 5)
    assert (plain._step(np.array([1.0, 2.0]), np.full(2, 9.0)) >= 0.015).all()


@pytest.fixture(scope="module")
def studied(tmp_path_factory, shipped):
    """Results of a small study up to its pilot, and the arm with its problems."""
    folder = tmp_path_factory.mktemp("results")
    loaded = config.resolve(
        LADDER | {"models": [{"name": "ladder-160k", "source": "ladder", "precisions": ["fp32"]}], "plan": {"pilot_chains": 15}}
    )
    problems = select_problems(loaded["dataset"], [loaded["prompt"]], loaded["seed"]).problems
    tables.write(problems, "problems", folder / "s" / "problems.parquet")
    card = shipped("ladder-160k")
    (folder / "s" / "models").mkdir()
    (folder / "s" / "models" / "ladder-160k.json").write_text(card.to_json(), encoding="utf-8")
    wanted = Plan.of(loaded["sampling"], loaded["budgets"], loaded["seed"])
    arm = sampling.open_arm(card, "fp32", loaded["sampling"], wanted, folder / "pools")
    found = pilot.draw_pilot(problems, arm, 15, time.perf_counter())
    (folder / "s" / "pilot").mkdir()
    (folder / "s" / "pilot" / "ladder-160k@fp32.json").write_text(json.dumps(found), encoding="utf-8")
    return folder, loaded, arm, problems


def test_a_small_real_pool_keeps_to_its_plan(studied, tmp_path):
    folder, loaded, arm, problems = studied
    inputs = plan_inputs.read_inputs(loaded, folder / "s", pools=folder / "pools")
    made = plan_text.make_plan(inputs, 2, 1)
    assert inputs.stored == {"ladder-160k@fp32": 15}
    assert (made.arms[0].basis, made.arms[0].speed) == ("pilot", "pilot")
    assert made.total["hours"].value == pytest.approx(made.total["seconds"].value / 3600)
    plan = tables.validate(pd.DataFrame(plan_text.table_rows(made)), "plan")
    assert (plan["low"] <= plan["high"]).all()

    view, summary, path = tmp_path / "000.parquet", tmp_path / "000.json", folder / "s" / "pilot" / "ladder-160k@fp32.json"
    arm = sampling.open_arm(arm.card, "fp32", arm.sampling, arm.plan, folder / "pools")  # as in a job of its own
    account = sampling.draw_samples(problems, arm)
    sampling.write_view(arm, problems, view)
    account["recorded"] = sampling.record_job(arm, problems, account)
    summary.write_text(json.dumps(account), encoding="utf-8")
    ran = reality.read_run([view], [summary], path, 48)
    rows = pd.DataFrame(reality.compare("s", plan, {"ladder-160k@fp32": ran}))
    actual = tables.validate(rows, "plan_actual").set_index(["arm", "quantity"])
    tokens = actual.loc[("ladder-160k@fp32", "tokens")]
    assert tokens["low"] <= tokens["actual"] <= tokens["high"]
    assert tokens["ratio"] == pytest.approx(1, abs=0.1)
    assert set(actual["status"]) == {"measured"}

    # A rerun that draws nothing keeps the time that the first run took.
    again = sampling.draw_samples(problems, sampling.open_arm(arm.card, "fp32", arm.sampling, arm.plan, folder / "pools"))
    assert again["chains_drawn"] == 0
    assert sampling.record_job(arm, problems, again) == account["recorded"]
    # Other problems' jobs are not this study's.
    assert sampling.record_job(arm, problems.iloc[:3], again)["jobs"] == 0
    written = plot_plan(actual.reset_index(), "A plan: 100% of it $", [tmp_path / "plan.png", tmp_path / "plan.pdf"])
    assert len(written) == 6
    assert (tmp_path / "plan.png").stat().st_size > 5000


def test_the_upper_limit_covers_greedy_chains_that_run_to_t(studied):
    """By hand: 30 problems with 3 sampled chains at the pilot's upper limit and a greedy one of 48 tokens."""
    folder, loaded, *_ = studied
    inputs = plan_inputs.read_inputs(loaded, folder / "s", pools=folder / "pools")
    arm = plan_text.make_plan(inputs, 2, 1).arms[0]
    mean, _ = planning.mean_length(inputs.study, inputs.arms["ladder-160k@fp32"].pilot)
    tokens = arm.quantities["tokens"]
    assert tokens.value == pytest.approx(120 * mean.value)
    assert tokens.low == pytest.approx(120 * mean.low)
    assert tokens.high == pytest.approx(30 * (3 * mean.high + 48))
    assert tokens.high <= tokens.worst
    assert "in the upper limit greedy chains run to T" in plan_text.BASES["pilot"]


def test_an_archived_study_is_planned_for_the_machine_that_it_ran_on(studied, tmp_path):
    folder, loaded, *_ = studied
    shutil.copytree(folder / "s", tmp_path / "s")
    path = tmp_path / "s" / "pilot" / "ladder-160k@fp32.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    found["rate"]["machine"] = "elsewhere"
    path.write_text(json.dumps(found), encoding="utf-8")
    calibration(tmp_path / "s" / "calibration" / "ladder-160k@fp32.json", dataclasses.replace(GPU, machine="elsewhere"))
    with pytest.raises(InputError, match="this is another machine"):
        plan_inputs.read_inputs(loaded, tmp_path / "s")
    inputs = plan_inputs.read_inputs(loaded | {"archive": {"path": "x", "url": None, "sha256": None}}, tmp_path / "s")
    assert (inputs.device.name, inputs.arms["ladder-160k@fp32"].rate.source) == ("GPU", "pilot")
    # The workflow plans for the node that was calibrated, on whichever node of a cluster.
    there = plan_inputs.read_inputs(loaded, tmp_path / "s", anywhere=True)
    assert (there.device.name, there.arms["ladder-160k@fp32"].rate.source) == ("GPU", "pilot")


def test_a_pilot_of_other_settings_is_not_used(studied):
    folder, loaded, *_ = studied
    for change in ({"temperature": 0.5}, {"compute_dtype": "bfloat16"}):
        other = loaded | {"sampling": loaded["sampling"] | change}
        assert plan_inputs.read_inputs(other, folder / "s").arms["ladder-160k@fp32"].pilot is None
    longer = loaded | {"budgets": loaded["budgets"] | {"T": [16, 96]}}
    assert plan_inputs.read_inputs(longer, folder / "s").arms["ladder-160k@fp32"].pilot is None
    shorter = loaded | {"budgets": loaded["budgets"] | {"T": [16]}}
    inputs = plan_inputs.read_inputs(shorter, folder / "s")
    assert plan_text.make_plan(inputs, 2, 1).total["tokens"].high <= 16 * 120


@pytest.mark.parametrize(("drawn", "status"), [(0.0, "drawn earlier"), (0.4, "partly drawn earlier"), (0.99, "measured")])
def test_time_stands_there_only_for_what_the_studys_jobs_drew(drawn, status):
    plan = pd.DataFrame(
        [{"arm": arm, "quantity": q, "value": 10.0, "low": 8.0, "high": 12.0} for arm in ("a", "total") for q in reality.COMPARED]
    )
    rows = pd.DataFrame(reality.compare("s", plan, {"a": reality.Run(11, 5.0, 7.0, drawn)})).set_index(["arm", "quantity"])
    assert rows.loc[("a", "tokens"), ["ratio", "status"]].tolist() == [1.1, "measured"]
    assert rows.loc[("a", "seconds"), "status"] == rows.loc[("total", "seconds"), "status"] == status
    assert (rows.loc[("a", "seconds"), "ratio"] == 0.5) == (status == "measured")
    assert math.isnan(rows.loc[("total", "memory_bytes"), "actual"]) == (status != "measured")


def test_what_to_cut_to_keep_to_the_recipe(tmp_path):
    loaded = config.load(*[config.ROOT / name for name in (*QWEN, "config/personas/colab-t4.yaml")])
    made = plan_text.make_plan(plan_inputs.read_inputs(loaded, tmp_path), 2, 1)
    hours = made.total["hours"].value

    def said(recipe):
        return plan_text.verdict(
            dataclasses.replace(
                made,
                inputs=dataclasses.replace(made.inputs, study=dataclasses.replace(made.inputs.study, config=with_recipe(loaded, recipe))),
            )
        )

    assert "it fits, but not if every chain ran to T" in said(hours * 1.01)
    assert said(made.total["hours"].worst).endswith("it fits.")
    assert "cut to 75 of 150 problems, or 7 of 16 samples a problem, or no Qwen2.5-7B-Instruct@int8" in said(hours / 2 * 1.001)
    assert said(None) == ""


def with_recipe(loaded, hours):
    return loaded | {"plan": loaded["plan"] | {"recipe_hours": hours}}


def test_numbers_are_spelled_with_their_interval():
    assert plan_text.spell(Expectation(1500, 1200, 2000, 9000), "tokens") == "1.5k [1.2k, 2k]"
    assert plan_text.spell(Expectation(math.nan, 1, 2e6, 2e6), "tokens") == "1 to 2M"
    assert plan_text.spell(Expectation(2**31, 2**31, 2**31, 2**31), "bytes") == "2"


def test_money_is_that_of_the_price_table_that_the_config_names(root, tmp_path):
    study = config.load(*(root / name for name in (*QWEN, "config/personas/colab-t4.yaml")))
    shipped = plan_inputs.read_inputs(study, tmp_path).price
    table = yaml.safe_load((root / "config" / "prices.yaml").read_text(encoding="utf-8"))
    table["devices"]["T4"]["usd_per_hour"] *= 3
    (tmp_path / "prices.yaml").write_text(yaml.safe_dump(table), encoding="utf-8")
    study["costs"]["prices"] = str(tmp_path / "prices.yaml")
    assert plan_inputs.read_inputs(study, tmp_path).price == pytest.approx(3 * shipped)
