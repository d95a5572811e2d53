"""Models: where they come from, what they are, and which devices there are to run them on.

`describe` needs neither torch nor weights in memory: it reads `config.json` and the safetensors headers. `trust_remote_code` stays off and
only safetensors and GGUF files are read, never a pickle. `precisions` loads them.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import json
import os
import platform
import re
import shutil
import struct
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flopstat.config import ROOT
from flopstat.errors import InputError, check_hub_address, line_of, without_secrets
from flopstat.shape import Shape, read_config, shape_of, whole_number
from flopstat.stored import digest, read_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

LADDER = ROOT / "workflow" / "resources" / "ladder"
ABSENT = "sampling.device {}: not available on this machine; set it to auto or cpu"
SHAPE_TOLERANCE = 0.01  # a checkpoint may hold buffers beside its weights
MAX_SIZE = 1 << 40  # of one dimension of a tensor
MAX_DIMENSIONS = 8  # of a tensor: its size stays a number that can be printed
MAX_HEADER = 100_000_000  # bytes of a safetensors header, the format's own limit
INDEX = "model.safetensors.index.json"
ATTENTION = (None, "eager", "sdpa")  # what torch has; other names make transformers look for kernels, also in repositories
_EMBEDDING = re.compile(r"(embed_tokens|lm_head|wte|wpe)\.weight$")
_SHARD = re.compile(r"[\w-][\w.-]{0,199}\.safetensors", re.ASCII)
_TOKENIZER = re.compile(r"(tokenizer|chat_template|vocab|merges|special_tokens|added_tokens).*\.(json|jinja|txt|model)")
_CONFIG = re.compile(r"(generation_)?config\.json")


@dataclass(frozen=True, kw_only=True)
class ModelCard(Shape):
    """What the study knows of a model: identity, size and the shape that the cost model needs."""

    name: str
    source: str
    path: str  # folder of a plain checkpoint
    stored: str  # the file or repository as the config names it
    weights_sha256: str
    tokenizer_sha256: str
    architecture: str
    n_params_non_embedding: int
    context: int
    stored_bits: float | None  # bits per weight of the stored file, where the precision is the file's own (GGUF)
    config_sha256: str = ""  # of config.json and generation_config.json; cards of older versions do not say

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def read(cls, path: Path) -> ModelCard:
        card = read_card(path)
        if not isinstance(card, cls):
            raise InputError(f"{path}: the card of imported samples, which no model goes with; name a model that is here")
        return card


@dataclass(frozen=True)
class ImportedCard:
    """What the study knows of a model that only its samples are known of."""

    name: str
    source: str  # always "import"
    stored: str  # the log as the config names it
    log_sha256: str
    n_params: int
    tokens_per_solution: int | None  # declared
    external_samples: int  # declared: samples that the other tool drew for each one in the log
    dropped: dict[str, int]  # fields of the log that were left out
    unknown: dict[str, int]  # fields of the Sample form that the log lacks, with the number of samples

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    @property
    def flags(self) -> list[str]:
        """What a cell's row says of its origin."""
        declared = {"declared_tokens": self.tokens_per_solution is not None, "external_samples": self.external_samples > 1}
        return ["imported", *(name for name, is_declared in declared.items() if is_declared)]

    def nominal_flops(self, chains: int, mean_tokens: float) -> float:
        """2·N·tokens·chains·external_samples, tokens as declared, else the mean of the log's own counts: NaN where neither is known.

        # ASSUME models of unknown shape take 2 FLOP per parameter and token; prefill and verifier passes are left out

        Worked by hand: 2·1000·100 tokens·3 chains·10 external samples = 6,000,000.
        """
        tokens = mean_tokens if self.tokens_per_solution is None else self.tokens_per_solution
        return 2.0 * self.n_params * tokens * chains * self.external_samples


Card = ModelCard | ImportedCard


_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "int | None": (int, type(None)),
    "float | None": (float, int, type(None)),
    "dict[str, int]": (dict,),
}


# Where a zero says that there is none of it.
_MAY_BE_ZERO = {f.name for f in fields(Shape) if f.default == 0} | {"n_params_non_embedding", "dropped", "unknown"}


def _in_range(name: str, value: Any) -> bool:
    """Whether a number of a card can be: what is counted is there, and a table's columns hold it."""
    if isinstance(value, dict):
        return all(type(n) is int and _in_range(name, n) for n in value.values())
    return isinstance(value, str | bool | None) or (name not in _MAY_BE_ZERO) <= value < 1 << 63


