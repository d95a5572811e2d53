"""Models: where they come from, what they are, and how they are loaded at a precision.

`describe` needs neither torch nor weights in memory: it reads `config.json` and the safetensors headers. `load` gives the
module that the engine runs. `trust_remote_code` stays off and only safetensors and GGUF files are read.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import re
import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flopstat.config import ROOT, Config
from flopstat.errors import InputError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

LADDER = ROOT / "workflow" / "resources" / "ladder"
_HASH_BLOCK = 1 << 20
MAX_HEADER = 100_000_000  # bytes of a safetensors header, the format's own limit
_EMBEDDING = re.compile(r"(embed_tokens|lm_head|wte|wpe)\.weight$")


@dataclass(frozen=True)
class ModelCard:
    """What the study knows of a model: identity, size and the shape that the cost model needs."""

    name: str
    source: str
    path: str  # folder of a plain checkpoint
    stored: str  # the file or repository as the config names it
    weights_sha256: str
    tokenizer_sha256: str
    architecture: str
    n_params: int  # each tensor once; a tied head is not counted again
    n_params_non_embedding: int
    n_layers: int
    hidden_size: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    tied: bool
    context: int
    stored_bits: float | None  # bits per weight of the stored file, where the precision is the file's own (GGUF)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def read(cls, path: Path) -> ModelCard:
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def sha256_of_files(paths: list[Path]) -> str:
    """One SHA-256 over the contents of files, in the order of their names."""
    total = hashlib.sha256()
    for path in sorted(paths, key=lambda p: p.name):
        one = hashlib.sha256()
        with path.open("rb") as stream:
            while block := stream.read(_HASH_BLOCK):
                one.update(block)
        total.update(f"{path.name}:{one.hexdigest()}\n".encode())
    return total.hexdigest()


def tensor_shapes(path: Path) -> dict[str, list[int]]:
    """Shapes in a safetensors file, from its header alone."""
    with path.open("rb") as stream:
        try:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > MAX_HEADER:
                raise ValueError(length)
            header = json.loads(stream.read(length))
            return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
        except (struct.error, ValueError, AttributeError, KeyError, TypeError):
            raise InputError(f"{path}: not a safetensors file, or a torn one; copy or download it again") from None


def _product(shape: list[int]) -> int:
    out = 1
    for n in shape:
        out *= n
    return out


def package_file(name: str) -> Path:
    """The file that `package:NAME/FILE` names, without importing the package."""
    package, _, file = name.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"models path {name}: the Python package {package} is not installed; for SmolLM2 run `make smollm2`")
    return Path(next(iter(spec.submodule_search_locations))) / file


def _weights(folder: Path) -> list[Path]:
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: no config.json; a model folder as transformers saves it is wanted")
    if not (folder / "tokenizer.json").is_file():
        raise InputError(f"{folder}: no tokenizer.json; save the tokenizer as transformers' fast tokenizers do")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickles = [p.name for p in folder.iterdir() if p.suffix in {".bin", ".pt", ".pth", ".pkl", ".ckpt"}]
        hint = f" (found {pickles[0]}: pickles are refused, they can run code)" if pickles else ""
        raise InputError(f"{folder}: no safetensors weights{hint}; save the model with save_pretrained")
    return files


def _dequantized(file: Path, store: Path) -> tuple[Path, float]:
    """A plain float32 checkpoint of a GGUF file, made once and kept under its hash, and the file's bits per weight."""
    from gguf import GGUFReader

    if not file.is_file():
        raise InputError(f"{file}: no such GGUF file")
    tensors = GGUFReader(file).tensors
    bits = 8.0 * sum(int(t.n_bytes) for t in tensors) / sum(int(t.n_elements) for t in tensors)
    folder = store / f"{file.stem}-{sha256_of_files([file])[:16]}"
    if not (folder / "done").exists():
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        model = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
        )
        if getattr(model.config, "quantization_config", None) is not None:
            del model.config.quantization_config
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
        (folder / "done").touch()
    return folder, bits


