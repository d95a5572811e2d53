"""The engine's draw: tokens and confidence statistics of one step for many rows, in few passes over the logits.

It gives what `randomness.truncated_probabilities` and `randomness.inverse_cdf` define, without a sorted copy of the vocabulary and without
a running sum over all of it: probabilities are summed by blocks in float64, the block that holds the target is found first, and only this
block is summed token by token. Rows are taken in chunks that stay in the processor's cache.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from flopstat.engine import CONFIDENCE_TOP

BLOCK = 256  # tokens per block of the two-level inverse CDF and of the search for the most probable tokens
NUCLEUS = 512  # most probable tokens that are sorted first; a row whose nucleus is larger is sorted in full
CHUNK = 1 << 19  # logits per chunk on a CPU: 2 MB in float32


@dataclass(frozen=True)
class Step:
    """One step of some rows.

    tokens : (rows,) int64, -1 where the logits are not finite
    margin : (rows,) float64, distance of u to the nearest boundary of the drawn token's interval; 1 for greedy rows
    values : (4, rows) float32: logprob, entropy, self_certainty, confidence as `engine.Chain` defines them
    """

    tokens: torch.Tensor
    margin: torch.Tensor
    values: torch.Tensor


def choose(
    logits: torch.Tensor, u: torch.Tensor, temperature: torch.Tensor, greedy: torch.Tensor, top_p: float, top_k: int, min_p: float
) -> Step:
    """Draw one token per row.

    Parameters
    ----------
    logits : (rows, vocabulary), any float type; half precision is widened to float32
    u : (rows,) float64 on [0, 1)
    temperature : (rows,) float64
    greedy : (rows,) bool, rows that take the most probable token
    """
    size = max(1, CHUNK // logits.shape[1]) if logits.device.type == "cpu" else logits.shape[0]
    parts = [
        _chunk(logits[a : a + size], u[a : a + size], temperature[a : a + size], greedy[a : a + size], top_p, top_k, min_p)
        for a in range(0, len(logits), size)
    ]
    if len(parts) == 1:
        return parts[0]
    return Step(torch.cat([p.tokens for p in parts]), torch.cat([p.margin for p in parts]), torch.cat([p.values for p in parts], dim=1))


def _chunk(
    logits: torch.Tensor, u: torch.Tensor, temperature: torch.Tensor, greedy: torch.Tensor, top_p: float, top_k: int, min_p: float
) -> Step:
    z = logits if logits.dtype == torch.float64 else logits.float()
    n_tokens = z.shape[1]
    top, best = z.max(dim=1)
    finite = torch.isfinite(top)  # a NaN anywhere in a row is its maximum
    if not bool(finite.all()):
        z = torch.where(finite.unsqueeze(1), z, torch.zeros((), dtype=z.dtype, device=z.device))
        top = torch.where(finite, top, torch.zeros((), dtype=z.dtype, device=z.device))
    z = z - top.unsqueeze(1)
    e = z.exp()
    total = e.sum(1, dtype=torch.float64)
    log_total = total.log()
    # Tokens that a model masks have a logit of minus infinity and no part in the entropy.
    entropy = log_total - torch.linalg.vecdot(e, z.clamp(min=-1e4)).double() / total
    certainty = log_total - z.mean(1, dtype=torch.float64) - math.log(n_tokens)
    confidence = log_total - _largest(z, min(CONFIDENCE_TOP, n_tokens)).mean(1, dtype=torch.float64)
    if not bool((temperature == 1.0).all()):
        e = torch.exp(z / temperature.to(z.dtype).unsqueeze(1))
    if top_k or top_p < 1.0 or min_p > 0.0:
        e = _truncate(e, top_p, top_k, min_p)
    drawn, margin = _invert(e, u)
    tokens = torch.where(greedy, best, drawn)
    logprob = z.gather(1, tokens.unsqueeze(1)).squeeze(1).double() - log_total
    return Step(
        torch.where(finite, tokens, -1),
        torch.where(greedy, torch.ones_like(margin), margin),
        torch.stack([logprob, entropy, certainty, confidence]).float(),
    )


def _largest(z: torch.Tensor, k: int) -> torch.Tensor:
    """The k largest values of each row: they lie in the k blocks with the largest maxima."""
    rows, n_tokens = z.shape
    whole = n_tokens // BLOCK
    if whole <= k:
        return z.topk(k, dim=1).values
    blocks = z[:, : whole * BLOCK].view(rows, whole, BLOCK)
    chosen = blocks.amax(2).topk(k, dim=1).indices
    candidates = blocks.gather(1, chosen.unsqueeze(2).expand(-1, -1, BLOCK)).reshape(rows, -1)
    return torch.cat([candidates, z[:, whole * BLOCK :]], dim=1).topk(k, dim=1).values


def _truncate(e: torch.Tensor, top_p: float, top_k: int, min_p: float) -> torch.Tensor:
    """Zero what top-k, then top-p of what is left, then min-p remove. Ties keep the smaller token id."""
    n_tokens = e.shape[1]
    if (top_k and top_k < n_tokens) or top_p < 1.0:
        width = min(n_tokens, top_k or NUCLEUS)
        ranked = e.topk(width, dim=1).values
        count, settled = _kept(ranked, ranked.sum(1, dtype=torch.float64) if top_k else e.sum(1, dtype=torch.float64), top_p)
        if not bool(settled.all()) and width < n_tokens and not top_k:
            rest = ~settled
            full = e[rest].sort(dim=1, descending=True).values
            count_full, _ = _kept(full, full.sum(1, dtype=torch.float64), top_p)
            lowest = ranked.gather(1, (count.clamp(max=width) - 1).unsqueeze(1))
            lowest[rest] = full.gather(1, (count_full - 1).unsqueeze(1))
            count[rest] = count_full
        else:
            lowest = ranked.gather(1, (count - 1).unsqueeze(1))
        above = e > lowest
        tied = e == lowest
        room = count - above.sum(1)
        if bool((tied.sum(1) > room).any()):
            tied &= tied.cumsum(1) <= room.unsqueeze(1)
        e = e * (above | tied)
    if min_p > 0.0:
        e = e * (e >= min_p * e.amax(1, keepdim=True))
    return e


def _kept(ranked: torch.Tensor, total: torch.Tensor, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """How many of the falling values have less than `top_p` of the total before them, and whether the end was seen."""
    cumulative = ranked.cumsum(1, dtype=torch.float64)
    before = (cumulative - ranked) < (top_p * total).unsqueeze(1)
    if top_p >= 1.0:
        before = torch.ones_like(before)
    count = before.sum(1)
    return count, (count < ranked.shape[1]) | (cumulative[:, -1] >= top_p * total)


def _invert(e: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Smallest id whose cumulative sum exceeds u times the total, and the margin; an id of zero weight is never drawn."""
    rows, n_tokens = e.shape
    n_blocks = -(-n_tokens // BLOCK)
    if n_tokens % BLOCK:
        e = torch.nn.functional.pad(e, (0, n_blocks * BLOCK - n_tokens))
    blocks = e.view(rows, n_blocks, BLOCK)
    upto = blocks.sum(2, dtype=torch.float64).cumsum(1)
    total = upto[:, -1].contiguous()
    target = u * total
    block = torch.searchsorted(upto, target.unsqueeze(1), right=True).squeeze(1)
    # u · total can round up to the total: then the last block with weight is meant. It is the first that reaches the total.
    last = torch.searchsorted(upto, total.unsqueeze(1)).squeeze(1)
    block = torch.minimum(block, last)
    before = torch.where(block > 0, upto.gather(1, (block - 1).clamp(min=0).unsqueeze(1)).squeeze(1), torch.zeros_like(total))
    inner = blocks[torch.arange(rows, device=e.device), block].double()
    cdf = before.unsqueeze(1) + inner.cumsum(1)
    place = torch.searchsorted(cdf, target.unsqueeze(1), right=True).squeeze(1)
    # The sum over a block may round below the sum token by token, or above it: stay with a token that has weight.
    last_place = BLOCK - 1 - (inner.flip(1) > 0).to(torch.int8).argmax(1)
    place = torch.minimum(place, last_place)
    upper = cdf.gather(1, place.unsqueeze(1)).squeeze(1)
    lower = upper - inner.gather(1, place.unsqueeze(1)).squeeze(1)
    margin = torch.minimum((target - lower).abs(), (upper - target).abs()) / total
    return block * BLOCK + place, margin
