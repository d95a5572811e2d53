"""Precisions: how weights are held, where each one runs, and how a model is loaded at one.

What a study asks for is checked three times, each as early as the facts are known: `check_models` reads the config and `config.json` files
alone, so that a dry-run takes no seconds; `load` looks at the device before it reads weights; the libraries have the last word.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import struct
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flopstat.config import Config
from flopstat.errors import InputError
from flopstat.models import LADDER, ModelCard, checkpoint, likely_device, loading, verify_settings, weight_files

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

BLOCK = 64  # weights that share one scale, of rtn and of bitsandbytes' four bits
ALIGNMENT = 64  # bytes that torch's own tensors begin at a multiple of
FREE_SHARE = 0.9  # of the free memory that weights may take where the config sets no limit; the rest is for the cache
_FLOATS = ("float32", "bfloat16", "float16", "float64")


@dataclass(frozen=True)
class Support:
    """What a library can do with a precision."""

    library: str  # as it is installed
    devices: tuple[str, ...]
    compute_dtypes: tuple[str, ...]
    offload: bool  # whether its tensors can be moved in and out by accelerate's hooks


_PLAIN = Support("torch", ("cpu", "cuda", "mps"), _FLOATS, True)
# Four bits: "Blockwise 4bit quantization only supports 16/32-bit floats". Offload: transformers refuses it but for modules left in floats.
_FOUR_BITS = Support("bitsandbytes", ("cpu", "cuda"), _FLOATS[:3], False)
QUANTIZERS = {
    "int8": Support("bitsandbytes", ("cpu", "cuda"), _FLOATS, False),
    "nf4": _FOUR_BITS,
    "fp4": _FOUR_BITS,
    "nf4-dq": _FOUR_BITS,
    "fp4-dq": _FOUR_BITS,
    "quanto-int8": Support("optimum-quanto", ("cpu", "cuda", "mps"), _FLOATS, False),
    "torchao-int8": Support("torchao", ("cpu", "cuda"), _FLOATS[:3], False),
}
KNOWN = re.compile("fp32|bf16|fp16|rtn[2-8]|gguf-.+|" + "|".join(QUANTIZERS))
_NAMED = ("fp32", "bf16", "fp16", *QUANTIZERS, "rtn2 to rtn8")


def support(precision: str) -> Support:
    """What can be done with a precision. Floats, rtnK and gguf-* are plain tensors and run wherever torch does."""
    return QUANTIZERS.get(precision, _PLAIN)


def emulated(precision: str, compute_dtype: str) -> bool:
    """Whether a precision shows only in the values: its weights are held and multiplied in the compute dtype, at that dtype's speed.

    So it is for rtnK and gguf-*, and for float precisions other than the compute dtype. bitsandbytes, quanto and torchao hold fewer bits
    and have kernels of their own, slow as they may be.
    """
    if precision in QUANTIZERS:
        return False
    return {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}.get(precision) != compute_dtype


def check_device(device: str, compute_dtype: str, offload: str) -> None:
    """Refuse what a kind of device can't do at any precision.

    Raises
    ------
    InputError
        For weights that are to move to the CPU from a device without memory of its own, and for float64 on mps.
    """
    if offload == "cpu" and device != "cuda":
        own = "the weights are there already" if device == "cpu" else "mps shares the CPU's memory"
        raise InputError(f"sampling.offload cpu: nothing to offload from on {device} ({own}); set it to disk or none")
    if device == "mps" and compute_dtype == "float64":
        raise InputError("sampling.compute_dtype float64: mps has no such numbers; set it to float32, or sampling.device to cpu")


def check_support(model: str, precision: str, device: str, compute_dtype: str, offload: str) -> None:
    """Refuse a precision that its library can't run with these settings.

    Raises
    ------
    InputError
        One line that names the model, the precision, the reason and the precisions that would do.
    """

    if not KNOWN.fullmatch(precision):
        raise InputError(f"models {model}: {precision} is no precision; use {', '.join(_NAMED)}")

    def able(one: Support) -> bool:
        return device in one.devices and compute_dtype in one.compute_dtypes and (one.offload or offload == "none")

    wanted = support(precision)
    if able(wanted):
        return
    others = ", ".join(name for name in _NAMED if able(support(name)))
    if device not in wanted.devices:
        why = f"{wanted.library} runs on {' and '.join(wanted.devices)}, not on {device}; use {others}"
    elif compute_dtype not in wanted.compute_dtypes:
        dtype = wanted.compute_dtypes[0]
        why = f"{wanted.library} does not compute in {compute_dtype}; set sampling.compute_dtype to {dtype} or use {others}"
    else:
        why = f"tensors of {wanted.library} can't be offloaded; set sampling.offload to none or use {others}"
    raise InputError(f"models {model}: {precision} is not possible here: {why}")


def _check_widths(name: str, widths: set[int], precision: str, device: str) -> None:
    if support(precision) is _FOUR_BITS and device == "cpu" and any(width % BLOCK for width in widths):
        found = sorted(widths)
        raise InputError(
            f"{name}: {precision} needs matrices with a multiple of {BLOCK} inputs on the cpu, found {found}; use int8, quanto-int8 or rtn4"
        )


def check_precision(card: ModelCard, precision: str, device: str = "cpu") -> None:
    """Refuse a precision that a model's shape does not allow.

    Raises
    ------
    InputError
        On the CPU bitsandbytes' four-bit products take whole blocks of 64 weights of a row: every matrix needs a multiple of 64 inputs.
    """
    _check_widths(card.name, {card.hidden_size, card.n_heads * card.head_dim, card.intermediate_size}, precision, device)


def check_models(config: Config) -> None:
    """Refuse, before any job, what files and a table can tell: ladder models that are not shipped, precisions that the device can't run.

    Takes no part of torch, needs no GPU for a study that names one, and leaves hub models' shapes and the device's abilities to `load`.

    Raises
    ------
    InputError
        One line that names the model or key and says what would do.
    """
    if config["archive"] is not None:  # nothing runs
        return
    sampling = config["sampling"]
    device, compute_dtype, offload = likely_device(sampling["device"]), sampling["compute_dtype"], sampling["offload"]
    check_device(device, compute_dtype, offload)
    for entry in config["models"]:
        if entry["source"] == "import":
            continue
        if entry["source"] == "ladder" and not (LADDER / entry["name"] / "config.json").is_file():
            shipped = sorted(p.parent.name for p in LADDER.glob("*/config.json"))
            raise InputError(f"models {entry['name']}: not a shipped ladder model; shipped are {', '.join(shipped) or 'none'}")
        widths = _stored_widths(entry)
        for precision in entry["precisions"]:
            if precision.startswith("quanto") and not config["dataset"]["n_calibration"]:
                raise InputError(
                    f"models {entry['name']}: {precision} takes its activation scales from calibration problems; set dataset.n_calibration"
                )
            check_support(entry["name"], precision, device, compute_dtype, offload)
            _check_widths(f"models {entry['name']}", widths, precision, device)


def _stored_widths(entry: dict[str, Any]) -> set[int]:
    """Inputs of a model's matrices, as far as its config.json is at hand; what it lacks is named by `describe`."""
    folder = LADDER / entry["name"] if entry["source"] == "ladder" else Path(entry["path"] or "")
    try:
        shape = json.loads((folder / "config.json").read_text(encoding="utf-8")) if entry["source"] in ("ladder", "local") else {}
        hidden, heads = shape["hidden_size"], shape["num_attention_heads"]
        return {hidden, heads * (shape.get("head_dim") or hidden // heads), shape["intermediate_size"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _check_numbers(device: str, compute_dtype: str) -> None:
    """Refuse bfloat16 on a GPU that would emulate it."""
    import torch

    if device == "cuda" and compute_dtype == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        name = torch.cuda.get_device_name()
        raise InputError(
            f"sampling.compute_dtype bfloat16: {name} has no bfloat16; set it to float16, as config/personas/colab-t4.yaml does"
        )


def round_to_nearest(weight: torch.Tensor, bits: int, block: int = BLOCK) -> torch.Tensor:
    """Blockwise symmetric round-to-nearest of a weight matrix, returned in the weight's own dtype.

    w_hat = s · clip(round(w / s), -m, m) with m = 2^(bits-1) - 1 and s = max|w| / m per block of `block` consecutive weights of a row
    (the last block of a row may be shorter). A block of zeros stays zero.

    Parameters
    ----------
    weight : (out, in) tensor
    bits : int, 2 to 8

    Source: Dettmers and Zettlemoyer 2023 (arXiv 2212.09720), section 2, blockwise integer quantisation.
    """
    import torch

    top = 2 ** (bits - 1) - 1
    out = weight.clone()
    for start in range(0, weight.shape[1], block):
        part = weight[:, start : start + block]
        scale = part.abs().amax(dim=1, keepdim=True) / top
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        out[:, start : start + block] = torch.clamp(torch.round(part / scale), -top, top) * scale
    return out


def _narrow(precision: str) -> torch.dtype | None:
    import torch

    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)


def _rounded_names(model: PreTrainedModel, precision: str) -> set[str]:
    """Parameters that a precision rounds in place: all for bf16 and fp16, matrices of linear layers but the head for rtnK."""
    import torch

    if _narrow(precision) is not None:
        return {name for name, _ in model.named_parameters(remove_duplicate=False)}
    if precision.startswith("rtn"):
        return {f"{n}.weight" for n, module in model.named_modules() if isinstance(module, torch.nn.Linear) and n != "lm_head"}
    return set()


def _rounded(weight: torch.Tensor, precision: str) -> torch.Tensor:
    narrow = _narrow(precision)
    return weight.to(narrow).to(weight.dtype) if narrow is not None else round_to_nearest(weight, int(precision[3:]))


def _save_aligned(name: str, weight: torch.Tensor, path: Path) -> None:
    """Write one tensor so that its first byte stands at a multiple of 64, as tensors in memory do.

    Weights are used where the file is mapped, and the products of one row add up in another order for data that begin elsewhere.
    """
    from safetensors.torch import save_file

    save_file({name: weight}, path, {"format": "pt", "pad": ""})
    with path.open("rb") as stream:
        (header,) = struct.unpack("<Q", stream.read(8))
    if lacking := -(8 + header) % ALIGNMENT:
        save_file({name: weight}, path, {"format": "pt", "pad": " " * lacking})


def _rounded_checkpoint(card: ModelCard, precision: str, dtype: torch.dtype, store: Path) -> Path:
    """A copy of a checkpoint in the compute dtype with the precision's rounding done, one tensor in memory at a time.

    Offloaded weights are read from files at every use, so what is to be rounded must be so in the files. Made once and kept.
    """
    import torch
    from safetensors import safe_open
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = store / f"{card.name}-{card.weights_sha256[:16]}-{card.config_sha256[:8]}-{precision}-{str(dtype).removeprefix('torch.')}"
    if folder.is_dir():
        return folder
    source = checkpoint(card)
    with torch.device("meta"), loading(str(source)):
        empty = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(source, trust_remote_code=False), trust_remote_code=False)
    names = _rounded_names(empty, precision)
    store.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=store))
    for name in ("config.json", "generation_config.json"):
        if (source / name).is_file():
            shutil.copy(source / name, temporary / name)
    shards: dict[str, str] = {}
    for file in weight_files(source):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  (no mapping)
                weight = tensors.get_tensor(name).to(dtype)
                shards[name] = f"{len(shards):05d}.safetensors"
                _save_aligned(name, _rounded(weight, precision) if name in names else weight, temporary / shards[name])
    renamed = names - set(shards) - {"lm_head.weight"}  # a tied head is stored once
    if renamed:
        shutil.rmtree(temporary)
        raise InputError(
            f"{card.name}: {precision} can't be offloaded, its files do not hold {min(renamed)} by that name; set sampling.offload to none"
        )
    index = {"metadata": {}, "weight_map": shards}
    (temporary / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    try:
        temporary.rename(folder)
    except OSError:  # another job made the same copy first
        shutil.rmtree(temporary)
    return folder


def _placement(device: str, offload: str, device_memory: str | None) -> dict[str, Any]:
    """Arguments of `from_pretrained` that say where weights go."""
    import psutil
    import torch
    from accelerate.utils.modeling import convert_file_size_to_int

    if offload == "none":
        return {"device_map": device}
    free = int(FREE_SHARE * psutil.virtual_memory().available)
    own = int(FREE_SHARE * torch.cuda.mem_get_info()[0]) if device == "cuda" else free
    limits: dict[str | int, int] = {0 if device == "cuda" else device: convert_file_size_to_int(device_memory) if device_memory else own}
    if device == "cuda":
        limits["cpu"] = free if offload == "cpu" else 0
    return {"device_map": "auto", "max_memory": limits}


def _bitsandbytes(precision: str, dtype: torch.dtype) -> Any:
    """bitsandbytes' settings of a precision, None for all others."""
    from transformers import BitsAndBytesConfig

    if precision == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)
    if support(precision) is _FOUR_BITS:
        kind, _, twice = precision.partition("-")
        return BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_compute_dtype=dtype, bnb_4bit_use_double_quant=twice == "dq"
        )
    return None


