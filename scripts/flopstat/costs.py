"""What a cell costs in FLOPs, from the model's shape and the tokens really used.

One forward pass of a token that attends to c tokens (itself included) through a dense decoder takes

    2·(W_layers + W_head) + 4·L·H·d·c    FLOP

with W the matrix weights it is multiplied with (one multiply and one add each), L layers, H query heads of dimension d: q·k and the
weighted sum of v take 2·H·d·c each. Grouped-query attention changes W_layers only.

Left out, as is usual: norms, activations, rotary embedding, softmax, the embedding look-up (a copy), and sampling. They are below 1% for
large models; for the ladder's smallest they are not, which calibration shows as a larger C.

Source: Kaplan et al. 2020, section 2.1; Hoffmann et al. 2022, appendix F; the layout of the docstring follows nanochat's estimate_flops.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from flopstat.models import Card, ModelCard

COSTS = ("flops", "flops_nominal")  # those that frontiers and crossovers are drawn on


@dataclass(frozen=True)
class Flops:
    """FLOP counts of one model. All counts are per sequence, in FLOP."""

    layer_weights: int
    head_weights: int
    attention: int  # 4·L·H·d, per attended token

    @classmethod
    def of(cls, card: ModelCard) -> Flops:
        h, d = card.hidden_size, card.head_dim
        projections = h * d * (2 * card.n_heads + 2 * card.n_kv_heads)
        gated_mlp = 3 * h * card.intermediate_size
        return cls(card.n_layers * (projections + gated_mlp), h * card.vocab_size, 4 * card.n_layers * card.n_heads * d)

    def prefill(self, n: NDArray[np.int64] | int) -> NDArray[np.float64]:
        """n prompt tokens at once, the full n × n attention square, logits of the last position only."""
        n = np.asarray(n, dtype=np.float64)
        return np.asarray(2.0 * self.layer_weights * n + self.attention * n**2 + 2.0 * self.head_weights, dtype=np.float64)

    def forward(self, n: int) -> float:
        """n tokens at once with logits of every position: what a counter sees in one eager forward pass."""
        return 2.0 * (self.layer_weights + self.head_weights) * n + self.attention * float(n) ** 2

    def decode(self, prompt: NDArray[np.int64] | int, tokens: NDArray[np.int64] | int) -> NDArray[np.float64]:
        """Generating `tokens` after a prefill of `prompt` tokens.

        The first token comes from the prefill's logits. Token t = 2..n needs one pass that attends to prompt + t - 1 tokens::

            (n-1)·2·(W_layers + W_head) + 4·L·H·d·[(n-1)·prompt + n(n-1)/2]

        Worked by hand: W_layers 100, W_head 10, 4LHd 8, prompt 5, 3 tokens: 2·2·110 + 8·(2·5 + 3) = 544.
        """
        n = np.asarray(tokens, dtype=np.float64)
        p = np.asarray(prompt, dtype=np.float64)
        passes = np.maximum(n - 1, 0)
        attended = passes * p + n * passes / 2
        return np.asarray(passes * 2.0 * (self.layer_weights + self.head_weights) + self.attention * attended, dtype=np.float64)


def flops_of(card: Card) -> Flops | None:
    """FLOP counts of a model, None if its samples were imported: its shape is not known."""
    return Flops.of(card) if isinstance(card, ModelCard) else None


def headline_cost(table: pd.DataFrame) -> str | None:
    """The cost that a study's figure, paper and summary stand on: counted FLOPs, or nominal ones where no arm has those; None without any.

    Parameters
    ----------
    table : table
        configurations.csv.
    """
    return next((name for name in COSTS if table[name].notna().any()), None)


def c_counted(card: ModelCard, tokens: int) -> float:
    """Counted FLOPs per token and parameter of one forward pass over `tokens` tokens (2 for a large model at a short context)."""
    return Flops.of(card).forward(tokens) / (tokens * card.n_params)


def flops_seed(branches: int, budget: int, n_params: int, c_effective: float) -> float:
    """B·T·N·c_effective, as the source recipe writes it: P is left out. Worked by hand: 2·100·1000·3 = 600,000."""
    return float(branches) * budget * n_params * c_effective


def flops_nominal(streams: int, branches: int, budget: int, answer_tokens: int, n_params: int, c: float) -> float:
    """P·B·(T + A)·N·c_counted: what to provision. Worked by hand: 2·2·(100 + 10)·1000·2 = 880,000."""
    return float(streams) * branches * (budget + answer_tokens) * n_params * c