def read_card(path: Path) -> Card:
    """Card of a model or of an imported pool.

    Raises
    ------
    InputError
        If there is none, or a value is missing, unknown, of another type, or out of range.
    """
    values = read_json(path, "model card")
    try:
        kind: type[ImportedCard] | type[ModelCard] = ImportedCard if values["source"] == "import" else ModelCard
        card = kind(**values)
        if not all(type(getattr(card, f.name)) in _TYPES[str(f.type)] for f in fields(card)):
            raise ValueError("a value of another type")
        if not all(_in_range(f.name, getattr(card, f.name)) for f in fields(card)):
            raise ValueError("a number out of range")
    except (ValueError, TypeError, KeyError):
        raise InputError(f"{path}: not a model card; make it again with `snakemake {path}`") from None
    return card


def sha256_of_files(paths: list[Path]) -> str:
    """One SHA-256 over the contents of files, in the order of their names."""
    total = hashlib.sha256()
    for path in sorted(paths, key=lambda p: p.name):
        total.update(f"{path.name}:{digest(path)}\n".encode())
    return total.hexdigest()


def _settings(folder: Path) -> dict[str, list[Path]]:
    """The small files of a checkpoint that change what comes of its weights: tokenizer with chat templates, and config."""
    files = [*folder.glob("*"), *folder.glob("additional_chat_templates/*")]
    tokenizer = [p for p in files if _TOKENIZER.fullmatch(p.name) or p.parent != folder]
    return {"tokenizer_sha256": tokenizer, "config_sha256": [p for p in files if _CONFIG.fullmatch(p.name)]}


def _is_size(shape: object) -> bool:
    return isinstance(shape, list) and len(shape) <= MAX_DIMENSIONS and all(type(n) is int and 0 <= n <= MAX_SIZE for n in shape)