def quiet() -> None:
    """Silence what libraries say at every product or import and no user of flopstat can act on."""
    for name in (
        "bitsandbytes",  # one line per int8 product
        "torchao",  # CUDA libraries that it can't load
        "torch.utils._pytree",  # torchao registers two classes in an old way
    ):
        logging.getLogger(name).setLevel(logging.ERROR)


def speed_ids(vocab_size: int, prompts: int = 4, tokens: int = 64) -> list[list[int]]:
    """Token ids that mean nothing, spread over the vocabulary: activation scales for measurements of speed, never for samples."""
    return [[(7919 * (i * tokens + j)) % vocab_size for j in range(tokens)] for i in range(prompts)]


def _quantize_with_quanto(model: PreTrainedModel, calibration_ids: Sequence[Sequence[int]]) -> None:
    import torch
    from optimum.quanto import Calibration, freeze, qint8, quantize

    quantize(model, weights=qint8, activations=qint8, exclude="lm_head")
    with torch.no_grad(), Calibration():
        for ids in calibration_ids:
            model(input_ids=torch.tensor([list(ids)], device=model.device), use_cache=False)
    freeze(model)


def _quantize_with_torchao(model: PreTrainedModel) -> None:
    import torch
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(model, Int8WeightOnlyConfig(), filter_fn=lambda module, name: isinstance(module, torch.nn.Linear) and name != "lm_head")


