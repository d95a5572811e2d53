"""The shape of a decoder-only model, from its config.json: all that the cost model needs, without weights and without torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flopstat.errors import InputError

MAX_SIZE = 1 << 40  # of a number in a config.json
MAX_LAYERS = 100_000


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a decoder-only model. Layers with experts (n_moe_layers) stand in for as many dense ones; sliding layers for full ones."""

    n_params: int  # each tensor once; a tied head is not counted again
    n_layers: int
    hidden_size: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    intermediate_size: int  # of a dense layer's MLP
    vocab_size: int
    tied: bool
    gated: bool = True  # the MLP has three matrices, else two
    sliding_window: int | None = None  # tokens that a sliding layer attends to at most
    n_sliding_layers: int = 0
    n_experts: int = 0
    experts_per_token: int = 0
    moe_intermediate_size: int = 0
    shared_expert_intermediate_size: int = 0
    n_moe_layers: int = 0

    @property
    def mlp_matrices(self) -> int:
        return 3 if self.gated else 2

    @property
    def expert_params(self) -> int:
        """Weights of one expert."""
        return self.mlp_matrices * self.hidden_size * self.moe_intermediate_size


@dataclass(frozen=True)
class _Family:
    """How the models of one model_type are laid out, where their config.json does not say it."""

    qkv_bias: bool | None = None  # None: attention_bias of the config
    out_bias: bool | None = None  # None: attention_bias of the config
    mlp_bias: bool | None = None  # None: mlp_bias of the config
    gated: bool = True
    tied: bool = False  # where the config does not say
    norms: int = 2  # per layer
    norm_params: int = 1  # per channel: a weight, or weight and bias
    head_norms: bool = False  # of queries and keys, one weight per dimension of a head
    experts: str = ""  # key of the number of experts
    expert_size: str = ""  # key of an expert's intermediate size
    window: str = "none"  # layers that slide, where layer_types does not say: none, all, switched, odd, or five_of_six


FAMILIES = {
    "gemma": _Family(mlp_bias=False, tied=True),
    "gemma2": _Family(mlp_bias=False, tied=True, norms=4, window="odd"),
    "gemma3_text": _Family(mlp_bias=False, tied=True, norms=4, head_norms=True, window="five_of_six"),
    "llama": _Family(),
    "mistral": _Family(False, False, False, window="all"),
    "mixtral": _Family(False, False, False, experts="num_local_experts", expert_size="intermediate_size", window="all"),
    "phi3": _Family(False, False, False, window="all"),
    "qwen2": _Family(True, False, False, window="switched"),
    "qwen2_moe": _Family(True, False, False, experts="num_experts", expert_size="moe_intermediate_size", window="switched"),
    "qwen3": _Family(mlp_bias=False, head_norms=True, window="switched"),
    "qwen3_moe": _Family(mlp_bias=False, head_norms=True, experts="num_experts", expert_size="moe_intermediate_size", window="switched"),
    "smollm3": _Family(tied=True, window="switched"),
    "starcoder2": _Family(True, True, True, gated=False, tied=True, norm_params=2, window="all"),
}


