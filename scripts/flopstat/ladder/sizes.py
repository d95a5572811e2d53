"""The four sizes of the ladder and the token counts of their decay branches."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """Architecture and schedule of one ladder model."""

    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    branches: tuple[int, ...]  # tokens on the trunk at which a decay branch leaves
    lr_matrix: float = 0.02  # Muon, hidden matrices
    lr_other: float = 0.005  # AdamW, embedding, norms and biases
    batch_problems: int = 64
    warmup_steps: int = 50
    decay_fraction: float = 0.2
    momentum: float = 0.95
    weight_decay: float = 0.01
    seed: int = 20261121
    shipped: int = -1  # which branch is shipped


def _millions(*values: float) -> tuple[int, ...]:
    return tuple(round(v * 1e6) for v in values)


SIZES = {
    size.name: size
    for size in (
        # Its 2.75M branch is shipped: later ones are no longer weak, and the ladder needs a weak end.
        Size("ladder-30k", 32, 2, 2, 1, 96, _millions(0.5, 1, 2, 2.75, 4, 8, 12, 16), shipped=3),
        # Its 12M branch is shipped: as good as the 16M one, and votes help it more.
        Size("ladder-160k", 64, 3, 4, 2, 192, _millions(0.5, 1, 2, 4, 8, 12, 16), shipped=5),
        Size("ladder-900k", 128, 4, 4, 2, 448, _millions(0.5, 1, 2, 4, 8, 12, 16, 24)),
        Size("ladder-3m", 256, 4, 8, 4, 704, _millions(0.5, 1, 2, 4, 8), lr_matrix=0.008, lr_other=0.003),
    )
}