def load(
    card: ModelCard,
    precision: str,
    compute_dtype: str,
    device: str,
    *,
    calibration_ids: Sequence[Sequence[int]] | None = None,
    offload: str = "none",
    device_memory: str | None = None,
    offload_folder: Path | None = None,
) -> PreTrainedModel:
    """Load a model for inference at a precision.

    The head and the embeddings stay in the compute dtype at every precision, and a tied head stays tied.

    - fp32, bf16, fp16 and gguf-* hold the weights in the compute dtype, rounded to the precision first.
    - int8, nf4, fp4, nf4-dq and fp4-dq are bitsandbytes': int8 with outlier threshold 0, so that a sample does not depend on its batch;
      -dq quantises the scales of the blocks once more.
    - quanto-int8 holds weights and activations of every linear layer in eight bits, one scale per row of a matrix and one per layer's
      input and output. The latter come from one pass of each prompt of `calibration_ids`, alone and in the given order.
    - torchao-int8 holds weights in eight bits, one scale per row.
    - rtnK rounds every linear layer to K bits and keeps the result in the compute dtype: accuracy as at K bits, speed as of that dtype.

    Parameters
    ----------
    compute_dtype : {"float32", "bfloat16", "float16", "float64"}
    calibration_ids : token ids of prompts, optional
        For quanto-int8. Without them a fixed pattern of ids is used, which is good for measurements of speed only.
    offload : {"none", "cpu", "disk"}
        Where weights go that do not fit `device_memory`. They are brought back for each use, so results stay the same and time grows.
        `model.device` may then say "meta": give inputs on `device`.
    device_memory : str, optional
        Most memory for weights on the device, such as "10GiB" (disk on a CPU: in memory); without it nine tenths of what is free.
    offload_folder : Path, optional
        Folder that rounded copies of the weights are kept in: needed for bf16, fp16 and rtnK with offload, where the weights are read from
        files at every use. Other precisions are read from the checkpoint itself.

    Raises
    ------
    InputError
        For what the model's shape, the device or the library does not allow, before weights are read; for a folder that changed since it
        was described, or that transformers makes no model of.
    """
    import torch
    from transformers import AutoModelForCausalLM

    check_device(device, compute_dtype, offload)
    check_support(card.name, precision, device, compute_dtype, offload)
    check_precision(card, precision, device)
    _check_numbers(device, compute_dtype)
    verify_settings(card)
    quiet()
    dtype = getattr(torch, compute_dtype)
    folder, rounds = checkpoint(card), precision.startswith("rtn") or _narrow(precision) not in (None, dtype)
    if rounds and offload != "none":
        if offload_folder is None:
            raise ValueError(f"{precision} with offload {offload} needs an offload_folder")
        folder, rounds = _rounded_checkpoint(card, precision, dtype, offload_folder), False
    placement = _placement(device, offload, device_memory)
    with loading(str(folder)):
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            quantization_config=_bitsandbytes(precision, dtype),
            trust_remote_code=False,
            use_safetensors=True,
            **placement,
        )
    if offload == "cpu" and "disk" in getattr(model, "hf_device_map", {}).values():
        raise InputError(f"{card.name}: does not fit the memory of the device and of the CPU; set sampling.offload to disk")
    model.eval()
    if rounds:
        names = _rounded_names(model, precision)
        for name, parameter in model.named_parameters():
            # The clone takes a weight out of the mapped file, to where an offloaded one begins too: see _save_aligned.
            parameter.data = _rounded(parameter.data, precision) if name in names else parameter.data.clone()
    elif precision == "quanto-int8":
        _quantize_with_quanto(model, speed_ids(card.vocab_size) if calibration_ids is None else calibration_ids)
    elif precision == "torchao-int8":
        _quantize_with_torchao(model)
    model.requires_grad_(False)
    model.bits_effective = _stored_bits(model, card, precision)  # type: ignore[assignment]  # torch thinks of modules only
    return model


