"""Randomness that each sample owns, and the draw from a distribution.

Sample i of a problem at step t uses the t-th double of a Philox stream whose key is a hash of (seed, problem, i). So a sample does not
depend on the batch, the shard, the order or a restart, and the same uniforms serve all arms of a study.

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def _stream(*parts: object) -> np.random.Generator:
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def uniforms(seed: int, problem_key: str, sample: int, n: int, budget: int = 0) -> np.ndarray:
    """The first `n` uniforms of one sample's stream, float64 on [0, 1).

    Parameters
    ----------
    seed : int
        The study's seed.
    problem_key : str
        Identity of the problem's rendered messages.
    sample : int
        Index i of the sample.
    budget : int
        0 for a chain; T for an answer that is forced at T, which has a stream of its own.
    """
    if budget:
        return _stream("flopstat-answer", seed, problem_key, sample, budget).random(n)
    return _stream("flopstat-chain", seed, problem_key, sample).random(n)


def variant(seed: int, problem_key: str, sample: int, weights: Sequence[float]) -> int:
    """Which variant of a mixture a sample takes: drawn by weight from a stream of its own, independently for each sample.

    So the samples of a problem are exchangeable, and any k of them are as good as any other k.
    """
    u = _stream("flopstat-variant", seed, problem_key, sample).random()
    shares = np.cumsum(weights) / np.sum(weights)
    return min(int(np.searchsorted(shares, u, side="right")), len(shares) - 1)


def truncated_probabilities(logits: torch.Tensor, temperature: float, top_p: float, top_k: int, min_p: float = 0.0) -> torch.Tensor:
    """The tempered and truncated distribution, float64, rows not renormalised.

    softmax(logits / temperature); then the `top_k` most probable tokens; then, of these, tokens in falling probability while the share of
    mass before them is below `top_p`; then tokens of at least `min_p` times the largest probability. Ties keep the smaller token id. The
    order is transformers'.

    Parameters
    ----------
    logits : (rows, vocabulary) tensor, any float type
    """
    import torch

    p = torch.softmax(logits.double() / temperature, dim=-1)
    if top_k or top_p < 1.0:
        order = torch.argsort(p, dim=-1, descending=True, stable=True)
        ranked = p.gather(-1, order)
        if top_k:
            ranked[:, top_k:] = 0.0
        if top_p < 1.0:
            ranked = ranked * ((ranked.cumsum(-1) - ranked) < top_p * ranked.sum(-1, keepdim=True))
        p = torch.zeros_like(p).scatter(-1, order, ranked)
    if min_p > 0.0:
        p = p * (p >= min_p * p.amax(-1, keepdim=True))
    return p


def inverse_cdf(p: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw one token id per row by inverting the cumulative distribution in token-id order.

    The id is the smallest whose cumulative sum exceeds u times the row's total; an id of zero probability is never drawn.

    Parameters
    ----------
    p : (rows, vocabulary) float64, non-negative
    u : (rows,) float64 on [0, 1)

    Returns
    -------
    ids : (rows,) int64
    margin : (rows,) float64
        Distance of u to the nearest boundary of the drawn token's interval: what a rounding difference must bridge to change the draw.
    """
    import torch

    cdf = p.cumsum(-1)
    total = cdf[:, -1]
    target = (u * total).unsqueeze(-1)
    ids = torch.searchsorted(cdf, target, right=True).squeeze(-1)
    # u·total can round up to total: then the last token with mass is meant.
    last = p.shape[-1] - 1 - (p.flip(-1) > 0).to(torch.int8).argmax(-1)
    ids = torch.minimum(ids, last)
    upper = cdf.gather(-1, ids.unsqueeze(-1)).squeeze(-1)
    lower = upper - p.gather(-1, ids.unsqueeze(-1)).squeeze(-1)
    margin = torch.minimum((target.squeeze(-1) - lower).abs(), (upper - target.squeeze(-1)).abs()) / total
    return ids, margin
