"""The sampling command under hostile conditions: a clear line and the right exit code each time, and nothing that was stored is lost."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from flopstat import cells, cli, models, stored, tables
from flopstat.columns import TABLES
from flopstat.config import resolve, section
from flopstat.engine import NEAR_TIE
from flopstat.errors import InputError
from flopstat.forcing import Plan
from flopstat.grading import FAILED, count_states, grade_chains
from flopstat.problems import select_problems
from flopstat.randomness import inverse_cdf, truncated_probabilities, uniforms
from flopstat.sampling import draw_samples, open_arm, prompt_ids, write_view

PROMPT = {"system": "", "instruction": "{question}", "answer_cue": ""}
DATASET = {"source": "ladder", "max_steps": 3, "distractors": 0, "n_study": 4, "n_calibration": 0}


@pytest.fixture(scope="module")
def chosen():
    return select_problems(DATASET, [PROMPT], 3).problems


@pytest.fixture
def folder(saved_model, tmp_path):
    """A model folder that a test may break."""
    copy = tmp_path / "model"
    shutil.copytree(saved_model(tie_word_embeddings=False), copy)
    return copy


def described(folder):
    return models.describe({"name": "m", "source": "local", "path": str(folder)}, folder.parent)


def settings_of(T=(24,), budgets=None, **sampling):
    filled = {"samples": 3, "device": "cpu", "batch_rows": 4, "shard_problems": 100} | sampling
    return {"sampling": section("sampling", filled), "budgets": section("budgets", {"T": list(T)} | (budgets or {})), "seed": 5}


def arm_of(card, store, precision="fp32", calibration=(), **changes):
    wanted = settings_of(**changes)
    plan = Plan.of(wanted["sampling"], wanted["budgets"], wanted["seed"])
    return open_arm(card, precision, wanted["sampling"], plan, store, calibration)


@pytest.fixture
def command(tmp_path, chosen):
    """Write the files of a `flopstat sample` command; returns its arguments, any of them replaced."""

    def make(model, results=tmp_path / "results", **changes):
        for made in (tmp_path / "study", results):
            made.mkdir(exist_ok=True)
        tables.write(chosen, "problems", tmp_path / "study" / "problems.parquet")
        (tmp_path / "study" / "card.json").write_text(model.to_json(), encoding="utf-8")
        named = {
            "problems": tmp_path / "study" / "problems.parquet",
            "card": tmp_path / "study" / "card.json",
            "precision": "fp32",
            "settings": json.dumps(settings_of()),
            "shard": 0,
            "store": results / "pools",
            "out": results / "view.parquet",
            "summary": results / "summary.json",
        }
        return ["sample", *(str(v) for name, value in (named | changes).items() for v in (f"--{name}", value))]

    return make


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process; returns exit code and the lines of flopstat on stderr. A traceback is a failure."""

    def call(arguments):
        monkeypatch.setattr(sys, "argv", ["flopstat", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main()
        lines = [line for line in capsys.readouterr().err.splitlines() if line and not line.startswith("Loading weights")]
        return left.value.code or 0, lines

    return call


def refused(run, arguments, *words, codes=(2,)):
    """The command ends with one of the codes and one line that holds the words."""
    code, lines = run(arguments)
    assert code in codes
    assert len(lines) == 1
    assert lines[0].startswith("flopstat: ")
    for word in words:
        assert word in lines[0]


# --- prompts and tokenizers -------------------------------------------------------------------------------------------


def tokenizer_config(folder, **changes):
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}), encoding="utf-8")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{# nothing #}", ["renders an empty prompt", "chat_template"]),
        ("", ["m: its tokenizer has no chat template"]),
        (None, ["m: its tokenizer has no chat template"]),
        ("{{ raise_exception('System role not supported') }}", ["System role not supported", "chat template"]),
        ("{% for %}", ["chat template"]),
    ],
    ids=["renders nothing", "empty", "absent", "refuses the messages", "no template at all"],
)
def test_chat_template_that_gives_no_prompt(folder, command, run, template, words):
    tokenizer_config(folder, chat_template=None)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    refused(run, command(described(folder)), *words)


def test_no_end_of_sequence_token(folder, command, run):
    tokenizer_config(folder, eos_token=None)
    refused(run, command(described(folder)), "m: its tokenizer has no end-of-sequence token")


