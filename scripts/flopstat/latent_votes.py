"""Votes of chains of a latent problem: exact accuracy of P × B chains when every problem has its own chance of a right answer.

A problem's chain is right with probability p, silent (no answer) with (1 - p)·s, else wrong. Wrong answers are draws from a Dirichlet
process of concentration θ: w of them fall into groups of equal answers as Ewens' partition does; θ near 0 makes all wrong answers
alike, a large θ makes all of them different. A score picks the best of B chains: the right ones' scores dominate the wrong ones' with
area under the curve AUC, as powers of one distribution (Lehmann), so a given right chain beats a given wrong one λ : 1 with
λ = AUC / (1 - AUC).
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray
from scipy.special import comb, gammaln

Floats = NDArray[np.float64]

NODES = 18  # of the Gauss-Jacobi rule over p: exact for polynomials of degree 35, so for votes of up to 35 chains


def win_table(concentration: float, most: int) -> Floats:
    """Probability that j right votes win against w wrong ones, ties uniform: (most + 1, most + 1), row j, column w.

    E[1{M < j} + 1{M = j} / (1 + number of wrong answers with j votes)], M the largest group of Ewens' partition of w. With
    f_j(x) = exp(θ Σ_{v<j} x^v / v) it is Σ_t (θ/j)^t / t! / (t + 1) · [x^(w - jt)] f_j(x), over [x^w] (1 - x)^(-θ) = Γ(θ + w) / Γ(θ) w!.

    Errors: none for θ > 0. Checked against the enumeration of all partitions.

    Source: Ewens 1972 for the partition; the generating function is that of permutations by cycle lengths, weighted θ per cycle.
    """
    w = np.arange(most + 1)
    total = np.exp(gammaln(concentration + w) - gammaln(concentration) - gammaln(w + 1))
    out = np.zeros((most + 1, most + 1))
    coefficients = np.zeros(most + 1)  # of f_j
    coefficients[0] = 1.0
    for j in range(1, most + 1):
        ties = np.arange(most // j + 1)
        each = np.exp(ties * np.log(concentration / j) - gammaln(ties + 1)) / (ties + 1)
        for t, weight in zip(ties, each, strict=True):
            out[j, j * t :] += weight * coefficients[: most + 1 - j * t]
        grown = np.zeros_like(coefficients)  # f_(j+1) = f_j · exp(θ x^j / j)
        for t, weight in zip(ties, each * (ties + 1), strict=True):
            grown[j * t :] += weight * coefficients[: most + 1 - j * t]
        coefficients = grown
    out[1:] /= total
    result: Floats = np.clip(out, 0.0, 1.0)
    return result


def best_of(p: Floats, silent: Floats, odds: Floats | float, b: int) -> tuple[Floats, Floats]:
    """Chances that the best of b chains is right, and that all are silent.

    Σ_{c,w} b! / (c! w! (b-c-w)!) p^c (1-p-r)^w r^(b-c-w) · cλ / (cλ + w) with r = (1 - p)·s; silent chains never win.

    Parameters
    ----------
    p, silent : arrays of one shape
        Chance of a right chain, and share s of the others that are silent.
    odds : λ = AUC / (1 - AUC)
    """
    if b == 1:
        return p, (1 - p) * silent
    r = (1 - p) * silent
    wrong = 1 - p - r
    right = np.zeros(np.broadcast(p, silent).shape)
    for c in range(1, b + 1):
        for w in range(b - c + 1):
            ways = comb(b, c, exact=True) * comb(b - c, w, exact=True)
            right = right + ways * p**c * wrong**w * r ** (b - c - w) * (c * odds / (c * odds + w))
    return right, r**b


@functools.cache
def _splits(votes: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """All (j right, w wrong) of `votes` chains, the rest silent, and in how many ways they come about."""
    j, w = (grid.ravel() for grid in np.meshgrid(np.arange(votes + 1), np.arange(votes + 1), indexing="ij"))
    fits = (j + w <= votes) & (j > 0)
    j, w = j[fits], w[fits]
    return j, w, comb(votes, j) * comb(votes - j, w)


def _powers(x: Floats, most: int) -> Floats:
    """x^0 to x^most along a new last axis; products are faster than powers."""
    out = np.ones((*x.shape, most + 1))
    out[..., 1:] = x[..., None]
    return np.asarray(np.cumprod(out, axis=-1), dtype=np.float64)


def vote(right: Floats, silent: Floats, votes: int, wins: Floats) -> Floats:
    """Chance that a vote of `votes` chains gives the right answer, same shape as `right`.

    Parameters
    ----------
    right, silent : chances of one chain, right + silent <= 1
    wins : win_table of at least `votes`
    """
    if votes == 1:
        return right
    j, w, ways = _splits(votes)
    up, down, still = (_powers(np.maximum(x, 0.0), votes) for x in (right, 1 - right - silent, silent))
    terms = up[..., j] * down[..., w] * still[..., votes - j - w]
    out: Floats = terms @ (ways * wins[j, w])
    return out


def beta_nodes(mean: Floats, spread: Floats) -> tuple[Floats, Floats]:
    """Gauss-Jacobi nodes and weights of Beta(mean·spread, (1 - mean)·spread), (cells, NODES) each; weights sum to 1.

    The recurrence coefficients of the Jacobi polynomials give nodes as eigenvalues (Golub and Welsch 1969), all cells at once.
    """
    a, b = mean * spread, (1 - mean) * spread  # density x^(a-1) (1-x)^(b-1)
    alpha, beta = (b - 1)[:, None], (a - 1)[:, None]  # Jacobi weight (1-y)^alpha (1+y)^beta on [-1, 1], x = (1+y)/2
    n = np.arange(NODES, dtype=float)[None]
    s = 2 * n + alpha + beta
    with np.errstate(divide="ignore", invalid="ignore"):
        diagonal = (beta**2 - alpha**2) / (s * (s + 2))
        m = n[:, 1:]
        t = 2 * m + alpha + beta
        off = 4 * m * (m + alpha) * (m + beta) * (m + alpha + beta) / (t**2 * (t + 1) * (t - 1))
    diagonal[:, 0] = ((beta - alpha) / (alpha + beta + 2))[:, 0]
    first = 4 * (1 + alpha) * (1 + beta) / ((2 + alpha + beta) ** 2 * (3 + alpha + beta))
    off[:, 0] = first[:, 0]
    matrix = np.zeros((len(a), NODES, NODES))
    index = np.arange(NODES)
    matrix[:, index, index] = diagonal
    matrix[:, index[1:], index[:-1]] = np.sqrt(np.maximum(off, 0.0))
    nodes, vectors = np.linalg.eigh(matrix)
    return np.clip((1 + nodes) / 2, 0.0, 1.0), vectors[:, 0, :] ** 2
