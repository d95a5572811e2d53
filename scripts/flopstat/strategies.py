"""Strategies: how one answer is made of k chains. One signature, registered by name.

A strategy looks at draws of k chains and says with which probability each chain's answer is given (ties are uniform). That rule is its
definition. Where a closed form exists the accuracy is the exact average over all k-subsets of the pool; elsewhere it is the average
over random cuts of the pool, with its Monte Carlo error carried along. The permutations that make the cuts are shared by all
strategies, cells and arms, so that differences stay paired.

Chains without an answer never win, unless all k are: then there is no answer and it counts as wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from flopstat.errors import InputError
from flopstat.estimators import (
    NO_ANSWER,
    Codes,
    Floats,
    best_of_k,
    best_of_k_variance,
    majority_at_all_k,
    majority_variance,
    pass_at_k,
    pass_at_k_variance,
)

# Confidence columns of a pool, each with the sign that makes larger better.
SCORES: dict[str, int] = {"mean_logprob": 1, "mean_entropy": -1, "self_certainty": 1, "lowest_window": 1, "tail_confidence": 1}
CALIBRATED = "calibrated"  # estimated probability of being right, see `calibrated_scores`
FREQUENCY = 0.25  # ASSUME best_of_majority keeps answers with a quarter of the votes; the threshold is ours, the rule is Di et al.'s
ENTROPY_FLOOR = 1e-6  # nats: a chain of certain tokens gets a large weight, not an infinite one
_ELEMENTS = 1 << 22  # entries of the largest temporary array

Axis = Literal["none", "P", "B", "PB"]


@dataclass(frozen=True)
class Pool:
    """The pool of one (arm, T) as matrices, row a problem, column a sample.

    codes : (problems, K) int; equal answers of a problem have equal codes, 0 is the right answer, NO_ANSWER none.
    scores : column name to (problems, K) float.
    greedy : (problems,) 1 where the greedy chain is right; None if there is none.
    """

    codes: Codes
    scores: Mapping[str, Floats] = field(default_factory=dict)
    greedy: Floats | None = None

    @property
    def correct(self) -> NDArray[np.bool_]:
        out: NDArray[np.bool_] = self.codes == 0
        return out

    @property
    def gold(self) -> NDArray[np.int64]:
        """Code of the right answer of each problem."""
        return np.zeros(len(self.codes), dtype=np.int64)

    @property
    def size(self) -> int:
        """K, the samples of a problem."""
        return self.codes.shape[1]


@dataclass(frozen=True)
class Outcome:
    """A strategy's accuracy on each problem.

    accuracy : (problems,) exact or averaged over cuts.
    sampling_variance : (problems,) variance that comes from the finite pool; NaN where it can't be told (k = K). An estimate from cuts
        can be negative on a problem; their sum is what counts.
    monte_carlo : (problems,) standard error of the random cuts; None for a closed form.
    changed : (problems,) probability that the answer differs from that of the draw's first chain; None where there is no draw.
    """

    accuracy: Floats
    sampling_variance: Floats
    monte_carlo: Floats | None
    changed: Floats | None


Columns = Mapping[str, Floats]
# (draws, k) codes and columns -> (draws, k) probability that a chain's answer is given
Choice = Callable[[Codes, Columns], Floats]


@dataclass(frozen=True)
class Strategy:
    """One strategy.

    axis : which budget it spends its k chains on: P streams, B branches, both, or neither.
    needs : columns of the pool without which it is refused.
    answers : how many answers it submits; more than one is judged by whether any is right.
    """

    name: str
    axis: Axis
    choose: Choice
    needs: tuple[str, ...] = ()
    note: str = ""
    answers: int = 1
    closed: Callable[[Pool, Sequence[int]], list[tuple[Floats, Floats]]] | None = None  # accuracy and sampling variance for each k


def _unknown(pool: Pool) -> Floats:
    return np.full(len(pool.codes), np.nan)


# --- rules on draws -----------------------------------------------------------------------------------------------------


def _same(codes: Codes) -> Floats:
    """1 where two chains of a draw have the same answer, (draws, k, k); rows and columns of silent chains are 0."""
    valid = codes != NO_ANSWER
    return ((codes[:, :, None] == codes[:, None, :]) & valid[:, :, None]).astype(float)


def _spread(chosen: NDArray[np.bool_]) -> Floats:
    """Equal probability over the chosen chains of each draw; none where none is chosen."""
    total = chosen.sum(axis=1, keepdims=True)
    return np.divide(chosen, total, out=np.zeros(chosen.shape), where=total > 0)


def _spread_answers(chosen: NDArray[np.bool_], same: Floats) -> Floats:
    """Equal probability over the chosen *answers* of each draw, each shared by the chains that give it."""
    votes = same.sum(axis=2)
    each = np.divide(chosen, votes, out=np.zeros(chosen.shape), where=votes > 0)
    total = each.sum(axis=1, keepdims=True)
    return np.divide(each, total, out=np.zeros(chosen.shape), where=total > 0)


def _highest(x: Floats, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Entries among the allowed ones that equal their row's maximum up to rounding."""
    x = np.where(among, x, -np.inf)
    top = x.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        close = x >= top - 1e-12 * np.abs(top)
    out: NDArray[np.bool_] = among & close
    return out