def test_prompt_longer_than_the_context(folder, saved_model, command, run):
    card = described(folder)
    longest = max(len(prompt_ids(models.load_tokenizer(card), [{"role": "user", "content": q}])) for q in ("1+1=?", "2+2=?"))
    assert longest > 4
    small = described(saved_model(max_position_embeddings=4))
    refused(run, command(small), "m: a prompt of", "exceed its context of 4", "lower budgets.T")
    forced = {"forcing": "force_answer", "answer_prompt": " ####", "answer_tokens": 6}
    for T, budgets in (([card.context], None), ([200], forced | {"answer_tokens": 200})):
        refused(run, command(card, settings=json.dumps(settings_of(T=T, budgets=budgets))), f"exceed its context of {card.context}")


# --- numbers that are not finite --------------------------------------------------------------------------------------


def with_nan(folder, token):
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"][token] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("everywhere", [False, True], ids=["in some chains", "in every prompt"])
def test_nan_weights_give_failed_chains_and_no_accuracy(folder, chosen, tmp_path, everywhere):
    card = described(folder)
    before = arm_of(card, tmp_path / "pools", T=[8, 24])
    draw_samples(chosen, before)
    write_view(before, chosen, tmp_path / "view.parquet")
    ids = np.concatenate(pq.read_table(tmp_path / "view.parquet")["ids"].to_numpy())
    prompts = [prompt_ids(before.tokenizer, json.loads(m)) for m in chosen["messages"]]
    common = set(prompts[0]).intersection(*prompts)
    drawn = [t for t in np.argsort(-np.bincount(ids)).tolist() if t not in {t for p in prompts for t in p} and t not in before.ends]
    with_nan(folder, min(common) if everywhere else drawn[0])
    card = described(folder)
    assert card.weights_sha256 != before.card.weights_sha256

    forced = {"forcing": "force_answer", "answer_prompt": " ####", "answer_tokens": 6}
    arm = arm_of(card, tmp_path / "pools", T=[8, 24], budgets=forced)
    account = draw_samples(chosen, arm)
    write_view(arm, chosen, tmp_path / "view.parquet")
    view = pq.read_table(tmp_path / "view.parquet")
    tables.validate(view.select(list(TABLES["samples"])).to_pandas(), "samples")
    chains = view.filter(pc.equal(view["budget"], 0)).to_pandas()
    broken = chains["finish_reason"] == "engine_error"
    assert account["failed"] == (view["finish_reason"].to_numpy() == "engine_error").sum()
    stored = arm.pool.rows(chosen["problem_key"], 24)
    assert pc.sum(pc.equal(stored["finish_reason"], "engine_error")).as_py() == broken.sum()
    if everywhere:
        assert broken.all()
        assert (chains["n_tokens"] == 0).all()
    else:
        assert 0 < broken.sum() < len(chains)
    again = arm_of(card, tmp_path / "pools", T=[8, 24], budgets=forced)
    assert draw_samples(chosen, again)["chains_drawn"] == 0  # a failed chain is a result: it is not drawn for ever
    graded = grade_chains(view, chosen, [8, 24], folder / "tokenizer.json", " ####")
    tables.validate(graded.assign(model="m", precision="fp32"), "grades")
    assert (graded["state"] == "engine_error").sum() >= broken.sum()
    of = dict(zip(chosen["problem_key"], chosen["problem_id"], strict=True))
    lengths = {(of[r.problem_key], r.sample): r.n_tokens for r in chains[broken].itertuples()}
    within = [lengths.get((row.problem_id, row.sample), 10**9) <= row.T for row in graded.itertuples()]
    assert (graded.loc[within, "state"] == "engine_error").all()
    for t in (8, 24):
        counts = count_states(graded.loc[graded["T"] == t, "state"])
        assert counts["n_asked"] == len(chosen) * 4
        assert counts["n_failed"] == graded.loc[graded["T"] == t, "state"].isin(FAILED).sum()
    assert not graded.loc[graded["state"] == "engine_error", "correct"].any()

    study = {
        "study": "broken",
        "dataset": DATASET,
        "models": [{"name": "m", "source": "local", "path": str(folder), "precisions": ["fp32"]}],
        "sampling": {"samples": 3},
        "budgets": {"T": [24], "T_recipe": [24], "P": [1, 2], "B": [1]},
        "statistics": {"replicates": 200},
    }
    config = resolve(study) | {"samples": 3}
    facts = cells.ArmFacts(card, "fp32", 32.0, 2.1, (3.0, 2.5, 3.5))
    with pytest.raises(InputError, match=r"m@fp32, T = 24: \d+ of \d+ chains failed, more than 1%"):
        cells.estimate_arm(graded, chosen, facts, config)
    whole = graded.assign(state=graded["state"].replace({"engine_error": "no_answer"}))
    assert not cells.estimate_arm(whole, chosen, facts, config)[0].empty  # the failed chains alone stopped it


