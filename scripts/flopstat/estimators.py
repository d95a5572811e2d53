"""Exact expectations over all subsets of a pool (U-statistics), per problem.

A pool holds K exchangeable samples of a problem. The accuracy of a strategy that uses k of them is the average over all k-subsets, in
closed form here, so it holds no Monte Carlo noise. Each function returns one value per problem; the mean over problems is the accuracy.

Answers come as integer codes, (problems, K): equal answers of one problem have equal codes, NO_ANSWER marks a chain without
one. `gold` holds the code of the gold answer, (problems,), or a code that no sample has.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

NO_ANSWER = -1

Codes = NDArray[np.int64]
Floats = NDArray[np.float64]


def _need(k: int, n: int) -> None:
    if not 1 <= k <= n:
        raise ValueError(f"k = {k} of a pool of {n}: k must lie between 1 and the pool's size")


def pass_at_k(correct: NDArray[np.bool_], k: int) -> Floats:
    """Probability that at least one of k samples is correct: 1 - C(n-c, k)/C(n, k), as a product.

    1 - prod_{i=n-c+1}^{n} (1 - k/i), which neither overflows nor cancels.

    Parameters
    ----------
    correct : (problems, n) bool

    Source: Chen et al. 2021 (arXiv 2107.03374), equation 1.
    """
    n = correct.shape[1]
    _need(k, n)
    c = correct.sum(axis=1)
    factors = 1.0 - k / np.arange(1.0, n + 1)
    # prod over i > n - c, read off the reversed cumulative product; a factor of zero or less means n - c < k.
    tail = np.concatenate([[1.0], np.cumprod(np.clip(factors, 0.0, None)[::-1])])
    return np.where(n - c < k, 1.0, 1.0 - tail[c])


def best_of_k(correct: NDArray[np.bool_], score: Floats, k: int) -> Floats:
    """Probability that the sample of highest score among k is correct, ties uniform.

    With samples ranked by falling score in groups of equal score, a group of size g behind b better samples holds the best of k with
    probability [C(n-b, k) - C(n-b-g, k)] / C(n, k); within it the choice is uniform.

    Parameters
    ----------
    correct : (problems, n) bool
    score : (problems, n) float
        -inf for chains that must not win against any other, such as those without an answer.
    """
    n = correct.shape[1]
    _need(k, n)
    order = np.argsort(-score, axis=1, kind="stable")
    ranked = np.take_along_axis(score, order, axis=1)
    right = np.take_along_axis(correct, order, axis=1).astype(float)
    # P(best among k has rank > r) for r = 0..n
    log_ratio = _log_comb(n - np.arange(n + 1), k) - _log_comb(np.array([n]), k)
    weight = -np.diff(np.exp(log_ratio))  # probability that the best has rank r, were there no ties
    new_group = np.ones_like(right, dtype=bool)
    new_group[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    group = np.cumsum(new_group, axis=1) - 1 + n * np.arange(len(right))[:, None]
    size = len(right) * n
    mass = np.bincount(group.ravel(), np.broadcast_to(weight, right.shape).ravel(), size)
    hits = np.bincount(group.ravel(), right.ravel(), size)
    members = np.bincount(group.ravel(), minlength=size)
    share = np.divide(hits, members, out=np.zeros(size), where=members > 0)
    out: Floats = (mass * share).reshape(len(right), n).sum(axis=1)
    return out


def _log_comb(n: NDArray[np.int64], k: int) -> Floats:
    """log C(n, k), -inf where k > n."""
    with np.errstate(invalid="ignore"):
        value = gammaln(n + 1) - gammaln(k + 1) - gammaln(np.maximum(n - k, 0) + 1)
    return np.where(n >= k, value, -np.inf)


def majority_at_all_k(codes: Codes, gold: Codes, max_k: int | None = None) -> Floats:
    """Probability that the plurality answer of k samples is the gold one, ties uniform, for every k = 1..max_k.

    By multivariate hypergeometric counting. With c copies of the gold answer and c_1..c_m of the others in the pool of n, a subset of k in
    which gold has j votes, t others have j and the rest fewer contributes 1/(t+1). The number of such subsets is the
    coefficient of x^(k-j) y^t in C(c, j) · prod_i (sum_{v<j} C(c_i, v) x^v + y C(c_i, j) x^j) · (1+x)^(n_0), with n_0 chains
    without an answer: these never get votes. Where all k lack an answer there is none, so the vote is wrong.

    All factors are scaled by 2^-c: nothing overflows for pools up to 1,000.

    Parameters
    ----------
    codes : (problems, n) int
    gold : (problems,) int

    Returns
    -------
    (problems, max_k) float
    """
    n = codes.shape[1]
    top = n if max_k is None else max_k
    _need(top, n)
    patterns, inverse = np.unique(_count_pattern(codes, gold), axis=0, return_inverse=True)
    out = np.zeros((len(patterns), top))
    binomial = _scaled_binomials(n)
    for j in range(1, top + 1):
        rows = np.flatnonzero(patterns[:, 0] >= j)
        if rows.size:
            out[rows] += _with_j_votes(patterns[rows], j, top, binomial)
    total = binomial[n, 1 : top + 1]
    result: Floats = np.clip(out / total, 0.0, 1.0)[inverse.ravel()]
    return result


def _scaled_binomials(n: int) -> Floats:
    """C(a, b) / 2^a for a, b = 0..n."""
    out = np.zeros((n + 1, n + 1))
    out[0, 0] = 1.0
    for a in range(1, n + 1):
        out[a, 0] = out[a - 1, 0] / 2
        out[a, 1:] = (out[a - 1, 1:] + out[a - 1, :-1]) / 2
    return out


def _count_pattern(codes: Codes, gold: Codes) -> NDArray[np.int64]:
    """Rows (gold votes, no-answers, votes of the others in falling order), (problems, 2 + most distinct others)."""
    n_problems, n = codes.shape
    others = np.where((codes == gold[:, None]) | (codes == NO_ANSWER), np.iinfo(np.int64).max, codes)
    others.sort(axis=1)
    starts = np.ones_like(others, dtype=bool)
    starts[:, 1:] = others[:, 1:] != others[:, :-1]
    run = np.cumsum(starts, axis=1) - 1
    is_other = others != np.iinfo(np.int64).max
    counts = np.bincount((run + n * np.arange(n_problems)[:, None])[is_other], minlength=n_problems * n).reshape(n_problems, n)
    counts = -np.sort(-counts, axis=1)
    width = max(1, int((counts > 0).sum(axis=1).max(initial=0)))
    has_gold = (codes == gold[:, None]) & (codes != NO_ANSWER)
    return np.column_stack([has_gold.sum(axis=1), (codes == NO_ANSWER).sum(axis=1), counts[:, :width]])


def _with_j_votes(patterns: NDArray[np.int64], j: int, top: int, binomial: Floats) -> Floats:
    """Scaled weighted number of k-subsets, k = 1..top, that the gold answer wins with exactly j votes, (patterns, top)."""
    degree = top - j
    max_ties = degree // j
    poly = np.zeros((len(patterns), degree + 1, max_ties + 1))
    poly[:, :, 0] = binomial[patterns[:, 1], : degree + 1]
    for column in range(2, patterns.shape[1]):
        c = patterns[:, column]
        rows = np.flatnonzero(c)  # counts fall, so later columns concern fewer rows
        if not rows.size:
            break
        old = poly[rows]
        new = np.zeros_like(old)
        coefficients = binomial[c[rows]]
        for v in range(min(j - 1, int(c.max()), degree) + 1):
            new[:, v:] += coefficients[:, v, None, None] * old[:, : degree + 1 - v]
        if max_ties and j <= degree:
            new[:, j:, 1:] += coefficients[:, j, None, None] * old[:, : degree + 1 - j, :-1]
        poly[rows] = new
    weighted = (poly / np.arange(1, max_ties + 2)).sum(axis=2) * binomial[patterns[:, 0], j][:, None]
    out = np.zeros((len(patterns), top))
    out[:, j - 1 :] = weighted
    return out


def majority_of_best_of(codes: Codes, gold: Codes, score: Floats, p: int, b: int, permutations: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Accuracy of a vote over p streams, each the best by score of b branches, from random cuts of the pool.

    Every permutation of a problem's samples is cut into floor(K / pb) disjoint draws of p·b; each draw gives p winners and one vote, ties
    uniform. All cells and arms share the permutations, so that differences stay paired.

    Parameters
    ----------
    codes, gold, score
        As above.
    permutations : (repeats, K) int

    Returns
    -------
    value, se_monte_carlo : (problems,) float
    """
    repeats, n = permutations.shape
    _need(p * b, n)
    draws = n // (p * b)
    index = permutations[:, : draws * p * b].reshape(repeats * draws, p, b)
    value = np.empty((len(codes), repeats))
    for r in range(len(codes)):
        best = np.take_along_axis(index, score[r][index].argmax(axis=2)[..., None], axis=2)[..., 0]
        votes = codes[r][best]
        value[r] = vote_share(votes, gold[r]).reshape(repeats, draws).mean(axis=1)
    error = value.std(axis=1, ddof=1) / np.sqrt(repeats) if repeats > 1 else np.full(len(codes), np.nan)
    return value.mean(axis=1), error


def vote_share(votes: Codes, gold: np.int64 | int) -> Floats:
    """Probability that the plurality of each row's votes is `gold`, ties uniform; chains without an answer do not vote.

    Parameters
    ----------
    votes : (draws, p) int
    """
    valid = votes != NO_ANSWER
    counts = ((votes[:, :, None] == votes[:, None, :]) & valid[:, None, :]).sum(axis=2) * valid
    tops = (counts == counts.max(axis=1, keepdims=True)) & valid
    hits = (tops & (votes == gold)).sum(axis=1)
    total = tops.sum(axis=1)
    return np.divide(hits, total, out=np.zeros(len(votes)), where=total > 0)