def _vote(weight: Callable[[Columns], Floats] | None) -> Choice:
    """Weighted plurality: the answer with the largest sum of its chains' weights."""

    def choose(codes: Codes, columns: Columns) -> Floats:
        same = _same(codes)
        w = np.ones(codes.shape) if weight is None else np.where(codes == NO_ANSWER, 0.0, weight(columns))
        total = np.matmul(same, w[:, :, None])[:, :, 0]
        return _spread_answers(_highest(total, codes != NO_ANSWER), same)

    return choose


def _best(score: str) -> Choice:
    """The chain of highest score among those with an answer."""

    def choose(codes: Codes, columns: Columns) -> Floats:
        return _spread(_highest(columns[score] * SCORES.get(score, 1), codes != NO_ANSWER))

    return choose


def _best_of_majority(score: str) -> Choice:
    """The chain of highest score among answers that at least a quarter of the valid chains give; among all if no answer reaches that."""

    def choose(codes: Codes, columns: Columns) -> Floats:
        valid = codes != NO_ANSWER
        votes = _same(codes).sum(axis=2)
        frequent = valid & (votes >= FREQUENCY * valid.sum(axis=1, keepdims=True))
        among = np.where(frequent.any(axis=1, keepdims=True), frequent, valid)
        return _spread(_highest(columns[score], among))

    return choose


def _round_robin(answers: int) -> Choice:
    """One chain each of the `answers` largest clusters of equal answers, ties at the boundary uniform.

    The probabilities of a draw sum to the number of submitted answers.
    """

    def choose(codes: Codes, _columns: Columns) -> Floats:
        same = _same(codes)
        valid = codes != NO_ANSWER
        votes = same.sum(axis=2)
        per_chain = np.divide(1.0, votes, out=np.zeros(votes.shape), where=votes > 0)
        larger = (((votes[:, None, :] > votes[:, :, None]) & valid[:, None, :]) * per_chain[:, None, :]).sum(axis=2)
        equal = (((votes[:, None, :] == votes[:, :, None]) & valid[:, None, :]) * per_chain[:, None, :]).sum(axis=2)
        places = np.divide(answers - np.rint(larger), np.rint(equal), out=np.zeros(votes.shape), where=equal > 0)
        return np.clip(places, 0.0, 1.0) * per_chain * valid

    return choose


def _oracle(codes: Codes, _columns: Columns) -> Floats:
    """A right answer if there is one."""
    right, valid = codes == 0, codes != NO_ANSWER
    return _spread(np.where(right.any(axis=1, keepdims=True), right, valid))


