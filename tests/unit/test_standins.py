"""Stand-ins for hub models: traits of the real checkpoints, the shipped configs left alone, and the page that tells of it."""

import io
import json
import re
import shlex

import pytest
import torch
from safetensors import safe_open
from typer.testing import CliRunner

from flopstat import cli, config, models, plan_inputs, plan_text, precisions, standins, trial
from flopstat.errors import InputError
from flopstat.sampling import eos_ids, prompt_ids

ROOT = config.ROOT
BASE, QWEN = ROOT / "config" / "config.yaml", ROOT / "config" / "studies" / "qwen2.5-gsm8k.yaml"
PERSONAS = {name: (BASE, QWEN, ROOT / "config" / "personas" / f"{name}.yaml") for name in ("colab-t4", "rtx4090", "gsm8k-published")}
PAGE = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
CHANGED = {"study", "title", "dataset", "models", "sampling"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A rehearsal of the 4090's study, ready to run."""
    return trial.prepare(PERSONAS["rtx4090"], tmp_path_factory.mktemp("rehearsal"), (6, 6), 4, "cpu", 1)


@pytest.fixture(scope="module")
def cards(made):
    """Cards of the stand-ins by model."""
    folders = standins.build_standins(config.load(*PERSONAS["rtx4090"]), made.folder / "hub")
    return [models.describe({"name": f.parents[1].name, "source": "local", "path": str(f)}, made.folder) for f in folders]


@pytest.mark.parametrize(("number", "name"), enumerate(["Qwen2.5-1.5B-Instruct", "Qwen2.5-7B-Instruct"]))
def test_standins_have_the_real_models_traits_in_small(cards, number, name):
    card, real = cards[number], plan_inputs.read_shape({"name": name, "source": "hub", "path": None, "shape": None})
    assert (card.n_heads, card.n_kv_heads, card.tied) == (real.n_heads, real.n_kv_heads, real.tied)
    assert card.n_heads > card.n_kv_heads > 1
    assert {card.hidden_size % 64, card.intermediate_size % 64} == {0}
    assert card.n_params < real.n_params / 200
    assert (card.context, card.n_sliding_layers) == (32768, 0)  # the window that config.json names is switched off
    folder = models.checkpoint(card)
    files = sorted(folder.glob("*.safetensors"))
    assert (len(files) > 1) == (not card.tied) == (folder / "model.safetensors.index.json").is_file()
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118  (no mapping)
                weight = tensors.get_tensor(key)
                assert weight.dtype == torch.bfloat16
                assert not key.endswith("bias") or weight.abs().max() > 0
    tokenizer = models.load_tokenizer(card)
    assert len(tokenizer) < card.vocab_size  # as in Qwen2.5: some ids are no token
    generation = precisions.load(card, "bf16", "bfloat16", "cpu").generation_config
    assert {tokenizer.decode(i) for i in eos_ids(tokenizer, generation, card.vocab_size)} == {"<|endoftext|>", "<|im_end|>"}
    ids = prompt_ids(tokenizer, [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+12?"}])
    assert tokenizer.decode(ids).endswith("<|im_start|>user\n1+12?<|im_end|>\n<|im_start|>assistant\n")


def test_standins_are_found_where_the_config_points_the_hub_and_made_once(made):
    study = config.load(*PERSONAS["rtx4090"])
    times = [f.stat().st_mtime_ns for f in sorted(made.folder.rglob("*.safetensors"))]
    folders = standins.build_standins(study, made.folder / "hub")
    assert [f.stat().st_mtime_ns for f in sorted(made.folder.rglob("*.safetensors"))] == times
    named = [(m["revision"], "models--" + m["repo"].replace("/", "--")) for m in study["models"]]
    assert [(f.name, f.parents[1].name) for f in folders] == named


@pytest.mark.parametrize("files", PERSONAS.values(), ids=PERSONAS)
def test_a_rehearsal_changes_problems_samples_device_and_names_only(files, tmp_path):
    study = config.load(*files)
    changes = standins.overlay(study, tmp_path / "p.jsonl", (6, 6), 4, "cpu")
    rehearsed = config.resolve(config.merge(study, changes))
    assert {key for key in study if study[key] != rehearsed[key]} == CHANGED
    for section, keys in {"dataset": {"source", "path", "n_study", "n_calibration"}, "sampling": {"samples", "device"}}.items():
        assert {key for key in study[section] if study[section][key] != rehearsed[section][key]} <= keys
    for old, new in zip(study["models"], rehearsed["models"], strict=True):
        assert {key for key in old if old[key] != new[key]} == {"name", "shape"}
        assert "Qwen" not in new["name"]  # nobody takes these numbers for a real model's
    precisions.check_models(rehearsed)


def test_a_model_that_is_not_the_hubs_has_no_standin(tmp_path):
    with pytest.raises(InputError, match="models ladder-30k: source ladder needs no stand-in"):
        standins.build_standins(config.load(BASE), tmp_path)


def test_quanto_without_calibration_problems_is_refused_before_any_job():
    study = config.merge(config.load(*PERSONAS["rtx4090"]), {"dataset": {"n_calibration": 0}})
    with pytest.raises(InputError, match=r"models Qwen2\.5-1\.5B-Instruct: quanto-int8 takes .* set dataset\.n_calibration"):
        precisions.check_models(config.resolve(study))


def blocks(kind):
    """Fenced blocks of the page."""
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize("name", PERSONAS)
def test_the_page_shows_what_the_plan_says_now(name, tmp_path):
    said = io.StringIO()
    study = config.load(*PERSONAS[name])
    device = "RTX-4090" if study["plan"]["device"] is None else None
    plan_text.show(plan_text.make_plan(plan_inputs.read_inputs(study, tmp_path, device), study["plan"]["resolve_points"], 1), said)
    lines = [line.rstrip() for line in said.getvalue().strip().splitlines()]
    assert lines in [block.strip().splitlines() for block in blocks("text")], "copy flopstat plan's output into docs/gpu.md again"


def test_the_pages_config_files_targets_and_commands_exist():
    shell = "\n".join(blocks("sh"))
    assert {ROOT / path for path in re.findall(r"\b(?:config|workflow)/[\w./-]+", shell) if not (ROOT / path).exists()} == set()
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z0-9-]+)", shell)) <= targets
    for line in re.findall(r"^(?:.*\s)?flopstat (.*)$", shell, flags=re.MULTILINE):
        words = shlex.split(line, comments=True)
        shown = CliRunner().invoke(cli.app, [words[0], "--help"], env={"COLUMNS": "300"}).stdout
        assert {word for word in words if word.startswith("--")} <= set(re.findall(r"--[a-z-]+", shown)), line


def test_an_overlay_is_plain_yaml_and_names_the_problems(made):
    assert made.config["study"] == "rehearsal-qwen2.5-gsm8k-rtx4090"
    rows = [json.loads(line) for line in (made.folder / "problems-12.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 12
    assert all(set(row) == {"question", "answer"} for row in rows)
    assert BASE not in made.files
    assert made.chains == 12 * 5