def _folder(entry: dict[str, Any], store: Path) -> tuple[Path, str, float | None]:
    """(checkpoint folder, how the config names it, stored bits) of a model entry."""
    source = entry["source"]
    if source == "ladder":
        folder = LADDER / entry["name"]
        if not folder.is_dir():
            raise InputError(f"models {entry['name']}: not shipped in {LADDER}; `snakemake ladder_weights` trains it")
        return folder, entry["name"], None
    if source == "hub":
        from huggingface_hub import snapshot_download

        patterns = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]
        downloaded = snapshot_download(entry["repo"], revision=entry["revision"], allow_patterns=patterns)
        return Path(downloaded), f"{entry['repo']}@{entry['revision']}", None
    named = entry["path"]
    path = package_file(named) if named.startswith("package:") else Path(named)
    if source == "gguf":
        folder, bits = _dequantized(path, store)
        return folder, named, bits
    return path, named, None


def describe(entry: dict[str, Any], store: Path) -> ModelCard:
    """Resolve a model entry of the config to a card. Downloads (hub) or unpacks (GGUF) what is missing.

    Parameters
    ----------
    entry : mapping
        One item of `models` in the config.
    store : Path
        Folder that unpacked GGUF checkpoints are kept in.

    Raises
    ------
    InputError
        For a missing or unreadable model, or one with pickled weights only.
    """
    folder, stored, bits = _folder(entry, store)
    files = _weights(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    shapes: dict[str, list[int]] = {}
    for file in files:
        shapes |= tensor_shapes(file)
    try:
        hidden, heads = config["hidden_size"], config["num_attention_heads"]
        card = ModelCard(
            name=entry["name"],
            source=entry["source"],
            path=str(folder.relative_to(ROOT)) if folder.is_relative_to(ROOT) else str(folder),
            stored=stored,
            weights_sha256=sha256_of_files(files),
            tokenizer_sha256=sha256_of_files(
                [p for p in folder.iterdir() if p.name.startswith(("tokenizer", "chat_template", "vocab", "merges"))]
            ),
            architecture=(config.get("architectures") or [config["model_type"]])[0],
            n_params=sum(_product(s) for s in shapes.values()),
            n_params_non_embedding=sum(_product(s) for n, s in shapes.items() if not _EMBEDDING.search(n)),
            n_layers=config["num_hidden_layers"],
            hidden_size=hidden,
            n_heads=heads,
            n_kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or hidden // heads,
            intermediate_size=config["intermediate_size"],
            vocab_size=config["vocab_size"],
            tied="lm_head.weight" not in shapes,
            context=config["max_position_embeddings"],
            stored_bits=bits,
        )
    except KeyError as missing:
        raise InputError(f"{folder}/config.json: lacks {missing}; a decoder-only model's config is wanted") from None
    return card


def checkpoint(card: ModelCard) -> Path:
    """Folder of a card's checkpoint."""
    path = Path(card.path)
    return path if path.is_absolute() else ROOT / path


def pick_device(wanted: str) -> str:
    """The device a study runs on.

    Raises
    ------
    InputError
        If the device asked for is not there.
    """
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(name for name, ok in there.items() if ok)
    if not there[wanted]:
        raise InputError(f"sampling.device {wanted}: not available on this machine; set it to auto or cpu")
    return wanted


def round_to_nearest(weight: torch.Tensor, bits: int, block: int = 64) -> torch.Tensor:
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


def check_precision(card: ModelCard, precision: str) -> None:
    """Refuse a precision that a model's shape does not allow.

    Raises
    ------
    InputError
        bitsandbytes packs nf4 in blocks of 64 weights of a row: every matrix needs a multiple of 64 inputs.
    """
    widths = {card.hidden_size, card.n_heads * card.head_dim, card.intermediate_size}
    if precision == "nf4" and any(width % 64 for width in widths):
        raise InputError(f"{card.name}: nf4 needs matrices with a multiple of 64 inputs, found {sorted(widths)}; use int8 or rtn4")


def load(card: ModelCard, precision: str, compute_dtype: str, device: str) -> PreTrainedModel:
    """Load a model for inference at a precision.

    fp32, bf16, fp16 and gguf-* hold the weights in the compute dtype, rounded to the precision first. int8 and nf4 are bitsandbytes'
    (int8 with outlier threshold 0, so that a sample does not depend on its batch). rtnK rounds every linear layer but the head to
    K bits and keeps the result in the compute dtype: accuracy as at K bits, speed as of the compute dtype.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    check_precision(card, precision)
    dtype = getattr(torch, compute_dtype)
    quantization = None
    if precision == "int8":
        quantization = BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # one line per matrix product otherwise
    elif precision == "nf4":
        quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    model = AutoModelForCausalLM.from_pretrained(
        checkpoint(card),
        dtype=dtype,
        device_map=device,
        quantization_config=quantization,
        trust_remote_code=False,
        use_safetensors=True,
    )
    model.eval()
    if precision in ("bf16", "fp16"):
        narrow = torch.bfloat16 if precision == "bf16" else torch.float16
        for parameter in model.parameters():
            parameter.data = parameter.data.to(narrow).to(dtype)
    elif precision.startswith("rtn"):
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear) and name != "lm_head":
                module.weight.data = round_to_nearest(module.weight.data, int(precision[3:]))
    return model


def effective_bits(model: PreTrainedModel, card: ModelCard, precision: str) -> float:
    """Bits per parameter as stored: weights, scales and everything left unquantised, over `n_params`.

    bitsandbytes' tensors are measured as they lie in memory. rtnK is K bits and one 16-bit scale per block of 64 in the rounded layers,
    16 bits elsewhere. fp32, bf16 and fp16 are 32 and 16. gguf-* is the file's bytes over its elements.
    """
    import torch

    if precision.startswith("gguf-"):
        if card.stored_bits is None:
            raise InputError(f"{card.name}: {precision} without a GGUF file")
        return card.stored_bits
    if precision in ("fp32", "bf16", "fp16"):
        return 32.0 if precision == "fp32" else 16.0
    total, seen = 0.0, set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            if precision.startswith("rtn"):
                rounded = isinstance(module, torch.nn.Linear) and name == "weight" and module_name != "lm_head"
                n_scales = parameter.shape[0] * -(-parameter.shape[1] // 64) if rounded else 0
                total += parameter.numel() * (int(precision[3:]) if rounded else 16) + 16 * n_scales
                continue
            total += 8 * parameter.numel() * parameter.element_size()
            state = getattr(parameter, "quant_state", None)
            if state is not None:
                tensors = [state.absmax, state.code]
                if state.nested:
                    tensors += [state.state2.absmax, state.state2.code]
                total += sum(8 * t.numel() * t.element_size() for t in tensors)
            scale = getattr(parameter, "SCB", None)
            if scale is not None:
                total += 8 * scale.numel() * scale.element_size()
    return total / card.n_params


def load_tokenizer(card: ModelCard) -> PreTrainedTokenizerFast:
    """The tokenizer of a checkpoint's tokenizer.json, with its chat template.

    Raises
    ------
    InputError
        If it has no chat template or no end-of-sequence token.
    """
    from transformers import PreTrainedTokenizerFast

    # By tokenizer.json alone, which grading decodes with too: AutoTokenizer puts the class that goes with the model's type in its place.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(checkpoint(card))
    if not tokenizer.chat_template:
        raise InputError(f"{card.name}: its tokenizer has no chat template; an instruction-tuned model is wanted")
    if tokenizer.eos_token_id is None:
        raise InputError(f"{card.name}: its tokenizer has no end-of-sequence token; chains could never finish")
    return tokenizer


def check_names(config: Config) -> None:
    """Refuse ladder models that are not shipped, before any job."""
    for entry in config["models"]:
        if entry["source"] == "ladder" and not (LADDER / entry["name"] / "config.json").is_file():
            shipped = sorted(p.parent.name for p in LADDER.glob("*/config.json"))
            raise InputError(f"models {entry['name']}: not a shipped ladder model; shipped are {', '.join(shipped) or 'none'}")


def stored_identity(entry: dict[str, Any]) -> str:
    """What says, without network and in milliseconds, that a model's stored weights are still the same.

    The hash of a shipped ladder model, names and sizes of a local folder's or file's weights, the revision of a hub model. A missing path
    is left to `describe`, which names it.
    """
    if entry["source"] == "ladder":
        return sha256_of_files(sorted((LADDER / entry["name"]).glob("*.safetensors")))
    if entry["source"] == "hub":
        return str(entry["revision"])
    named = str(entry["path"])
    path = Path(named)
    if named.startswith("package:"):
        return named
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path] if path.is_file() else []
    return ";".join(f"{f.name}:{f.stat().st_size}" for f in files)
