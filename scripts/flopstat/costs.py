"""What a cell costs: FLOPs, bytes, seconds, money and energy, from the model's shape and the tokens really used.

One forward pass of a token that attends to c tokens (itself included) through a decoder takes

    2·(W_layers + W_head) + 4·H·d·(L_full·c + L_sliding·min(c, window))    FLOP

with W the matrix weights it is multiplied with (one multiply and one add each), L layers, H query heads of dimension d: q·k and the
weighted sum of v take 2·H·d·c each. Grouped-query attention changes W_layers only. A layer with experts counts its router, the
experts that a token is sent to and the shared expert with its gate.

Left out, as is usual: norms, activations, rotary embedding, softmax, the embedding look-up (a copy), and sampling. They are below 1% for
large models; for the ladder's smallest they are not, which calibration shows as a larger C.

Source: Kaplan et al. 2020, section 2.1; Hoffmann et al. 2022, appendix F; the layout of the docstring follows nanochat's estimate_flops.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flopstat.models import Card, ModelCard
from flopstat.shape import Shape

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Whole = NDArray[np.int64] | NDArray[np.float64] | int | float

COST_UNITS = {
    "flops": "FLOP",
    "flops_nominal": "FLOP",
    "eflops": "FLOP",
    "device_s": "s",
    "latency_p50_s": "s",
    "latency_p90_s": "s",
    "memory_bytes": "byte",
    "usd": "US$",
    "joules": "J",
}
COSTS = tuple(COST_UNITS)  # those that frontiers and crossovers are drawn on, the headline's candidates first
COST_NAMES = {
    "flops": "FLOP per problem (counted)",
    "flops_nominal": "FLOP per problem (nominal)",
    "eflops": "equivalent FLOP per problem",
    "device_s": "device-seconds per problem",
    "latency_p50_s": "seconds until the vote is in (median)",
    "latency_p90_s": "seconds until the vote is in (90th percentile)",
    "memory_bytes": "bytes of weights and KV cache",
    "usd": "US$ per problem",
    "joules": "joules per problem",
}
NEEDS_PRICE, NEEDS_WATTS = ("usd",), ("joules",)
MEASURED_COSTS = ("eflops", "device_s", "latency_p50_s", "latency_p90_s", "usd", "joules")  # those that stand on a machine's calibration
DTYPE_BITS = {"float64": 64, "float32": 32, "bfloat16": 16, "float16": 16}  # per number, by compute dtype


def within(n: Whole, window: float) -> Floats:
    """Sum of min(c, window) over c = 1..n: n(n+1)/2, less (n-w)(n-w+1)/2 beyond the window."""
    n = np.asarray(n, dtype=np.float64)
    beyond = np.maximum(n - window, 0.0)
    return np.asarray((n * (n + 1) - beyond * (beyond + 1)) / 2)


@dataclass(frozen=True)
class Flops:
    """FLOP counts of one model. All counts are per sequence, in FLOP."""

    layer_weights: int  # that one token is multiplied with
    head_weights: int
    attention: int  # 4·L_full·H·d, per attended token
    sliding_attention: int = 0  # 4·L_sliding·H·d, per attended token within the window
    window: float = float("inf")  # tokens

    @classmethod
    def of(cls, shape: Shape) -> Flops:
        """Counts of a shape or a model card.

        Worked by hand: h 4, H 2, G 1, d 2, two layers, V 10; one dense MLP of 6; one with 4 experts of 3, 2 per token, and a shared one
        of 5 with its gate: W_layers = 2·4·2·(4 + 2) + 3·4·6 + [4·4 + 2·3·4·3 + 3·4·5 + 4] = 96 + 72 + 152 = 320.
        """
        h, d = shape.hidden_size, shape.head_dim
        projections = h * d * (2 * shape.n_heads + 2 * shape.n_kv_heads)
        dense = shape.mlp_matrices * h * shape.intermediate_size
        shared = shape.shared_expert_intermediate_size
        experts = h * shape.n_experts + shape.experts_per_token * shape.expert_params
        experts += shape.mlp_matrices * h * shared + h if shared else 0
        per_layer = 4 * shape.n_heads * d
        return cls(
            shape.n_layers * projections + (shape.n_layers - shape.n_moe_layers) * dense + shape.n_moe_layers * experts,
            h * shape.vocab_size,
            per_layer * (shape.n_layers - shape.n_sliding_layers),
            per_layer * shape.n_sliding_layers,
            float("inf") if shape.sliding_window is None else float(shape.sliding_window),
        )

    def prefill(self, n: Whole) -> Floats:
        """n prompt tokens at once, logits of the last position only: 2·W_layers·n + 4·L·H·d·n² + 2·W_head.

        The attention square is full in every layer, as the eager counter sees it: masked products are computed, too. A kernel that
        skips what is masked takes n(n+1)/2 of it in a full layer, and the sum of min(c, window) over c = 1..n in a sliding one.
        Worked by hand: W_layers 100, W_head 10, 4LHd 8, 5 tokens: 1000 + 200 + 20 = 1220; such a kernel: 1000 + 120 + 20 = 1140.
        """
        n = np.asarray(n, dtype=np.float64)
        square = (self.attention + self.sliding_attention) * n**2
        return np.asarray(2.0 * self.layer_weights * n + square + 2.0 * self.head_weights, dtype=np.float64)

    def forward(self, n: Whole) -> Floats:
        """n tokens at once with logits of every position: what a counter sees in one eager forward pass."""
        n = np.asarray(n, dtype=np.float64)
        square = (self.attention + self.sliding_attention) * n**2
        return np.asarray(2.0 * (self.layer_weights + self.head_weights) * n + square, dtype=np.float64)

    def step(self, context: Whole) -> Floats:
        """One decoding pass of a token that attends to `context` tokens, itself included; sliding layers to `window` of them at most.

        Worked by hand: W_layers 100, W_head 10, 8 per token in full layers, 4 within a window of 3: at context 5 220 + 40 + 12 = 272.
        """
        c = np.asarray(context, dtype=np.float64)
        attended = self.attention * c + self.sliding_attention * np.minimum(c, self.window)
        return np.asarray(2.0 * (self.layer_weights + self.head_weights) + attended, dtype=np.float64)

    def decode(self, prompt: Whole, tokens: Whole) -> Floats:
        """Generating `tokens` after a prefill of `prompt` tokens.

        The first token comes from the prefill's logits. Token t = 2..n needs one pass that attends to prompt + t - 1 tokens::

            (n-1)·2·(W_layers + W_head) + 4·L·H·d·[(n-1)·prompt + n(n-1)/2]

        Worked by hand: W_layers 100, W_head 10, 4LHd 8, prompt 5, 3 tokens: 2·2·110 + 8·(2·5 + 3) = 544. If 4 of the 8 lie in layers
        with a window of 6, these attend to 6 and 6 instead of 6 and 7 tokens: 540.
        """
        n = np.asarray(tokens, dtype=np.float64)
        p = np.asarray(prompt, dtype=np.float64)
        passes = np.maximum(n - 1, 0)
        attended = self.attention * (within(p + passes, np.inf) - within(p, np.inf))
        if self.sliding_attention:
            attended = attended + self.sliding_attention * (within(p + passes, self.window) - within(p, self.window))
        return np.asarray(passes * 2.0 * (self.layer_weights + self.head_weights) + attended, dtype=np.float64)


def flops_of(card: Card) -> Flops | None:
    """FLOP counts of a model, None if its samples were imported: its shape is not known."""
    return Flops.of(card) if isinstance(card, ModelCard) else None


def certain_costs(drawn: bool, priced: bool) -> list[str]:
    """Costs that a study is sure to have, known before it runs, by whether it draws samples and names a device's price.

    The headline's cost comes first. Energy depends on what the machine can read.
    """
    if not drawn:
        return ["flops_nominal"]
    return [cost for cost in COSTS if cost not in NEEDS_WATTS and (priced or cost not in NEEDS_PRICE)]


def headline_cost(table: pd.DataFrame) -> str | None:
    """The cost that a study's figure, paper and summary stand on: counted FLOPs, or nominal ones where no arm has those; None without any.

    Parameters
    ----------
    table : table
        configurations.csv.
    """
    return next((name for name in ("flops", "flops_nominal") if table[name].notna().any()), None)


def c_counted(card: Shape, tokens: int) -> float:
    """Counted FLOPs per token and parameter of one forward pass over `tokens` tokens (2 for a large model at a short context)."""
    return float(Flops.of(card).forward(tokens)) / (tokens * card.n_params)


def flops_seed(branches: int, budget: int, n_params: int, c_effective: float) -> float:
    """B·T·N·c_effective, as the source recipe writes it: P is left out. Worked by hand: 2·100·1000·3 = 600,000."""
    return float(branches) * budget * n_params * c_effective


def flops_nominal(streams: int, branches: int, budget: int, answer_tokens: int, n_params: int, c: float) -> float:
    """P·B·(T + A)·N·c_counted: what to provision. Worked by hand: 2·2·(100 + 10)·1000·2 = 880,000."""
    return float(streams) * branches * (budget + answer_tokens) * n_params * c


def flops_verifier(chains: float, n_params: int, tokens: float) -> float:
    """A verifier that reads each chain once, prompt and solution: 2·N·tokens each. Worked by hand: 3·2·1000·50 = 300,000.

    # ASSUME a verifier takes 2 FLOP per parameter and token; its attention is left out
    """
    return 2.0 * chains * n_params * tokens


def weight_bytes(shape: Shape, bits_effective: float) -> float:
    """All weights as they are held, N·bits/8 bytes. Worked by hand: 1000 parameters at 4.5 bits: 562.5."""
    return shape.n_params * bits_effective / 8


def weight_bytes_read(shape: Shape, bits_effective: float, streams: float) -> float:
    """Bytes of weights that one decoding step of `streams` tokens reads.

    The untied input embedding is left out (a row per token), and of E experts those that no token is sent to: with k per token and
    routers that spread evenly, E·[1 - (1 - k/E)^streams] are read.

    Worked by hand: 1000 parameters at 8 bits with one layer of 4 experts of 100, 2 per token. One stream reads 2 of them: 800 bytes.
    Two streams read 4·(1 - 1/4) = 3: 900.

    # ASSUME all weights are read at the mean bits per weight, and experts are chosen evenly and independently
    """
    embedding = 0 if shape.tied else shape.vocab_size * shape.hidden_size
    idle = 0.0
    if shape.n_moe_layers:
        idle = shape.n_experts * (1 - shape.experts_per_token / shape.n_experts) ** streams
    return (shape.n_params - embedding - idle * shape.n_moe_layers * shape.expert_params) * bits_effective / 8


def kv_bytes_per_token(shape: Shape, kv_bits: float) -> float:
    """Keys and values of one token in all layers: 2·L·G·d·bits/8 bytes. Worked by hand: L 2, G 1, d 4 at 16 bits: 32.

    Sliding layers count as the others do: up to their window they hold as much; `kv_bytes` knows the window.
    """
    return 2 * shape.n_layers * shape.n_kv_heads * shape.head_dim * kv_bits / 8


def kv_bytes(shape: Shape, tokens: Whole, kv_bits: float) -> Floats:
    """Keys and values of a sequence of `tokens`; sliding layers hold at most their window.

    Worked by hand: L 2 of which one slides with a window of 3, G 1, d 4 at 16 bits: 5 tokens take 16·5 + 16·3 = 128 bytes.
    """
    n = np.asarray(tokens, dtype=np.float64)
    per_layer = kv_bytes_per_token(shape, kv_bits) / shape.n_layers
    held = n if shape.sliding_window is None else np.minimum(n, shape.sliding_window)
    return np.asarray(per_layer * ((shape.n_layers - shape.n_sliding_layers) * n + shape.n_sliding_layers * held))


def memory_bytes(shape: Shape, bits_effective: float, streams: Whole, prompt: Whole, tokens: Whole, kv_bits: float) -> Floats:
    """Weights at effective bits, and the KV cache of `streams` chains of prompt + tokens: what has to fit.

    Each stream holds the prompt, as the engine's cache does; one that shares prefixes needs it once. Left out: activations, logits, and
    what an allocator keeps in reserve.

    Worked by hand: 1000 parameters at 8 bits, 32 bytes per token, 4 streams of 5 + 10 tokens: 1000 + 4·15·32 = 2920.
    """
    per_stream = kv_bytes(shape, np.asarray(prompt) + np.asarray(tokens), kv_bits)
    return np.asarray(weight_bytes(shape, bits_effective) + np.asarray(streams) * per_stream)