def read_config(path: Path) -> dict[str, Any]:
    """What stands in a config.json, a mapping of anything.

    Raises
    ------
    InputError
        If it is no JSON object.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise InputError(f"{path}: not JSON; copy or download the model again") from None
    if not isinstance(config, dict):
        raise InputError(f"{path}: a JSON object is wanted, found {type(config).__name__}; copy or download the model again")
    return config


def whole_number(config: dict[str, Any], key: str, most: int = MAX_SIZE) -> int:
    """A whole number from 1 to `most` that a config.json must have.

    Raises
    ------
    InputError
        If it lacks the field, or holds something else.
    """
    value = config.get(key)
    if value is None:
        raise InputError(f"config.json: lacks {key}; a decoder-only model's config is wanted")
    if type(value) is not int or not 1 <= value <= most:
        raise InputError(f"config.json: {key} is {_short(value)}; a whole number of at least 1 and at most {most} is wanted")
    return value


def _short(value: object) -> str:
    """A value for a message."""
    return repr(value)[:50] if isinstance(value, str | int | float) else f"a {type(value).__name__}"


def _number_or_zero(config: dict[str, Any], key: str) -> int:
    """A whole number that a config.json may have; 0 without it."""
    value = config.get(key)
    return 0 if value is None or (type(value) is int and value == 0) else whole_number(config, key)


def _list(config: dict[str, Any], key: str) -> list[Any]:
    """A list that a config.json may have; an empty one without it."""
    value = config.get(key)
    if value is not None and not isinstance(value, list):
        raise InputError(f"config.json: {key} is {_short(value)}; a list is wanted")
    return value or []


def _sliding_layers(config: dict[str, Any], family: _Family, n_layers: int) -> int:
    """How many layers attend to a window only."""
    if not _number_or_zero(config, "sliding_window") or (family.window == "switched" and not config.get("use_sliding_window", False)):
        return 0
    if kinds := _list(config, "layer_types"):
        return sum(kind == "sliding_attention" for kind in kinds)
    if family.window == "switched":
        return max(0, n_layers - _number_or_zero(config, "max_window_layers"))
    return {"none": 0, "all": n_layers, "odd": (n_layers + 1) // 2, "five_of_six": n_layers - n_layers // 6}[family.window]


def _moe_layers(config: dict[str, Any], n_layers: int) -> int:
    """How many layers have experts: every decoder_sparse_step-th one, but for mlp_only_layers."""
    step, dense = _number_or_zero(config, "decoder_sparse_step") or 1, _list(config, "mlp_only_layers")
    return sum(i not in dense and (i + 1) % step == 0 for i in range(n_layers))


def shape_of(config: dict[str, Any]) -> Shape:
    """Shape of a decoder-only model from its config.json, its number of parameters in closed form.

    With hidden size h, V tokens, L layers, H query and G key heads of dimension d, MLPs of size f::

        N = V·h·(1 if tied else 2) + L·[h·d·(2H + 2G) + norms + biases] + L_dense·m·h·f + L_moe·[h·E + E·m·h·f_e + m·h·f_s + h] + h

    with m = 3 matrices of a gated MLP or 2, E experts of size f_e behind a router of h·E, a shared expert of size f_s with its gate of h.

    Worked by hand: a Llama of V 10, h 4, L 1, H 2, G 1, d 2, f 6, untied: 80 + [4·2·(4 + 2) + 2·4] + 3·4·6 + 4 = 80 + 56 + 72 + 4 = 212.

    Parameters
    ----------
    config : mapping
        What stands in config.json.

    Raises
    ------
    InputError
        For a kind of model that is not known here, or a field that is missing or no number: it is named.
    """
    kind = config.get("model_type")
    if kind is None:
        raise InputError("config.json: lacks model_type; a decoder-only model's config is wanted")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise InputError(
            f"config.json: model_type {_short(kind)} is none that the cost model knows; it knows {', '.join(sorted(FAMILIES))}"
        )
    family = FAMILIES[kind]
    h, heads, vocab = (whole_number(config, k) for k in ("hidden_size", "num_attention_heads", "vocab_size"))
    n_layers = whole_number(config, "num_hidden_layers", MAX_LAYERS)
    kv_heads = _number_or_zero(config, "num_key_value_heads") or heads
    d = _number_or_zero(config, "head_dim") or h // heads
    if d < 1:
        raise InputError(f"config.json: num_attention_heads is {heads}, more than hidden_size {h}; a decoder-only model's config is wanted")
    f = whole_number(config, "intermediate_size")
    matrices = 3 if family.gated else 2
    n_moe, experts, per_token, expert_size, shared = 0, 0, 0, 0, 0
    if family.experts:
        n_moe = _moe_layers(config, n_layers)
        named = next((key for key in ("num_local_experts", "num_experts") if key in config), family.experts)  # both names are in use
        experts, per_token, expert_size = (whole_number(config, k) for k in (named, "num_experts_per_tok", family.expert_size))
        shared = whole_number(config, "shared_expert_intermediate_size") if kind == "qwen2_moe" else 0
    switches = bool(config.get("attention_bias", False)), bool(config.get("mlp_bias", False))
    qkv_bias = switches[0] if family.qkv_bias is None else family.qkv_bias and bool(config.get("qkv_bias", True))
    out_bias = switches[0] if family.out_bias is None else family.out_bias
    mlp_bias = switches[1] if family.mlp_bias is None else family.mlp_bias
    tied = bool(config.get("tie_word_embeddings", family.tied))
    attention = h * d * (2 * heads + 2 * kv_heads) + qkv_bias * d * (heads + 2 * kv_heads) + out_bias * h
    norms = family.norms * family.norm_params * h + family.head_norms * 2 * d
    dense = matrices * h * f + mlp_bias * ((matrices - 1) * f + h)
    moe = h * experts + experts * matrices * h * expert_size + (matrices * h * shared + h if shared else 0)
    return Shape(
        n_params=vocab * h * (1 if tied else 2)
        + n_layers * (attention + norms)
        + (n_layers - n_moe) * dense
        + n_moe * moe
        + family.norm_params * h,
        n_layers=n_layers,
        hidden_size=h,
        n_heads=heads,
        n_kv_heads=kv_heads,
        head_dim=d,
        intermediate_size=f,
        vocab_size=vocab,
        tied=tied,
        gated=family.gated,
        sliding_window=config["sliding_window"] if _sliding_layers(config, family, n_layers) else None,
        n_sliding_layers=_sliding_layers(config, family, n_layers),
        n_experts=experts,
        experts_per_token=per_token,
        moe_intermediate_size=expert_size,
        shared_expert_intermediate_size=shared,
        n_moe_layers=n_moe,
    )