def tensor_shapes(path: Path) -> dict[str, list[int]]:
    """Shapes in a safetensors file, from its header alone."""
    with path.open("rb") as stream:
        try:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > MAX_HEADER:
                raise ValueError(length)
            header = json.loads(stream.read(length))
            shapes = {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
            if not all(_is_size(shape) for shape in shapes.values()):
                raise ValueError("a shape that is none")
            return shapes
        except (struct.error, ValueError, AttributeError, KeyError, TypeError, RecursionError):
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


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers takes a model's weights from: model.safetensors, else the shards that its index names.

    Raises
    ------
    InputError
        If config.json or tokenizer.json is missing, if there are no such weights, or if anything in the folder points to others.
    """
    if not os.path.isfile(folder / "config.json"):
        raise InputError(f"{folder}: no config.json; a model folder as transformers saves it is wanted")
    if not (folder / "tokenizer.json").is_file():
        raise InputError(f"{folder}: no tokenizer.json; save the tokenizer as transformers' fast tokenizers do")
    if (folder / "adapter_config.json").exists():
        raise InputError(f"{folder}: adapter_config.json names further weights; merge the adapter into the model and save that")
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if (folder / INDEX).is_file():
        return _shards(folder)
    others = [p.name for p in sorted(folder.iterdir()) if p.suffix in {".safetensors", ".bin", ".pt", ".pth", ".pkl", ".ckpt"}]
    why = "without an index" if others and others[0].endswith(".safetensors") else "pickles are refused, they can run code"
    hint = f" (found {others[0]}: {why})" if others else ""
    raise InputError(f"{folder}: no safetensors weights{hint}; save the model with save_pretrained")


def _shards(folder: Path) -> list[Path]:
    """The files of an index: each a safetensors file of this very folder, whatever else an index may say."""
    try:
        named = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
        wrong = sorted(repr(name) for name in named if not (isinstance(name, str) and _SHARD.fullmatch(name)))
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise InputError(f"{folder / INDEX}: no index of weights; save the model with save_pretrained") from None
    absent = sorted(name for name in named if not wrong and not (folder / name).is_file())
    if wrong or absent or not named:
        found = f"{wrong[0][:60]}, no safetensors file's name" if wrong else f"{absent[0]}, which is missing" if absent else "nothing"
        raise InputError(f"{folder / INDEX}: names {found}; save the model with save_pretrained, all shards beside the index")
    return sorted(folder / name for name in named)


def _check_loading(config: dict[str, Any]) -> None:
    """Refuse what a config.json could lead the loader elsewhere with. `auto_map`, which many have, is never obeyed."""
    if config.get("transformers_weights") is not None:
        raise InputError("config.json: transformers_weights names other weights; delete it")
    for key in ("attn_implementation", "experts_implementation"):
        for name in (key, f"_{key}", f"_{key}_internal"):
            if config.get(name) not in ATTENTION:
                raise InputError(f"config.json: {name} is {str(config[name])[:60]!r}; delete it, torch's own is taken")


@contextmanager
def loading(what: str) -> Iterator[None]:
    """What transformers and its loaders say of a model's files, which may be any error, in one line.

    Raises
    ------
    InputError
        For every error but those that have a line of their own, as memory that ran out, and a library that is not installed.
    """
    try:
        yield
    except Exception as error:
        if line_of(error) is not None or isinstance(error, ImportError):
            raise
        said = " ".join(str(error).split())[:200]
        raise InputError(f"{what}: can't be loaded ({type(error).__name__}: {said}); copy or download the model again") from error


def _dequantized(file: Path, store: Path) -> tuple[Path, float]:
    """A plain float32 checkpoint of a GGUF file, made once and kept under its hash, and the file's bits per weight."""
    from gguf import GGUFReader

    if not os.path.isfile(file):
        raise InputError(f"{file}: no such GGUF file")
    with loading(str(file)):
        tensors = GGUFReader(file).tensors
        bits = 8.0 * sum(int(t.n_bytes) for t in tensors) / sum(int(t.n_elements) for t in tensors)
    folder = store / f"{file.stem}-{sha256_of_files([file])[:16]}"
    if not (folder / "done").exists():
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        # Alone in a folder, so that nothing that lies beside the file has a say.
        with tempfile.TemporaryDirectory() as alone, loading(str(file)):
            (Path(alone) / "model.gguf").symlink_to(file.resolve())
            plain = {"gguf_file": "model.gguf", "trust_remote_code": False}
            unpacked = GgufConfig(dequantize=True)
            model = AutoModelForCausalLM.from_pretrained(alone, **plain, quantization_config=unpacked, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(alone, **plain)
        if getattr(model.config, "quantization_config", None) is not None:
            del model.config.quantization_config
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / "done").touch()
    return folder, bits


def _snapshot(repo: str, revision: str) -> Path:
    """A hub model's folder in the cache, downloaded if it is not there."""
    check_hub_address()
    from huggingface_hub import errors, snapshot_download

    patterns = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except (OSError, ValueError, errors.HfHubHTTPError) as error:  # no network, no such repository or revision, no right to read it
        why = f"neither in the hub's cache nor to be had ({without_secrets(' '.join(str(error).split()))[:150]})"
        raise InputError(f"{repo} at {revision}: {why}; check the network, or `hf download {repo} --revision {revision}`") from None


def _folder(entry: dict[str, Any], store: Path) -> tuple[Path, str, float | None]:
    """(checkpoint folder, how the config names it, stored bits) of a model entry."""
    source = entry["source"]
    if source == "ladder":
        folder = LADDER / entry["name"]
        if not os.path.isdir(folder):
            raise InputError(f"models {entry['name']}: not shipped in {LADDER}; `snakemake ladder_weights` trains it")
        return folder, entry["name"], None
    if source == "hub":
        return _snapshot(entry["repo"], entry["revision"]), f"{entry['repo']}@{entry['revision']}", None
    named = entry["path"]
    path = package_file(named) if named.startswith("package:") else Path(named)
    if source == "gguf":
        folder, bits = _dequantized(path, store)
        return folder, named, bits
    return path, named, None


def _architecture(config: dict[str, Any]) -> str:
    """The first architecture that a config.json names, else its model_type."""
    named = config.get("architectures") or [config.get("model_type")]
    if not isinstance(named, list) or not isinstance(named[0], str):
        raise InputError("config.json: names no architecture; a decoder-only model's config is wanted")
    return named[0]


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
    files = weight_files(folder)
    config = read_config(folder / "config.json")
    shapes: dict[str, list[int]] = {}
    for file in files:
        shapes |= tensor_shapes(file)
    try:
        _check_loading(config)
        shape = shape_of(config | {"tie_word_embeddings": "lm_head.weight" not in shapes})
        context, architecture = whole_number(config, "max_position_embeddings"), _architecture(config)
    except InputError as error:
        raise InputError(f"{folder}/{error}") from None
    n_params = sum(_product(s) for s in shapes.values())
    if abs(shape.n_params - n_params) > SHAPE_TOLERANCE * n_params:
        raise InputError(f"{folder}: {n_params:,} weights, but config.json makes {shape.n_params:,}; use the checkpoint's own config.json")
    return ModelCard(
        **asdict(shape) | {"n_params": n_params} | {name: sha256_of_files(files) for name, files in _settings(folder).items()},
        name=entry["name"],
        source=entry["source"],
        path=str(folder.relative_to(ROOT)) if folder.is_relative_to(ROOT) else str(folder),
        stored=stored,
        weights_sha256=sha256_of_files(files),
        architecture=architecture,
        n_params_non_embedding=sum(_product(s) for n, s in shapes.items() if not _EMBEDDING.search(n)),
        context=context,
        stored_bits=bits,
    )


def checkpoint(card: ModelCard) -> Path:
    """Folder of a card's checkpoint."""
    path = Path(card.path)
    return path if path.is_absolute() else ROOT / path


def verify_weights(card: ModelCard) -> None:
    """Make sure that a checkpoint's weights are those that were described: every byte is read.

    Raises
    ------
    InputError
        If a file of them is missing, new or different.
    """
    folder = checkpoint(card)
    with suppress(InputError):
        if sha256_of_files(weight_files(folder)) == card.weights_sha256:
            return
    raise InputError(f"{folder}: the weights of {card.name} changed since it was described; run again")


def verify_settings(card: ModelCard) -> None:
    """Make sure that tokenizer, chat template and config are those that were described; cards of older versions do not say which.

    Raises
    ------
    InputError
        If a file of them is missing, new or different.
    """
    folder = checkpoint(card)
    if card.config_sha256 and any(sha256_of_files(files) != getattr(card, name) for name, files in _settings(folder).items()):
        raise InputError(f"{folder}: tokenizer, chat template or config of {card.name} changed since it was described; run again")


def device_present(device: str) -> bool:
    """Whether a kind of device seems to be on this machine, decided without torch; auto and cpu always are.

    cuda stands for NVIDIA's driver, on Linux, in WSL or by its tool on PATH, and for AMD's, unless the environment hides every GPU.
    """
    if device == "cuda":
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1")
        drivers = any(Path(path).exists() for path in ("/proc/driver/nvidia/version", "/dev/dxg", "/dev/kfd"))
        return not hidden and (drivers or shutil.which("nvidia-smi") is not None)
    if device == "mps":
        return sys.platform == "darwin" and platform.machine() == "arm64"
    return True


def likely_device(wanted: str) -> str:
    """The device that `pick_device` will find, as far as can be told without torch: what is asked for is taken at its word."""
    return next(name for name in ("cuda", "mps", "cpu") if device_present(name)) if wanted == "auto" else wanted


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
        raise InputError(ABSENT.format(wanted))
    return wanted


def load_tokenizer(card: ModelCard) -> PreTrainedTokenizerFast:
    """The tokenizer of a checkpoint's tokenizer.json, with its chat template.

    Raises
    ------
    InputError
        If it changed since it was described, can't be read, or has no chat template or no end-of-sequence token.
    """
    from transformers import PreTrainedTokenizerFast

    # By tokenizer.json alone, which grading decodes with too: AutoTokenizer puts the class that goes with the model's type in its place.
    if not (checkpoint(card) / "tokenizer.json").is_file():
        raise InputError(f"{checkpoint(card)}: no tokenizer.json; {card.name} moved or changed since it was described, run again")
    verify_settings(card)
    with loading(str(checkpoint(card) / "tokenizer.json")):
        tokenizer = PreTrainedTokenizerFast.from_pretrained(checkpoint(card))
    if not tokenizer.chat_template:
        raise InputError(f"{card.name}: its tokenizer has no chat template; an instruction-tuned model is wanted")
    if tokenizer.eos_token_id is None:
        raise InputError(f"{card.name}: its tokenizer has no end-of-sequence token; chains could never finish")
    return tokenizer


def stored_identity(entry: dict[str, Any]) -> str:
    """What says, without network and in milliseconds, that a stored model is still the same.

    The hash of a shipped ladder model, names, sizes and times of a local folder's files or of a GGUF file, the revision of a hub model: of
    all that a model is made of, weights, config, tokenizer and chat template. A missing path is left to `describe`, which names it.
    """
    if entry["source"] == "hub":
        return str(entry["revision"])
    named = str(entry["path"]) if entry["source"] != "ladder" else ""
    if named.startswith("package:"):
        return named
    path = Path(named) if named else LADDER / entry["name"]
    files = [*path.glob("*.safetensors"), path / INDEX, *itertools.chain(*_settings(path).values())] if path.is_dir() else [path]
    files = sorted(file for file in files if file.is_file())
    if entry["source"] == "ladder":
        return sha256_of_files(files)
    return ";".join(f"{f.name}:{f.stat().st_size}:{f.stat().st_mtime_ns}" for f in files)
