"""The engine's key-value cache: one slot per chain, chains of any length side by side, joining and leaving at any step.

transformers' DynamicCache copies the whole cache for every new token and knows one length for all rows. Here a token is written in place
at its row's own position; a row that ends gives its slot to the next one; the rows in use are always slots 0..n-1.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

GROWTH = 64  # tokens that the length of the slots grows by at least


class SlotLayer(CacheLayerMixin):
    """Keys and values of one layer, (slots, heads, length, dimension), on the layer's own device."""

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, slots: Slots) -> None:
        super().__init__()
        self.slots = slots

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing: storage comes with the first prompt."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one token per row at the rows' positions; return all that the rows have."""
        s = self.slots
        rows, positions = s.rows.to(key_states.device), s.positions.to(key_states.device)
        self.keys[rows, :, positions] = key_states[:, :, 0]
        self.values[rows, :, positions] = value_states[:, :, 0]
        n, length = len(rows), s.length
        return self.keys[:n, :, :length], self.values[:n, :, :length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.slots.length, 0

    def get_seq_length(self) -> int:
        return self.slots.length

    def get_max_length(self) -> int:
        return -1

    def resize(self, rows: int, length: int) -> None:
        """Make room for (or shrink to) `rows` slots of `length` tokens, keeping what fits."""
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = old.new_zeros((rows, old.shape[1], length, old.shape[3]))
            keep, upto = min(rows, old.shape[0]), min(length, old.shape[2])
            new[:keep, :, :upto] = old[:keep, :, :upto]
            setattr(self, name, new)

    def put(self, slots: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, rows: int, length: int) -> None:
        """Write the same prompt, (heads, tokens, dimension), into several slots."""
        if not self.is_initialized:
            # Zeros, not empty: masked places have no weight, but a NaN that lies there by chance would spread all the same.
            self.keys = keys.new_zeros((rows, keys.shape[0], length, keys.shape[2]))
            self.values = values.new_zeros((rows, values.shape[0], length, values.shape[2]))
            self.is_initialized = True
        slots = slots.to(self.keys.device)
        self.keys[slots, :, : keys.shape[1]] = keys
        self.values[slots, :, : values.shape[1]] = values

    def clear(self, slots: torch.Tensor) -> None:
        """Zero some slots: a chain whose numbers broke leaves nothing behind."""
        slots = slots.to(self.keys.device)
        self.keys[slots] = 0
        self.values[slots] = 0

    def move(self, sources: torch.Tensor, targets: torch.Tensor, length: int) -> None:
        """Copy the first `length` tokens of some slots to others."""
        sources, targets = sources.to(self.keys.device), targets.to(self.keys.device)
        self.keys[targets, :, :length] = self.keys[sources, :, :length]
        self.values[targets, :, :length] = self.values[sources, :, :length]


class Slots:
    """The cache of all layers. `rows`, `positions` and `length` say what the next forward pass writes and reads."""

    def __init__(self, n_layers: int) -> None:
        self.layers = [SlotLayer(self) for _ in range(n_layers)]
        self.cache = Cache(layers=list(self.layers))
        self.rows = torch.empty(0, dtype=torch.long)
        self.positions = torch.empty(0, dtype=torch.long)
        self.length = 0
        self.n_slots = 0
        self.capacity = 0  # tokens per slot

    def reserve(self, rows: int, length: int, most: int) -> None:
        """Make sure that `rows` slots of `length` tokens fit; grow in steps, never beyond `most` tokens."""
        if rows <= self.n_slots and length <= self.capacity:
            return
        rows = max(rows, self.n_slots)
        longer = min(most, max(length + GROWTH, self.capacity * 5 // 4))
        self._resize(rows, longer if length > self.capacity else self.capacity)

    def shrink(self, rows: int) -> None:
        """Give back all slots but the first `rows`; also what a growth that ran out of memory left half done."""
        self._resize(min(rows, self.n_slots), self.capacity)

    def _resize(self, rows: int, length: int) -> None:
        for layer in self.layers:
            if layer.is_initialized and layer.keys.shape[0::2] != (rows, length):
                layer.resize(rows, length)
        self.n_slots, self.capacity = rows, length

    def put(self, slots: torch.Tensor, prompt: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Write a prefilled prompt into some slots."""
        for layer, (keys, values) in zip(self.layers, prompt, strict=True):
            layer.put(slots, keys, values, self.n_slots, self.capacity)

    def clear(self, slots: torch.Tensor) -> None:
        """Zero some slots."""
        for layer in self.layers:
            layer.clear(slots)

    def move(self, sources: torch.Tensor, targets: torch.Tensor, length: int) -> None:
        """Copy some slots to others."""
        for layer in self.layers:
            layer.move(sources, targets, length)