# --- disks ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(small_disk):
    return small_disk("256k")


def fill(place, left):
    """Leave so many bytes on a disk."""
    state = os.statvfs(place)
    (place / "filler").write_bytes(bytes(state.f_bavail * state.f_frsize - left))


def test_a_full_disk_of_the_pools_keeps_what_is_stored(folder, disk, command, run, tmp_path):
    place, _ = disk
    card = described(folder)
    fill(place, 24 << 10)
    arguments = command(card, store=place / "pools")
    refused(run, arguments, "No space left on device; free some space", str(place / "pools"), "Finished chains are kept", codes=(1, 2))
    assert not (tmp_path / "results" / "view.parquet").exists()
    kept = sum(path.stat().st_size for path in place.glob("pools/*/chains-*.log"))
    assert kept > 0
    (place / "filler").unlink()
    assert run(arguments)[0] == 0
    summary = json.loads((tmp_path / "results" / "summary.json").read_text(encoding="utf-8"))
    assert 0 < summary["chains_stored"] < summary["chains_asked"] == summary["chains_stored"] + summary["chains_drawn"]
    assert summary["torn_records"] == 0
    assert len(pq.read_table(tmp_path / "results" / "view.parquet")) == summary["chains_asked"]


@pytest.mark.parametrize("left", [0, 8 << 10])
def test_a_full_disk_of_the_views_keeps_what_is_stored(folder, disk, command, run, tmp_path, left):
    place, _ = disk
    card = described(folder)
    arguments = command(card, results=place, store=tmp_path / "pools")
    fill(place, left)
    refused(run, arguments, "No space left on device", str(place), codes=(1, 2))
    assert not (place / "view.parquet").exists()
    (place / "filler").unlink()
    assert run(arguments)[0] == 0
    summary = json.loads((place / "summary.json").read_text(encoding="utf-8"))
    assert summary["chains_drawn"] == 0
    whole = {"summary.json", "view.parquet"}
    assert {path.name for path in place.iterdir()} == whole | {stored.seal_of(place / name).name for name in whole}


@pytest.mark.parametrize("also", ["new chains", "none"])
def test_read_only_results(folder, disk, command, run, also):
    place, mount = disk
    card = described(folder)
    assert run(command(card, results=place))[0] == 0
    before = {path.relative_to(place): path.read_bytes() for path in place.rglob("*") if path.is_file()}
    assert mount("remount,ro").returncode == 0
    settings = settings_of(samples=4) if also == "new chains" else settings_of()
    refused(run, command(card, results=place, settings=json.dumps(settings)), "Read-only file system", str(place), codes=(1, 2))
    assert {path.relative_to(place): path.read_bytes() for path in place.rglob("*") if path.is_file()} == before


# --- two writers ------------------------------------------------------------------------------------------------------


def start(arguments, log):
    with log.open("wb") as stream:
        line = [sys.executable, "-m", "flopstat.cli", *arguments]
        return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=stream, env=os.environ | {"OMP_NUM_THREADS": "1"})


def wait_for(condition, process):
    end = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.mark.slow