def _majority_of_best(score: str, branches: int) -> Choice:
    """Consecutive groups of `branches` chains send their best chain to a vote."""

    def choose(codes: Codes, columns: Columns) -> Floats:
        draws, k = codes.shape
        valid = (codes != NO_ANSWER).reshape(draws, k // branches, branches)
        x = np.where(valid, columns[score].reshape(valid.shape) * SCORES.get(score, 1), -np.inf)
        winner = np.arange(0, k, branches) + x.argmax(axis=2)  # chains come in random order: the first of equals is a random one
        out = np.zeros((draws, k))
        votes = np.take_along_axis(codes, winner, axis=1)
        np.put_along_axis(out, winner, _vote(None)(votes, {}), axis=1)
        return out

    return choose


# --- closed forms -------------------------------------------------------------------------------------------------------


def _single_exact(pool: Pool, ks: Sequence[int]) -> list[tuple[Floats, Floats]]:
    mean = pool.correct.mean(axis=1)
    variance = mean * (1 - mean) / (pool.size - 1) if pool.size > 1 else _unknown(pool)
    return [(mean, variance)] * len(ks)


def _majority_exact(pool: Pool, ks: Sequence[int]) -> list[tuple[Floats, Floats]]:
    accuracy = majority_at_all_k(pool.codes, pool.gold, max(ks))
    inner = [k for k in ks if k < pool.size]
    variance = dict(zip(inner, majority_variance(pool.codes, pool.gold, inner).T, strict=True)) if inner else {}
    return [(accuracy[:, k - 1], variance.get(k, _unknown(pool))) for k in ks]


def _best_exact(score: str) -> Callable[[Pool, Sequence[int]], list[tuple[Floats, Floats]]]:
    def exact(pool: Pool, ks: Sequence[int]) -> list[tuple[Floats, Floats]]:
        x = np.where(pool.codes == NO_ANSWER, -np.inf, pool.scores[score] * SCORES.get(score, 1))
        right = pool.correct
        return [(best_of_k(right, x, k), best_of_k_variance(right, x, k) if k < pool.size else _unknown(pool)) for k in ks]

    return exact


def _oracle_exact(pool: Pool, ks: Sequence[int]) -> list[tuple[Floats, Floats]]:
    right = pool.correct
    return [(pass_at_k(right, k), pass_at_k_variance(right, k) if k < pool.size else _unknown(pool)) for k in ks]


# --- the registry -------------------------------------------------------------------------------------------------------

_REGISTRY = {
    s.name: s
    for s in (
        Strategy("single", "none", _vote(None), note="one chain", closed=_single_exact),
        Strategy("majority", "P", _vote(None), note="self-consistency (Wang 2022)", closed=_majority_exact),
        Strategy(
            "weighted_majority",
            "P",
            _vote(lambda c: np.exp(c["mean_logprob"])),
            ("mean_logprob",),
            "votes weighted by the geometric mean of the token probabilities",
        ),
        Strategy(
            "inverse_entropy_majority",
            "P",
            _vote(lambda c: 1.0 / np.maximum(c["mean_entropy"], ENTROPY_FLOOR)),
            ("mean_entropy",),
            "votes weighted by one over the mean token entropy",
        ),
        *(
            Strategy(f"best_of_{score}", "B", _best(score), (score,), "chain of highest score", closed=_best_exact(score))
            for score in SCORES
        ),
        Strategy(
            "best_of_majority",
            "P",
            _best_of_majority("mean_logprob"),
            ("mean_logprob",),
            "best by mean log-prob among answers with a quarter of the votes (after Di 2025)",
        ),
        Strategy(
            "calibrated_best_of",
            "B",
            _best(CALIBRATED),
            (CALIBRATED,),
            "best by the probability of being right, learnt on the calibration split",
            closed=_best_exact(CALIBRATED),
        ),
        Strategy("oracle", "B", _oracle, note="pass@k: needs a perfect verifier", closed=_oracle_exact),
    )
}
_ROUND_ROBIN = re.compile(r"round_robin_(\d{1,3})")
_COMPOSITE = "majority_of_best_of"
GREEDY = "greedy"  # one chain without randomness: a strategy without draws
NAMES = (GREEDY, *_REGISTRY, "round_robin_<m>", _COMPOSITE)


def strategy(name: str, branches: int = 1) -> Strategy:
    """The strategy of that name.

    Parameters
    ----------
    branches : int
        B of majority_of_best_of; with B = 1 it is the plain vote.

    Raises
    ------
    InputError
        For an unknown name.
    """
    if name in _REGISTRY:
        return _REGISTRY[name]
    if name == _COMPOSITE:
        rule = _majority_of_best("mean_logprob", branches)
        return Strategy(name, "PB", rule, ("mean_logprob",), f"vote over streams, each the best of {branches} by mean log-prob")
    found = _ROUND_ROBIN.fullmatch(name)
    if found and int(found[1]) > 0:
        m = int(found[1])
        return Strategy(name, "P", _round_robin(m), note=f"one answer each of the {m} largest clusters, right if any is", answers=m)
    raise InputError(f"strategy {name!r}: unknown; choose from {', '.join(NAMES)}")


def check(strategy: Strategy, pool: Pool, where: str) -> None:
    """Refuse a pool that lacks a column the strategy needs, or holds no numbers there.

    Raises
    ------
    InputError
        Naming the strategy, the column and the remedy.
    """
    for column in strategy.needs:
        if column not in pool.scores:
            remedy = "grade a calibration split too" if column == CALIBRATED else "grade a pool with that column"
            raise InputError(f"{where}: {strategy.name} needs {column}, which is not there; {remedy}, or leave the strategy out")
        if np.isnan(pool.scores[column][pool.codes != NO_ANSWER]).any():
            raise InputError(f"{where}: {strategy.name} needs {column}, which is missing for some answered chains; leave the strategy out")


def evaluate(strategy: Strategy, pool: Pool, ks: Sequence[int], permutations: NDArray[np.int64]) -> list[Outcome]:
    """Accuracy per problem of a strategy that uses k chains, for each k.

    Parameters
    ----------
    permutations : (repeats, K) int
        Each is cut into floor(K / k) disjoint draws. A closed form uses the first only, for `changed`.

    Raises
    ------
    ValueError
        If a k does not lie between 1 and K.
    """
    for k in ks:
        if not 1 <= k <= pool.size:
            raise ValueError(f"k = {k} of a pool of {pool.size}: k must lie between 1 and the pool's size")
    if strategy.closed is None:
        return [_from_cuts(strategy, pool, k, permutations) for k in ks]
    exact = strategy.closed(pool, ks)
    return [Outcome(*values, None, _from_cuts(strategy, pool, k, permutations[:1]).changed) for k, values in zip(ks, exact, strict=True)]


def _from_cuts(strategy: Strategy, pool: Pool, k: int, permutations: NDArray[np.int64]) -> Outcome:
    """Averages over all draws that cutting the permutations gives.

    The sampling variance is k²/K times the variance over samples of h(i), the mean over draws that hold sample i (Hoeffding's first
    projection; higher orders left out), widened by ((K-1)/(K-k))² since draws come from the pool itself, and corrected for the noise of
    h(i): with s_i² the variance of the draws that hold i and m_i their number, mean(s_i²/m_i) is taken off.
    """
    repeats, size = permutations.shape
    draws = size // k
    index = permutations[:, : draws * k].reshape(repeats * draws, k)
    n = len(pool.codes)
    held = np.bincount(index.ravel(), minlength=size)
    accuracy, changed, error, variance = (np.empty(n) for _ in range(4))
    block = max(1, _ELEMENTS // (index.size * k))
    for start in range(0, n, block):
        rows = slice(start, min(start + block, n))
        codes = pool.codes[rows][:, index].reshape(-1, k)
        share = strategy.choose(codes, {name: pool.scores[name][rows][:, index].reshape(-1, k) for name in strategy.needs})
        right = (share * (codes == 0)).sum(axis=1).reshape(-1, repeats * draws)
        kept = (share * (codes == codes[:, :1])).sum(axis=1) + ((codes[:, 0] == NO_ANSWER) & (share.sum(axis=1) == 0))
        accuracy[rows] = right.mean(axis=1)
        changed[rows] = 1.0 - kept.reshape(right.shape).mean(axis=1)
        by_permutation = right.reshape(-1, repeats, draws).mean(axis=2)
        error[rows] = by_permutation.std(axis=1, ddof=1) / np.sqrt(repeats) if repeats > 1 else np.nan
        variance[rows] = _projection_variance(right, index, held, size)
    return Outcome(accuracy, variance, error, np.clip(changed, 0.0, 1.0))


def _projection_variance(right: Floats, index: NDArray[np.int64], held: NDArray[np.int64], size: int) -> Floats:
    """Sampling variance per problem from the draws' values, (problems, draws); see `_from_cuts`."""
    k = index.shape[1]
    if k == size or held.min() < 2:
        return np.full(len(right), np.nan)
    member = np.zeros((len(index), size))
    member[np.arange(len(index))[:, None], index] = 1.0
    mean = right @ member / held
    noise = np.maximum(right**2 @ member / held - mean**2, 0.0) / (held - 1)
    raw = mean.var(axis=1, ddof=1) - noise.mean(axis=1)
    out: Floats = k**2 / size * ((size - 1) / (size - k)) ** 2 * raw
    return out


def permutations_for(size: int, repeats: int, seed: int) -> NDArray[np.int64]:
    """The random permutations that all cells and arms of a study share, (repeats, size); fewer repeats are the first of more."""
    rng = np.random.default_rng([seed, 2])
    return np.array([rng.permutation(size) for _ in range(repeats)])


# --- calibration of scores ----------------------------------------------------------------------------------------------


def calibrated_scores(training: Pool, pool: Pool) -> Floats:
    """Probability of being right of every chain of `pool`, by logistic regression on the confidence columns of `training`.

    Features are the columns of SCORES that both have, standardised on the training chains; silent chains take no part in the fit. A
    ridge penalty of one observation keeps a separable fit finite.

    Returns
    -------
    (problems, K) float

    Raises
    ------
    InputError
        If there is no common column, or no answered training chain.
    """
    names = [name for name in SCORES if name in training.scores and name in pool.scores]
    answered = training.codes != NO_ANSWER
    if not names or not answered.any():
        raise InputError("calibrated_best_of: the calibration split has no confidence column or no answered chain; leave the strategy out")
    x = np.column_stack([training.scores[name][answered] for name in names])
    y = training.correct[answered].astype(float)
    centre, scale = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-9)
    x = np.column_stack([np.ones(len(x)), (x - centre) / scale])

    def loss(beta: Floats) -> tuple[float, Floats]:
        z = x @ beta
        ridge = beta * np.r_[0.0, np.ones(len(names))]
        return float(np.logaddexp(0.0, z).sum() - y @ z + 0.5 * ridge @ ridge), x.T @ (expit(z) - y) + ridge

    beta = minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B").x
    features = np.stack([pool.scores[name] for name in names], axis=-1)
    out: Floats = expit(beta[0] + (features - centre) / scale @ beta[1:])
    return out
