"""Precisions: what each does to the weights, what it costs in bits, where it is refused, and offload that changes nothing."""

import dataclasses
import shutil
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from transformers import DynamicCache

from flopstat import config, precisions
from flopstat.errors import InputError
from flopstat.models import load_tokenizer
from flopstat.precisions import load

IDS = torch.tensor([[1, 40, 30, 6, 3, 77, 200, 12]])
CALIBRATION = [[1, 40, 30, 6], [2, 77, 200, 12, 5, 9]]
# From the finest to the coarsest grid.
PRECISIONS = ("fp32", "fp16", "bf16", "torchao-int8", "rtn8", "int8", "quanto-int8", "rtn7", "rtn6", "rtn5", "nf4", "nf4-dq", "rtn4")
PRECISIONS += ("fp4", "fp4-dq", "rtn3", "rtn2")
QUANTIZED = tuple(precisions.QUANTIZERS)


@torch.inference_mode()
def last_logits(model, ids=IDS):
    return model(input_ids=ids, logits_to_keep=1).logits[:, -1]


@pytest.fixture(scope="module")
def arms(qwen_like):
    """The Qwen-like model by precision: last logits, effective bits before and after the first product, whether the head is tied."""
    out = {}
    for precision in PRECISIONS:
        model = load(qwen_like, precision, "float32", "cpu", calibration_ids=CALIBRATION)
        bits = precisions.effective_bits(model, qwen_like, precision)
        logits = last_logits(model)
        tied = model.lm_head.weight is model.model.embed_tokens.weight
        out[precision] = (logits, bits, precisions.effective_bits(model, qwen_like, precision), tied)
    return out


@pytest.fixture(scope="module")
def exact(qwen_like):
    return last_logits(load(qwen_like, "fp32", "float64", "cpu"))