def test_two_writers_at_once(folder, command, tmp_path):
    """The first is stopped while it holds the pool, so that the second has to wait whatever the machine's speed."""
    card = described(folder)
    store = tmp_path / "pools"
    first, second = (command(card, results=tmp_path / name, store=store) for name in ("a", "b"))
    logs = tmp_path / "a.log", tmp_path / "b.log"
    one = start(first, logs[0])
    try:
        wait_for(lambda: list(store.glob("*/chains-*.log")), one)
        one.send_signal(signal.SIGSTOP)
        assert one.poll() is None
        two = start(second, logs[1])
        try:
            wait_for(lambda: "is being written by another process; waiting for it" in logs[1].read_text(encoding="utf-8"), two)
            one.send_signal(signal.SIGCONT)
            assert (one.wait(120), two.wait(120)) == (0, 0)
        finally:
            two.kill()
            two.wait()
    finally:
        one.kill()
        one.wait()
    assert "waiting" not in logs[0].read_text(encoding="utf-8")
    views = [pq.read_table(tmp_path / name / "view.parquet") for name in ("a", "b")]
    assert views[0].equals(views[1])
    keys = views[0].select(["problem_key", "sample", "budget"]).to_pylist()
    assert len({tuple(key.values()) for key in keys}) == len(keys) == 16
    accounts = [json.loads((tmp_path / name / "summary.json").read_text(encoding="utf-8")) for name in ("a", "b")]
    assert [(a["chains_stored"], a["chains_drawn"]) for a in accounts] == [(0, 16), (16, 0)]


# --- weights ----------------------------------------------------------------------------------------------------------


def test_weights_that_changed_under_their_name(folder, command, run, tmp_path):
    card, weights = described(folder), folder / "model.safetensors"
    arguments = command(card)
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    refused(run, arguments, "the weights of m changed since it was described", "run again")
    assert not list(tmp_path.glob("results/pools/*/chains-*"))
    assert not (tmp_path / "results" / "view.parquet").exists()


def test_a_folder_with_pickles_only(folder, command, run):
    arguments = command(described(folder))
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"no safetensors weights \(found pytorch_model\.bin: pickles are refused"):
        described(folder)
    refused(run, arguments, str(folder), "run again")  # the card was made before


def test_pickles_beside_the_weights_are_never_run(folder, chosen, tmp_path):
    marker = tmp_path / "it_ran"

    class Malicious:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    for name in ("pytorch_model.bin", "model.pt", "model.ckpt", "tokenizer.pkl", "training_args.bin", "optimizer.pth"):
        (folder / name).write_bytes(pickle.dumps(Malicious()))
    (folder / "modeling_qwen2.py").write_text(f"import os; os.system('touch {marker}')", encoding="utf-8")
    arm = arm_of(described(folder), tmp_path / "pools")
    draw_samples(chosen, arm)
    write_view(arm, chosen, tmp_path / "view.parquet")
    assert not marker.exists()
    pickle.loads((folder / "model.pt").read_bytes())
    assert marker.exists()  # it would have


# --- arguments --------------------------------------------------------------------------------------------------------


def without(settings, *path):
    *outer, last = path
    part = settings
    for key in outer:
        part = part[key]
    del part[last]
    return json.dumps(settings)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"precision": "int7"}, "int7"),
        ({"precision": "rtn99"}, "rtn99"),
        ({"precision": "gguf-q4_0"}, "gguf-q4_0"),
        ({"settings": "{"}, "--settings"),
        ({"settings": "[]"}, "--settings"),
        ({"settings": without(settings_of(), "seed")}, "seed"),
        ({"settings": without(settings_of(), "sampling", "temperature")}, "temperature"),
        ({"problems": "absent.parquet"}, "absent.parquet"),
        ({"card": "absent.json"}, "absent.json"),
        ({"shard": 9}, "shard"),
        ({"shard": -1}, "shard"),
    ],
    ids=lambda value: "-".join(map(str, next(iter(value.items()))))[:30] if isinstance(value, dict) else "",
)
def test_a_bad_argument_is_one_line(shipped, command, run, tmp_path, changes, word):
    refused(run, command(shipped("ladder-30k"), **changes), word)
    assert not list(tmp_path.glob("results/pools/*/chains-*"))
    assert not (tmp_path / "results" / "view.parquet").exists()


@pytest.mark.parametrize(("name", "content"), [("card", "{"), ("card", "{}"), ("problems", "no parquet")])
def test_a_broken_file_is_one_line(shipped, command, run, tmp_path, name, content):
    arguments = command(shipped("ladder-30k"))
    path = tmp_path / "study" / {"card": "card.json", "problems": "problems.parquet"}[name]
    path.write_text(content, encoding="utf-8")
    refused(run, arguments, str(path))


