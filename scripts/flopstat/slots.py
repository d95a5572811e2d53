"""The engine's key-value cache: prompts held once, one slot per chain behind them, chains of any length side by side.

transformers' DynamicCache copies the whole cache for every new token and knows one length for all rows. Here a token is written in place
at its row's own position, and a row that ends gives its slot to another; the rows in use are always slots 0..n-1. All chains of a prompt
read the same keys and values of that prompt: their queries meet it in one matrix product, and what they share is stored and read once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AttentionInterface
from transformers.cache_utils import Cache, CacheLayerMixin

from flopstat.errors import InputError

ATTENTION = "flopstat-slots"  # name of our attention among transformers' own
GROWTH = 64  # tokens that the length of the slots grows by at least

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Step:
    """What one decoding step reads and writes.

    rows : n, slots in use
    place : (n,) where each row's new token goes in its slot
    length : tokens of the slots that are read
    prompts : prompt slots in use
    prompt_length : tokens of the prompt slots that are read
    spread : (prompts · most rows of a prompt,) the row that stands there, rows of a prompt side by side, the rest filled up
    gather : (n,) where each row stands among them
    bias, window_bias : (n, 1, 1, prompt_length + length) 0 where a row sees a token, the lowest number elsewhere
    """

    rows: int
    place: torch.Tensor
    length: int
    prompts: int
    prompt_length: int
    spread: torch.Tensor
    gather: torch.Tensor
    bias: torch.Tensor
    window_bias: torch.Tensor


class SlotLayer(CacheLayerMixin):
    """Keys and values of one layer, (slots, heads, tokens, dimension), on the layer's own device: of the chains, and of the prompts."""

    keys: torch.Tensor
    values: torch.Tensor
    prompt_keys: torch.Tensor
    prompt_values: torch.Tensor

    def __init__(self, slots: Slots) -> None:
        super().__init__()
        self.slots = slots

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing: storage comes with the first prompt."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one token per row at the rows' places; return all that the chains have behind their prompts."""
        step = self.slots.step
        rows, place = torch.arange(step.rows, device=key_states.device), step.place.to(key_states.device)
        self.keys[rows, :, place] = key_states[:, :, 0]
        self.values[rows, :, place] = value_states[:, :, 0]
        return self.keys[: step.rows, :, : step.length], self.values[: step.rows, :, : step.length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.slots.step.length, 0

    def get_seq_length(self) -> int:
        return self.slots.step.length

    def get_max_length(self) -> int:
        return -1

    def start(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Empty storage of the right shape, type and device for one prompt's keys and values, (heads, tokens, dimension)."""
        for name, like in (("keys", keys), ("values", values), ("prompt_keys", keys), ("prompt_values", values)):
            setattr(self, name, like.new_zeros((0, like.shape[0], 0, like.shape[2])))
        self.is_initialized = True

    def resize(self, names: tuple[str, str], rows: int, length: int) -> None:
        """Make room for (or shrink to) `rows` slots of `length` tokens, keeping what fits."""
        for name in names:
            old = getattr(self, name)
            if old.shape[0::2] == (rows, length):
                continue
            # Zeros, not empty: masked places have no weight, but a NaN that lies there by chance would spread all the same.
            new = old.new_zeros((rows, old.shape[1], length, old.shape[3]))
            keep, upto = min(rows, old.shape[0]), min(length, old.shape[2])
            new[:keep, :, :upto] = old[:keep, :, :upto]
            setattr(self, name, new)


OWN, PROMPT = ("keys", "values"), ("prompt_keys", "prompt_values")


class Slots:
    """The cache of all layers, and the step that the next forward pass takes."""

    step: Step

    def __init__(self, n_layers: int) -> None:
        self.layers = [SlotLayer(self) for _ in range(n_layers)]
        self.cache = Cache(layers=list(self.layers))
        self.size = {OWN: (0, 0), PROMPT: (0, 0)}  # slots and tokens per slot
        self.prompt_lengths = np.zeros(0, dtype=np.int64)

    def reserve(self, rows: int, length: int, most: int, part: tuple[str, str] = OWN) -> None:
        """Make sure that `rows` slots of `length` tokens fit; tokens grow in steps, never beyond `most`."""
        slots, tokens = self.size[part]
        if rows <= slots and length <= tokens:
            return
        longer = min(most, max(length + GROWTH, tokens * 5 // 4))
        self._resize(part, max(rows, slots), longer if length > tokens else tokens)

    def shrink(self, rows: int) -> None:
        """Give back all slots but the first `rows`, and what a growth that ran out of memory left half done."""
        self._resize(OWN, min(rows, self.size[OWN][0]), self.size[OWN][1])
        self._resize(PROMPT, len(self.prompt_lengths), self.size[PROMPT][1])

    def _resize(self, part: tuple[str, str], rows: int, length: int) -> None:
        for layer in self.layers:
            if layer.is_initialized:
                layer.resize(part, rows, length)
        self.size[part] = (rows, length)

    def add_prompt(self, layers: list[tuple[torch.Tensor, torch.Tensor]], most: int) -> int:
        """Store a prefilled prompt, keys and values per layer, (heads, tokens, dimension); returns its slot."""
        for layer, (keys, values) in zip(self.layers, layers, strict=True):
            if not layer.is_initialized:
                layer.start(keys, values)
        slot, length = len(self.prompt_lengths), layers[0][0].shape[1]
        if slot >= self.size[PROMPT][0]:
            self.reserve(max(slot + 1, slot * 3 // 2), length, most, PROMPT)
        self.reserve(slot + 1, length, most, PROMPT)
        for layer, (keys, values) in zip(self.layers, layers, strict=True):
            layer.prompt_keys[slot, :, :length] = keys
            layer.prompt_values[slot, :, :length] = values
        self.prompt_lengths = np.append(self.prompt_lengths, length)
        return slot

    def keep_prompts(self, used: NDArray[np.bool_]) -> Indices:
        """Drop prompts that no row uses, closing the gaps with the last ones; returns the new slot of each old one."""
        renumber = np.arange(len(used))
        n = int(used.sum())
        sources, targets = np.flatnonzero(used[n:]) + n, np.flatnonzero(~used[:n])
        if len(sources):
            self._move(PROMPT, sources, targets, int(self.prompt_lengths[sources].max()))
            self.prompt_lengths[targets] = self.prompt_lengths[sources]
            renumber[sources] = targets
        self.prompt_lengths = self.prompt_lengths[:n].copy()
        return renumber

    def clear(self, rows: Indices) -> None:
        """Zero some chains' slots: a chain whose numbers broke leaves nothing behind."""
        for layer in self.layers:
            for name in OWN:
                getattr(layer, name)[torch.from_numpy(rows)] = 0

    def move(self, sources: Indices, targets: Indices, length: int) -> None:
        """Copy the first `length` tokens of some chains' slots to others."""
        if len(sources):
            self._move(OWN, sources, targets, length)

    def _move(self, part: tuple[str, str], sources: Indices, targets: Indices, length: int) -> None:
        a, b = torch.from_numpy(sources), torch.from_numpy(targets)
        for layer in self.layers:
            for name in part:
                stored = getattr(layer, name)
                stored[b, :, :length] = stored[a, :, :length]

    def prepare(self, which: Indices, length: Indices, window: int | None, device: torch.device) -> None:
        """Set the step: row r of prompt which[r] has `length[r]` tokens behind it, the last of which is written now."""
        prompt_length, longest = int(self.prompt_lengths.max()), int(length.max())
        before = torch.from_numpy(self.prompt_lengths[which]).to(device).unsqueeze(1)
        own = torch.from_numpy(length).to(device).unsqueeze(1)
        a, b = torch.arange(prompt_length, device=device), torch.arange(longest, device=device)
        seen = torch.cat([a < before, b < own], dim=1)
        keys = self.layers[0].keys
        # Scores are summed up in float32 at least, so that is what the mask is added to.
        dtype = keys.dtype if keys.dtype == torch.float64 else torch.float32
        bias = window_bias = _additive(seen, dtype)
        if window is not None:
            position = torch.cat([a.expand(len(which), -1), before + b], dim=1)
            window_bias = _additive(seen & (position > before + own - 1 - window), dtype)
        place, groups = torch.from_numpy(length - 1), _grouped(which, len(self.prompt_lengths), device)
        self.step = Step(len(which), place, longest, len(self.prompt_lengths), prompt_length, *groups, bias, window_bias)

    @contextmanager
    def attending(self, config: Any) -> Iterator[None]:
        """Let the model with this config attend to these slots."""
        usual = config._attn_implementation
        config._attn_implementation = ATTENTION
        _running.append(self)
        try:
            yield
        finally:
            _running.pop()
            config._attn_implementation = usual


def _grouped(which: Indices, n_prompts: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows side by side by prompt: (spread, gather) of a Step."""
    counts = np.bincount(which, minlength=n_prompts)
    most = int(counts.max())
    order = np.argsort(which, kind="stable")
    within = np.empty(len(which), dtype=np.int64)
    within[order] = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
    gather = which * most + within
    spread = np.zeros(n_prompts * most, dtype=np.int64)
    spread[gather] = np.arange(len(which))
    return torch.from_numpy(spread).to(device), torch.from_numpy(gather).to(device)


def _additive(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)[:, None, None]


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one new token per row over its prompt and its own tokens.

    softmax([q·K_prompt, q·K_own]·scaling)·[V_prompt, V_own], with the queries of a prompt's rows in one product. Grouped queries share
    their key head in the same way.

    Parameters
    ----------
    query : (rows, heads, 1, dimension)
    key, value : (rows, key heads, tokens, dimension), as SlotLayer.update returns them

    Raises
    ------
    InputError
        For attention sinks, which this sum leaves out.
    """
    if kwargs.get("s_aux") is not None:
        raise InputError("attention sinks are not supported; choose another model")
    layer: SlotLayer = _running[-1].layers[module.layer_idx]  # type: ignore[index]
    step = layer.slots.step
    n, heads, _, dimension = query.shape
    shared, m = key.shape[1], len(step.spread) // step.prompts
    group = heads // shared
    device = query.device
    spread, gather = step.spread.to(device), step.gather.to(device)
    q = query.reshape(n, shared, group, dimension) * (dimension**-0.5 if scaling is None else scaling)
    prompt_keys = layer.prompt_keys[: step.prompts, :, : step.prompt_length]
    prompt_values = layer.prompt_values[: step.prompts, :, : step.prompt_length]

    def side_by_side(rows: torch.Tensor) -> torch.Tensor:
        """(prompts · m, shared, group, x) as (prompts, shared, m · group, x)."""
        return rows.view(step.prompts, m, shared, group, -1).transpose(1, 2).reshape(step.prompts, shared, m * group, -1)

    def row_by_row(grouped: torch.Tensor) -> torch.Tensor:
        """The way back, the places filled up left out."""
        rows = grouped.view(step.prompts, shared, m, group, -1).transpose(1, 2).reshape(step.prompts * m, shared, group, -1)
        return rows.index_select(0, gather)

    on_prompt = row_by_row(side_by_side(q.index_select(0, spread)) @ prompt_keys.transpose(-1, -2))
    scores = torch.cat([on_prompt, q @ key.transpose(-1, -2)], dim=-1)
    bias = step.window_bias if _windowed(module) else step.bias
    scores = scores.to(bias.dtype)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    weights = torch.softmax(scores + bias.to(device), dim=-1).to(query.dtype)
    placed = side_by_side(weights[..., : step.prompt_length].index_select(0, spread))
    out = row_by_row(placed @ prompt_values) + weights[..., step.prompt_length :] @ value
    return out.reshape(n, 1, heads, dimension), None


def _windowed(module: torch.nn.Module) -> bool:
    """Whether a layer looks through the window: by its type where layers differ; without types the window is all layers'."""
    kinds = getattr(module.config, "layer_types", None)
    return kinds is None or bool(kinds[module.layer_idx] == "sliding_attention")


AttentionInterface.register(ATTENTION, attend)
_running: list[Slots] = []  # the slots of the step that is being taken