def effective_bits(model: PreTrainedModel, card: ModelCard, precision: str) -> float:
    """Bits per parameter as stored: weights, scales, zero points and everything left unquantised, over `n_params`.

    Tensors of bitsandbytes, quanto (with the activations' scales) and torchao are measured as they lay in memory when `load` had made them:
    on some CPUs bitsandbytes packs its four bits anew at the first product. rtnK is K bits and one 16-bit scale per block of 64 in the
    rounded layers, 16 bits elsewhere. fp32, bf16 and fp16 are 32 and 16. gguf-* is the file's bytes over its elements.
    """
    measured = getattr(model, "bits_effective", None)
    return float(_stored_bits(model, card, precision) if measured is None else measured)


def _stored_bits(model: PreTrainedModel, card: ModelCard, precision: str) -> float:
    if precision.startswith("gguf-"):
        if card.stored_bits is None:
            raise InputError(f"{card.name}: {precision} without a GGUF file")
        return card.stored_bits
    if precision in ("fp32", "bf16", "fp16"):
        return 32.0 if precision == "fp32" else 16.0
    rounded = _rounded_names(model, precision)
    total, seen = 0.0, set()
    for module_name, module in model.named_modules():
        if module_name == "lm_head" and card.tied:  # offloaded, a tied head is a tensor of its own
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            if not precision.startswith("rtn"):
                total += _parameter_bits(parameter)
            elif f"{module_name}.{name}" in rounded:
                total += parameter.numel() * int(precision[3:]) + 16 * parameter.shape[0] * -(-parameter.shape[1] // BLOCK)
            else:
                total += 16 * parameter.numel()
        if precision == "quanto-int8":
            total += sum(_bits(scale) for name, scale in module.named_buffers(recurse=False) if re.fullmatch("(in|out)put_scale", name))
    return total / card.n_params


def _bits(tensor: torch.Tensor) -> int:
    """Bits of a tensor, or of all tensors that one of quanto's or torchao's is made of."""
    if hasattr(tensor, "__tensor_flatten__"):
        return sum(_bits(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
    return 8 * tensor.numel() * tensor.element_size()


def _parameter_bits(parameter: torch.Tensor) -> int:
    """Bits of a parameter with the scales that bitsandbytes hangs on it."""
    parts = [parameter, getattr(parameter, "SCB", None)]
    state = getattr(parameter, "quant_state", None)
    if state is not None:
        parts += [state.absmax, state.code]
        if state.nested:
            parts += [state.state2.absmax, state.state2.code, state.offset]
    return sum(_bits(part) for part in parts if part is not None)