def test_a_model_folder_that_is_gone(folder, command, run):
    arguments = command(described(folder))
    shutil.rmtree(folder)
    refused(run, arguments, str(folder))


# --- a checkpoint of Qwen2.5's make -----------------------------------------------------------------------------------

PRECISIONS = ("fp32", "bf16", "fp16", "int8", "nf4", "fp4", "nf4-dq", "fp4-dq", "quanto-int8", "torchao-int8", "rtn2", "rtn4", "rtn8")


@pytest.fixture(scope="module")
def qwen_that_listens(qwen_like, tmp_path_factory):
    """The Qwen-like checkpoint with larger matrices in its layers: as it is, it repeats its last token, whatever stands in the cache."""
    copy = tmp_path_factory.mktemp("qwen") / "model"
    shutil.copytree(models.checkpoint(qwen_like), copy)
    weights = load_file(copy / "model.safetensors")
    layers = {name: 8 * weight if "layers" in name and weight.ndim == 2 else weight for name, weight in weights.items()}
    save_file(layers, copy / "model.safetensors", {"format": "pt"})
    return described(copy)


@pytest.mark.parametrize(("precision", "offload"), [*((p, "none") for p in PRECISIONS), *((p, "disk") for p in ("fp32", "bf16", "rtn3"))])
def test_qwen_like_chains_do_not_depend_on_the_batch(qwen_that_listens, chosen, tmp_path, precision, offload):
    problems, memory = chosen.iloc[:2], "1MiB" if offload == "disk" else None
    views = []
    for rows in (3, 1, 8):
        arm = arm_of(
            qwen_that_listens,
            tmp_path / str(rows),
            precision,
            calibration=chosen["messages"].tolist(),
            T=[6],
            samples=2,
            temperature=0.05,  # sharp: over 151,936 tokens as good as equal each draw would be a near-tie
            top_k=20,
            batch_rows=rows,
            offload=offload,
            device_memory=memory,
        )
        account = draw_samples(problems, arm)
        assert (account["chains_drawn"], account["failed"], account["batch_rows"]) == (6, 0, min(rows, 6))
        if offload == "disk":
            assert all(parameter.device.type == "meta" for parameter in arm.engine.model.parameters())
        write_view(arm, problems, tmp_path / "view.parquet")
        views.append(pq.read_table(tmp_path / "view.parquet").to_pandas())
    sampled = views[0][views[0]["sample"] >= 0]
    assert len({tuple(ids) for ids in sampled["ids"]}) == 4
    assert sampled["n_tokens"].sum() > 12
    assert views[0]["near_ties"].sum() <= 2  # so that an equal id means something
    for other in views[1:]:
        for old, new in zip(views[0].itertuples(), other.itertuples(), strict=True):
            assert (old.problem_key, old.sample, old.prompt_tokens) == (new.problem_key, new.sample, new.prompt_tokens)
            if old.ids.tolist() == new.ids.tolist():
                # Ids are coarse. One place too many that a row sees moves these by 3e-5 and more. Kernels of four and eight bits round the
                # activations too: there a last bit can tip a rounding, which moves a logit by some 1e-3.
                rounds = precision.startswith(("nf4", "fp4", "int8", "quanto"))
                np.testing.assert_allclose(new.logprob, old.logprob, rtol=0, atol=1e-2 if rounds else 1e-5)
            else:
                first = int(np.argmin(old.ids[: new.n_tokens] == new.ids[: old.n_tokens]))
                assert margin(arm, problems, old, first) < NEAR_TIE


@torch.inference_mode()
def margin(arm, problems, row, t):
    """By how much the token at t of a chain was drawn, from one pass over all before it."""
    prompt = prompt_ids(arm.tokenizer, json.loads(problems.set_index("problem_key").loc[row.problem_key, "messages"]))
    logits = arm.engine.model(torch.tensor([[*prompt, *row.ids[:t].tolist()]])).logits[:, -1]
    if row.sample < 0:
        best = logits.double().softmax(-1).topk(2).values[0]
        return float(best[0] - best[1])
    s = arm.plan.settings
    u = uniforms(s.seed, row.problem_key, row.sample, s.max_tokens)[t]
    p = truncated_probabilities(logits, s.temperature, s.top_p, s.top_k, s.min_p)
    return float(inverse_cdf(p, torch.tensor([u], dtype=torch.float64))[1])