@given(st.integers(0, 10**6), st.integers(2, 8), st.integers(1, 200))
def test_round_to_nearest(seed, bits, columns):
    weight = torch.randn((3, columns), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    weight[1] = 0
    out = precisions.round_to_nearest(weight, bits)
    top = 2 ** (bits - 1) - 1
    for start in range(0, columns, 64):
        part, rounded = weight[:, start : start + 64], out[:, start : start + 64]
        scale = part.abs().amax(dim=1, keepdim=True) / top
        assert ((part - rounded).abs() <= scale / 2 * (1 + 1e-9)).all()
        levels = rounded / scale.clamp(min=1e-30)
        assert (levels - levels.round()).abs().max() < 1e-6
        assert levels.abs().max() <= top + 1e-6
    assert (out[1] == 0).all()
    torch.testing.assert_close(precisions.round_to_nearest(out, bits), out, rtol=1e-12, atol=0)  # idempotent
    torch.testing.assert_close(precisions.round_to_nearest(-weight, bits), -out, rtol=0, atol=0)


def test_qwen_like_checkpoint_talks_as_qwen_does(qwen_like):
    tokenizer = load_tokenizer(qwen_like)
    text = tokenizer.apply_chat_template([{"role": "user", "content": "1+1?"}], tokenize=False, add_generation_prompt=True)
    system = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    start, end = "<|im_start|>", "<|im_end|>\n"
    assert text == f"{start}system\n{system}{end}{start}user\n1+1?{end}{start}assistant\n"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text
    named = tokenizer.convert_tokens_to_ids([start, end.strip()])
    assert [ids.count(i) for i in named] == [3, 2]
    assert tokenizer.eos_token == "<|im_end|>"
    assert (qwen_like.vocab_size, qwen_like.n_heads, qwen_like.n_kv_heads, qwen_like.tied) == (151_936, 4, 2, True)


@pytest.mark.parametrize(
    ("precision", "low", "high"),
    [
        ("fp32", 32, 32),
        ("bf16", 16, 16),
        ("int8", 8, 12),
        ("quanto-int8", 8, 12),
        ("torchao-int8", 8, 12),
        ("nf4", 4, 8),
        ("fp4", 4, 8),
        ("rtn8", 8, 10),
        ("rtn4", 4, 6),
        ("rtn3", 3, 5),
    ],
)
def test_effective_bits_and_how_far_a_precision_moves_the_weights(shipped, precision, low, high):
    """Embeddings and scales are counted, so a small model lies above the nominal bits; coarser grids move more."""
    card = shipped("ladder-160k")
    ids = torch.tensor([[2, 40, 30, 6, 3]])
    model = load(card, precision, "float32", "cpu", calibration_ids=[[2, 40, 30, 6, 3]])
    bits = precisions.effective_bits(model, card, precision)
    assert low <= bits <= high
    if precision not in ("fp32", "bf16"):
        assert bits > low
    exact = last_logits(load(card, "fp32", "float32", "cpu"), ids)
    error = float((last_logits(model, ids) - exact).norm() / exact.norm())
    assert error == 0 if precision == "fp32" else 1e-4 < error < 0.9  # three bits nearly destroy this model


def test_every_precision_runs_a_qwen_like_checkpoint_and_coarser_grids_are_further_from_it(arms, exact):
    error = {precision: float((logits - exact).norm() / exact.norm()) for precision, (logits, *_) in arms.items()}
    assert all(torch.isfinite(logits).all() for logits, *_ in arms.values())
    assert error["fp32"] < 1e-6 < error["fp16"] < error["bf16"]
    eight = max(error[p] for p in ("torchao-int8", "int8", "quanto-int8", "rtn8"))
    four = [error[p] for p in ("nf4", "nf4-dq", "fp4", "fp4-dq", "rtn4")]
    assert error["bf16"] < eight < min(four) < max(four) < error["rtn2"]
    assert error["rtn8"] < error["rtn7"] < error["rtn6"] < error["rtn5"] < error["rtn4"] < error["rtn3"] < error["rtn2"] < 2
    assert error["nf4"] < error["fp4"]  # the weights are normal, and nf4's levels are made for that
    for kind in ("nf4", "fp4"):
        assert error[f"{kind}-dq"] == pytest.approx(error[kind], rel=0.1)


def test_head_stays_tied_at_every_precision(arms):
    assert all(tied for *_, tied in arms.values())


def test_effective_bits_by_hand(qwen_like, arms):
    """Every layer: queries 128×128, keys and values 64×128, output 128×128, gate and up 256×128, down 128×256. All else lies in float32."""
    shapes = [(128, 128), (64, 128), (64, 128), (128, 128), (256, 128), (256, 128), (128, 256)] * 2
    n = sum(rows * columns for rows, columns in shapes)
    rows = sum(rows for rows, _ in shapes)
    other = qwen_like.n_params - n
    assert other == 151_936 * 128 + 2 * (128 + 64 + 64) + 5 * 128
    level_table = 16 * 32
    double = sum(8 * (r * c // 64) + 32 * -(-r * c // 64 // 256) + 256 * 32 + 32 for r, c in shapes)
    by_hand = {"fp32": 32 * n + 32 * other, "fp16": 16 * n + 16 * other, "bf16": 16 * n + 16 * other}
    by_hand |= {f"rtn{k}": k * n + 16 * n // 64 + 16 * other for k in range(2, 9)}
    by_hand["int8"] = 8 * n + 32 * rows + 32 * other
    by_hand["quanto-int8"] = by_hand["int8"] + 2 * 32 * len(shapes)  # input and output scale of each layer
    by_hand["torchao-int8"] = 8 * n + (32 + 8) * rows + 32 * other  # one zero point per row
    for kind in ("nf4", "fp4"):
        by_hand[kind] = 4 * n + 32 * n // 64 + level_table * len(shapes) + 32 * other
        by_hand[f"{kind}-dq"] = 4 * n + double + level_table * len(shapes) + 32 * other
    assert set(by_hand) == set(arms)
    for precision, (_, bits, after, _) in arms.items():
        assert bits == pytest.approx(by_hand[precision] / qwen_like.n_params, rel=1e-12), precision
        assert after == bits, precision  # bitsandbytes packs four bits anew at the first product


def test_effective_bits_of_a_model_that_load_did_not_make(qwen_like, arms):
    model = load(qwen_like, "int8", "float32", "cpu")
    del model.bits_effective
    assert precisions.effective_bits(model, qwen_like, "int8") == arms["int8"][1]
    with pytest.raises(InputError, match="gguf-q4_1 without a GGUF file"):
        precisions.effective_bits(model, qwen_like, "gguf-q4_1")


@pytest.mark.parametrize("precision", QUANTIZED)
@pytest.mark.parametrize("compute_dtype", ["bfloat16", "float16", "float64"])
def test_quantised_layers_compute_in_every_dtype_of_their_library(shipped, precision, compute_dtype):
    card = shipped("ladder-160k")
    if compute_dtype not in precisions.support(precision).compute_dtypes:
        library = precisions.support(precision).library
        with pytest.raises(
            InputError, match=rf"^models ladder-160k: {precision} is not possible here: {library} does not compute in float64; "
        ):
            load(card, precision, compute_dtype, "cpu")
        return
    logits = last_logits(load(card, precision, compute_dtype, "cpu"), IDS % 69)
    assert logits.dtype == getattr(torch, compute_dtype)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("precision", QUANTIZED)
def test_a_quantised_row_does_not_depend_on_its_batch(shipped, precision):
    model = load(shipped("ladder-160k"), precision, "float32", "cpu", calibration_ids=[[2, 40, 30, 6, 3]])
    ids = IDS % 69
    rows = torch.cat([ids.flip(1), ids, ids.roll(3, 1), ids])
    torch.testing.assert_close(last_logits(model, rows)[1], last_logits(model, ids)[0], rtol=1e-4, atol=1e-5)


def test_quanto_scales_come_from_the_prompts_alone(shipped):
    card = shipped("ladder-160k")

    def scales(ids):
        model = load(card, "quanto-int8", "float32", "cpu", calibration_ids=ids)
        return torch.stack([buffer for name, buffer in model.named_buffers() if name.endswith("put_scale")])

    first = scales([[2, 40, 30], [2, 5, 6, 7]])
    assert len(first) == 2 * 7 * 3
    assert torch.equal(first, scales([[2, 40, 30], [2, 5, 6, 7]]))
    assert not torch.equal(first, scales([[2, 40, 30], [2, 5, 6, 8]]))
    assert torch.equal(scales(None), scales(precisions.speed_ids(card.vocab_size)))
    assert {i for ids in precisions.speed_ids(69) for i in ids} == set(range(69))


# --- offload ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "rtn4", "gguf-q4_1"])
def test_offload_to_disk_gives_the_very_same_logits(qwen_like, arms, precision, tmp_path):
    card = dataclasses.replace(qwen_like, stored_bits=5.0)
    model = load(card, precision, "float32", "cpu", offload="disk", device_memory="1MiB", offload_folder=tmp_path)
    assert all(parameter.device.type == "meta" for parameter in model.parameters())
    assert torch.equal(last_logits(model), arms["fp32" if precision.startswith("gguf") else precision][0])
    assert precisions.effective_bits(model, card, precision) == (5.0 if precision.startswith("gguf") else arms[precision][1])
    copied = (
        [] if precision in ("fp32", "gguf-q4_1") else [f"qwen-like-{card.weights_sha256[:16]}-{card.config_sha256[:8]}-{precision}-float32"]
    )
    assert [folder.name for folder in tmp_path.iterdir()] == copied
    for file in tmp_path.glob("*/*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            assert all(tensors.get_tensor(name).data_ptr() % precisions.ALIGNMENT == 0 for name in tensors.keys())  # noqa: SIM118


@pytest.mark.parametrize(
    ("precision", "compute_dtype"), [("fp32", "float64"), ("fp32", "bfloat16"), ("bf16", "bfloat16"), ("rtn3", "float16")]
)
def test_offload_of_a_part_and_with_a_cache(shipped, precision, compute_dtype, tmp_path):
    card = shipped("ladder-160k")
    kept = load(card, precision, compute_dtype, "cpu")
    size = {"float64": "1000KiB", "bfloat16": "250KiB", "float16": "250KiB"}[compute_dtype]
    moved = load(card, precision, compute_dtype, "cpu", offload="disk", device_memory=size, offload_folder=tmp_path)
    assert {parameter.device.type for parameter in moved.parameters()} == {"cpu", "meta"}
    logits = []
    for model in (kept, moved):
        cache = DynamicCache(config=model.config)
        with torch.inference_mode():
            model(input_ids=IDS % 69, past_key_values=cache)
            logits.append(model(input_ids=IDS[:, :1], past_key_values=cache).logits)
    assert torch.equal(*logits)
    assert bool(list(tmp_path.iterdir())) is (precision == "rtn3")  # nothing is copied that need not be rounded


def test_rounded_copy_is_made_once_and_a_torn_one_is_never_taken(shipped, tmp_path):
    card = shipped("ladder-160k")
    torn = tmp_path / f".ladder-160k-{card.weights_sha256[:16]}-{card.config_sha256[:8]}-rtn4-float32.1"
    torn.mkdir()
    settings = {"offload": "disk", "device_memory": "1KiB", "offload_folder": tmp_path}
    first = last_logits(load(card, "rtn4", "float32", "cpu", **settings), IDS % 69)
    (copied,) = [p for p in tmp_path.iterdir() if p != torn]
    before = {p: p.stat().st_mtime_ns for p in copied.iterdir()}
    assert torch.equal(last_logits(load(card, "rtn4", "float32", "cpu", **settings), IDS % 69), first)
    assert {p: p.stat().st_mtime_ns for p in copied.iterdir()} == before
    with pytest.raises(ValueError, match="rtn4 with offload disk needs an offload_folder"):
        load(card, "rtn4", "float32", "cpu", offload="disk")


def test_copy_that_another_job_finished_first_is_taken(shipped, tmp_path, monkeypatch):
    card, save, mine, other = shipped("ladder-160k"), precisions._save_aligned, tmp_path / "mine", tmp_path / "other"
    settings = {"offload": "disk", "device_memory": "1KiB"}
    expected = last_logits(load(card, "rtn4", "float32", "cpu", **settings, offload_folder=other), IDS % 69)

    def save_late(*arguments):
        shutil.copytree(other, mine, dirs_exist_ok=True)
        save(*arguments)

    monkeypatch.setattr(precisions, "_save_aligned", save_late)
    assert torch.equal(last_logits(load(card, "rtn4", "float32", "cpu", **settings, offload_folder=mine), IDS % 69), expected)
    assert [p.name for p in mine.iterdir()] == [p.name for p in other.iterdir()]


def test_enough_memory_offloads_nothing(shipped):
    model = load(shipped("ladder-160k"), "fp32", "float32", "cpu", offload="disk")
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}


@pytest.mark.parametrize("precision", QUANTIZED)
def test_quantised_weights_are_not_offloaded(shipped, precision):
    why = f"tensors of {precisions.support(precision).library} can't be offloaded"
    remedy = r"set sampling\.offload to none or use fp32, bf16, fp16, rtn2 to rtn8"
    with pytest.raises(InputError, match=rf"^models ladder-160k: {precision} is not possible here: {why}; {remedy}$"):
        load(shipped("ladder-160k"), precision, "float32", "cpu", offload="disk")


@pytest.mark.parametrize("precision", ["fp32", "rtn4", "int8"])
def test_offload_to_the_cpu_needs_a_device_of_its_own(shipped, precision):
    expected = r"^sampling\.offload cpu: nothing to offload from on cpu \(the weights are there already\); set it to disk or none$"
    with pytest.raises(InputError, match=expected):
        load(shipped("ladder-160k"), precision, "float32", "cpu", offload="cpu")
    with pytest.raises(InputError, match=r"nothing to offload from on mps \(mps shares the CPU's memory\)"):
        precisions.check_device("mps", "float32", "cpu")
    precisions.check_device("cuda", "float32", "cpu")


def test_rounding_is_not_offloaded_for_weights_that_go_by_other_names(shipped, tmp_path, monkeypatch):
    monkeypatch.setattr(precisions, "_rounded_names", lambda model, precision: {"model.layers.0.other.weight"})
    with pytest.raises(InputError, match=r"rtn4 can't be offloaded, its files do not hold model\.layers\.0\.other\.weight by that name"):
        load(shipped("ladder-160k"), "rtn4", "float32", "cpu", offload="disk", device_memory="1KiB", offload_folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["nf4", "fp4", "nf4-dq", "fp4-dq"])
def test_four_bits_are_refused_where_they_do_not_fit(shipped, precision):
    card = shipped("ladder-30k")
    found = r"multiple of 64 inputs on the cpu, found \[32, 96\]; use int8, quanto-int8 or rtn4"
    with pytest.raises(InputError, match=rf"^ladder-30k: {precision} needs matrices with a {found}$"):
        load(card, precision, "float32", "cpu")
    precisions.check_precision(shipped("ladder-160k"), precision)
    precisions.check_precision(card, precision, "cuda")
    precisions.check_precision(card, "int8")


@pytest.mark.parametrize("precision", ["int8", "nf4", "fp4-dq", "torchao-int8"])
def test_precision_without_kernels_for_the_device_is_refused_with_the_alternatives(precision):
    library = precisions.support(precision).library
    expected = rf"^models m: {precision} is not possible here: {library} runs on cpu and cuda, not on mps; use "
    with pytest.raises(InputError, match=expected + "fp32, bf16, fp16, quanto-int8, rtn2 to rtn8$"):
        precisions.check_support("m", precision, "mps", "float32", "none")


def test_float64_is_refused_on_mps():
    with pytest.raises(InputError, match=r"^sampling\.compute_dtype float64: mps has no such numbers; set it to float32, or"):
        precisions.check_device("mps", "float64", "none")


def test_bfloat16_is_refused_on_a_gpu_without_it(shipped, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    with pytest.raises(InputError, match=r"^sampling\.compute_dtype bfloat16: Tesla T4 has no bfloat16; set it to float16, as config/"):
        load(shipped("ladder-30k"), "bf16", "bfloat16", "cuda")


@pytest.fixture
def study():
    """A resolved study of one model; keys of the model and of sampling can be changed."""

    def make(model, **sampling):
        return config.resolve(
            {
                "study": "s",
                "dataset": {"source": "ladder"},
                "models": [{"name": "m", "source": "ladder", "precisions": ["fp32"]} | model],
                "budgets": {"T": [32]},
                "sampling": {"samples": 4, "device": "cpu"} | sampling,
            }
        )

    return make


def test_studies_are_checked_before_any_job(study, saved_model, tmp_path):
    narrow, wide = str(saved_model()), str(saved_model(hidden_size=64, intermediate_size=128))
    check = precisions.check_models
    for precision in ("nf4", "fp4-dq"):
        with pytest.raises(
            InputError, match=rf"^models m: {precision} needs matrices with a multiple of 64 inputs on the cpu, found \[32, 48\]; use"
        ):
            check(study({"source": "local", "path": narrow, "precisions": ["fp32", precision]}))
        check(study({"source": "local", "path": wide, "precisions": [precision]}))
        check(study({"source": "local", "path": narrow, "precisions": [precision]}, device="cuda"))
    with pytest.raises(InputError, match=r"^models ladder-30k: nf4 needs matrices"):
        check(study({"name": "ladder-30k", "precisions": ["nf4"]}))
    with pytest.raises(InputError, match="bitsandbytes runs on cpu and cuda, not on mps"):
        check(study({"name": "ladder-30k", "precisions": ["fp32", "int8"]}, device="mps"))
    with pytest.raises(InputError, match=r"torchao does not compute in float64; set sampling\.compute_dtype to float32 or use fp32, bf16,"):
        check(study({"name": "ladder-160k", "precisions": ["torchao-int8"]}, compute_dtype="float64"))
    with pytest.raises(InputError, match=r"sampling\.offload cpu: nothing to offload from on cpu"):
        check(study({"name": "ladder-160k"}, offload="cpu"))
    with pytest.raises(InputError, match="quanto-int8 is not possible here: tensors of optimum-quanto can't be offloaded"):
        check(study({"name": "ladder-160k", "precisions": ["quanto-int8"]}, offload="disk"))
    with pytest.raises(InputError, match="not a shipped ladder model"):
        check(study({}))
    # What can't be read is left to describe_model, which names it.
    (tmp_path / "config.json").write_text("[]", encoding="utf-8")
    for path in (tmp_path, tmp_path / "absent"):
        check(study({"source": "local", "path": str(path), "precisions": ["nf4"]}))


def test_gpu_study_passes_without_gpu_and_without_torch():
    """A dry-run takes no seconds."""
    code = (
        "import sys; from pathlib import Path; from flopstat import config, precisions; "
        "precisions.check_models(config.load(Path('config/config.yaml'), Path('config/studies/qwen2.5-gsm8k.yaml'))); "
        "sys.exit(bool({'torch', 'transformers', 'accelerate', 'bitsandbytes'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=config.ROOT, check=False).returncode == 0


def test_what_no_user_can_act_on_is_not_said(qwen_like, tmp_path):
    """torchao warns of CUDA libraries, bitsandbytes of every product."""
    path = tmp_path / "card.json"
    path.write_text(qwen_like.to_json(), encoding="utf-8")
    code = (
        "import torch; from pathlib import Path; from flopstat.models import ModelCard; from flopstat.precisions import load; "
        f"card = ModelCard.read(Path({str(path)!r})); "
        "[load(card, p, 'float32', 'cpu')(input_ids=torch.ones((1, 2), dtype=torch.long)) for p in ('torchao-int8', 'int8')]"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [line for line in done.stderr.splitlines() if "Loading weights" not in line and line.strip()] == []


def test_every_precision_of_the_schema_is_known():
    """The table and the schema name the same precisions; `unknown` is for imported samples, which nothing is loaded for."""
    pattern = config.schema()["properties"]["models"]["items"]["properties"]["precisions"]["items"]["pattern"]
    names = pattern.removeprefix("^(").removesuffix(r")$(?!\n)").replace("(nf4|fp4)(-dq)?", "nf4|fp4|nf4-dq|fp4-dq").split("|")
    assert set(names) == {*QUANTIZED, "fp32", "bf16", "fp16", "rtn[2-8]", "gguf-[a-z0-9_]+", config.UNKNOWN}
