"""Resampling of problems, and intervals from it.

Only problems are resampled: each carries its average over all subsets of its pool, which already holds the sampling noise. One matrix
of weights serves all cells of a split, so every difference between cells is paired. That the intervals cover at their stated rate is
shown by benchmarks/simulate_coverage.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from scipy.stats import t as student

Floats = NDArray[np.float64]

ESTIMAND = "problems like these"
ROUNDING = 1e-9  # standard errors and differences below this are rounding: the replicates do not differ
SMALL_COUNT = 5.0  # successes, failures or differing problems below which counts are flagged as small
PRIOR_PROBLEMS = 0.5  # problems that the variance of all-or-nothing outcomes counts for, beside the measured one


def weights(strata: NDArray[np.int64], replicates: int, rng: np.random.Generator) -> Floats:
    """Bootstrap weights, (replicates, problems): problems drawn with replacement within each stratum; rows sum to 1.

    Within a stratum of size m the deviations are widened by sqrt(m / (m - 1)): drawing m of m with replacement gives (m-1)/m of the
    variance.
    """
    n = len(strata)
    out = np.empty((replicates, n))
    for value in np.unique(strata):
        members = np.flatnonzero(strata == value)
        m = len(members)
        counts = rng.multinomial(m, np.full(m, 1.0 / m), size=replicates)
        widen = np.sqrt(m / (m - 1)) if m > 1 else 1.0
        out[:, members] = (1.0 + widen * (counts - 1.0)) / n
    return out


@dataclass(frozen=True)
class Interval:
    """Limits of several estimates and the standard error behind them."""

    low: Floats
    high: Floats
    se: Floats
    wilson: NDArray[np.bool_]


def proportion_interval(values: Floats, w: Floats, confidence: float) -> Interval:
    """Intervals for mean accuracies: Wilson's, on the effective number of problems.

    n_eff = n / r, with r the ratio of the measured variance se² to that of all-or-nothing outcomes, a(1-a)/n, drawn towards 1 where little
    was measured: r = (m·ratio + h) / (m + h) with h half a problem. m is the number of problems that the measurement rests on,
    (sum d²)² / sum d⁴ with d the deviations from the mean (1 if one problem alone deviates, n if all do alike), and at most 4n·a(1-a),
    which is n at one half. No success is m = 0 and n_eff = n: 0 of 50 gives 0 to 7%. Where the replicates do not differ though the
    problems do (strata that explain everything), n_eff = n as well.

    `wilson` flags small counts: fewer than 5 successes or failures expected, or replicates that do not differ.

    Parameters
    ----------
    values : (problems, cells) in [0, 1]
    w : (replicates, problems)

    Leaves out: the uncertainty of se beyond h, and strata of one problem, which carry no variance.

    Source: Wilson 1927; effective number as in Korn and Graubard 1998; m is Kish's effective number, of the squares. h and the bound on
    m are our own: with them tests/golden/coverage.csv holds.
    """
    a = np.clip(values.mean(axis=0), 0.0, 1.0)
    se = (w @ values).std(axis=0, ddof=1)
    low, high = wilson(a, _effective_problems(values, a, se), confidence)
    small = (len(values) * np.minimum(a, 1 - a) < SMALL_COUNT) | (se <= ROUNDING)
    return Interval(low, high, se, small)


def _effective_problems(values: Floats, a: Floats, se: Floats) -> Floats:
    """n_eff of proportion_interval: `values` (problems, cells), their mean accuracies and standard errors, (cells,)."""
    n = len(values)
    spread = (se > ROUNDING) & (a * (1 - a) > ROUNDING)
    m = np.where(spread, np.minimum(contributing(values - values.mean(axis=0)), 4 * n * a * (1 - a)), 0.0)
    ratio = np.divide(n * se**2, a * (1 - a), out=np.zeros_like(se), where=spread)
    effective: Floats = n * (m + PRIOR_PROBLEMS) / (m * ratio + PRIOR_PROBLEMS)
    return effective


def contributing(d: Floats) -> Floats:
    """Effective number of problems that a sum of squares rests on, (sum d²)² / sum d⁴, 0 where all are 0: (cells,) of (problems, cells)."""
    squares = d**2
    fourth = (squares**2).sum(axis=0)
    return np.divide(squares.sum(axis=0) ** 2, fourth, out=np.zeros_like(fourth), where=fourth > 0)


def wilson(a: Floats | float, n: Floats | float, confidence: float) -> tuple[Floats, Floats]:
    """Wilson score interval of a proportion `a` of `n` trials."""
    z = norm.ppf(0.5 + confidence / 2)
    a, n = np.asarray(a, dtype=float), np.asarray(n, dtype=float)
    middle = (a + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(a * (1 - a) / n + z**2 / (4 * n**2))
    return np.clip(middle - half, 0.0, a), np.clip(middle + half, a, 1.0)


@dataclass(frozen=True)
class PairedInterval:
    """Limits of several differences, the standard error behind them, and whether few problems differ."""

    low: Floats
    high: Floats
    se: Floats
    few: NDArray[np.bool_]


def paired_interval(difference: Floats, w: Floats, confidence: float) -> PairedInterval:
    """Intervals for mean differences between cells on the same problems.

    d ± t·se, t the quantile with n - 1 degrees of freedom, where at least 5 problems carry the difference: m = (sum d²)² / sum d⁴, which
    counts the problems that differ if they differ alike. With fewer, d = u - v is split into its gains u and losses v, each with the
    Wilson interval of `proportion_interval`, and low = d - sqrt((u - u_low)² - 2c(u - u_low)(v_high - v) + (v_high - v)²), high likewise,
    c = -sqrt(uv / ((1-u)(1-v))) since no problem is in both. Two cells that agree on all of 50 problems get -7% to 7%.

    Parameters
    ----------
    difference : (problems, m) in [-1, 1]
    w : (replicates, problems)

    Source: Newcombe 1998, Statistics in Medicine 17, 2635 (method 10); Zou and Donner 2008.
    """
    d = difference.mean(axis=0)
    se = (w @ difference).std(axis=0, ddof=1)
    few = (contributing(difference) < SMALL_COUNT) | (se <= ROUNDING)
    reach = student.ppf(0.5 + confidence / 2, max(len(difference) - 1, 1)) * se
    below, above = _gains_and_losses(difference, w, confidence)
    low = np.where(few, d - below, d - reach)
    high = np.where(few, d + above, d + reach)
    return PairedInterval(np.clip(low, -1.0, 1.0), np.clip(high, -1.0, 1.0), se, few)


def _gains_and_losses(difference: Floats, w: Floats, confidence: float) -> tuple[Floats, Floats]:
    """How far Newcombe's interval reaches below and above the mean difference, (m,) each."""
    gains, losses = np.maximum(difference, 0.0), np.maximum(-difference, 0.0)
    up, down = proportion_interval(gains, w, confidence), proportion_interval(losses, w, confidence)
    u, v = gains.mean(axis=0), losses.mean(axis=0)
    c = -np.sqrt(u * v / np.maximum((1 - u) * (1 - v), ROUNDING))

    def reach(one: Floats, other: Floats) -> Floats:
        return np.sqrt(one**2 - 2 * c * one * other + other**2)

    return reach(u - up.low, down.high - v), reach(up.high - u, v - down.low)


def mean_interval(values: Floats, w: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Percentile limits of the means of non-negative costs, (problems, cells)."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(w @ values, [tail, 1 - tail], axis=0)
    return np.maximum(low, 0.0), high


def gain_interval(difference: Floats, w: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Percentile limits of mean differences, and those of `paired_interval` where no replicate differs: (m,) each.

    Of two accuracies that no problem tells apart the replicates are all 0, and their percentiles would be certain of it.

    Parameters
    ----------
    difference : (problems, m) in [-1, 1]
    w : (replicates, problems)
    """
    tail = (1 - confidence) / 2
    low, high = np.quantile(w @ difference, [tail, 1 - tail], axis=0)
    paired = paired_interval(difference, w, confidence)
    still = paired.se <= ROUNDING
    return np.where(still, paired.low, low), np.where(still, paired.high, high)


def simultaneous_limits(estimate: Floats, boot: Floats, confidence: float) -> tuple[Floats, Floats, float]:
    """Limits that hold for all estimates at once: estimate ± q·se, q the quantile of max |t| over the replicates.

    Replicates that do not differ say nothing of an estimate: it takes no part in q, and its limits are infinite.

    Parameters
    ----------
    estimate : (m,)
    boot : (replicates, m)

    Returns
    -------
    low, high, q; q is 0 where no estimate varies
    """
    se = boot.std(axis=0, ddof=1)
    varies = se > ROUNDING
    t = np.divide(np.abs(boot - boot.mean(axis=0)), se, out=np.zeros_like(boot), where=varies)
    q = float(np.quantile(t.max(axis=1), confidence))
    reach = np.where(varies, q * se, np.inf)
    return estimate - reach, estimate + reach, q


def simultaneous_differences(
    estimate: Floats, boot: Floats, difference: Floats, w: Floats, confidence: float, carriers: float = SMALL_COUNT
) -> tuple[Floats, Floats]:
    """Limits of differences of accuracies that hold for all of them at once, (m,) each: `simultaneous_limits` where the data carry them.

    Where fewer than `carriers` problems carry a difference, or no replicate of it differs, the limits reach at least as far as those of
    `paired_interval` at the level of q: two models that both answer nothing right are not known to be alike.

    Parameters
    ----------
    estimate : (m,) such as differences of two staircases
    boot : (replicates, m) of the estimates
    difference : (problems, m) in [-1, 1], of the two cells that each estimate compares
    w : (replicates, problems)
    carriers : 0 to widen only where no replicate differs
    """
    low, high, q = simultaneous_limits(estimate, boot, confidence)
    still = boot.std(axis=0, ddof=1) <= ROUNDING
    few = still | ((w @ difference).std(axis=0, ddof=1) <= ROUNDING) | (contributing(difference) < carriers)
    below, above = _gains_and_losses(difference, w, max(float(2 * norm.cdf(q) - 1), confidence))
    low = np.where(few, estimate - np.maximum(below, np.where(still, 0.0, estimate - low)), low)
    high = np.where(few, estimate + np.maximum(above, np.where(still, 0.0, high - estimate)), high)
    return np.maximum(low, -1.0), np.minimum(high, 1.0)


def simultaneous_proportions(values: Floats, boot: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Limits of mean accuracies that hold for all cells at once, (cells,) each: Wilson's, at the quantile of max |t| over the replicates.

    q is that of `simultaneous_limits` and at least that of one cell alone, n_eff that of `proportion_interval`. The plain limits a ± q·se
    fail near 0 and 1: of cells all of whose problems were solved they say next to nothing can be wrong, and a frontier takes the highest
    of its cells. benchmarks/simulate_frontier.py measures both.

    Parameters
    ----------
    values : (problems, cells) in [0, 1]
    boot : (replicates, cells)
    """
    a = np.clip(values.mean(axis=0), 0.0, 1.0)
    se = boot.std(axis=0, ddof=1)
    _, _, q = simultaneous_limits(a, boot, confidence)
    level = max(float(2 * norm.cdf(q) - 1), confidence)
    return wilson(a, _effective_problems(values, a, se), level)


@dataclass(frozen=True)
class ChosenBest:
    """Accuracy of the cell that is chosen as the best: the honest estimate beside the optimistic maximum."""

    estimate: float
    low: float
    high: float
    se: float
    naive: float
    optimism: float
    chosen: Floats  # (cells,) share of the halves that choose each cell


def chosen_best(
    values: Floats, strata: NDArray[np.int64], replicates: int, halves: int, confidence: float, rng: np.random.Generator
) -> ChosenBest:
    """The true accuracy of the cell that is the best on one random half of the problems.

    estimate = mean over halves of (1/n) · sum over both directions of the other half's accuracies of the cell chosen on the one, ties
    shared equally. It never exceeds the naive maximum over cells, and equals it with one cell. se from the bootstrap of the whole
    procedure: a replicate weighs problems, never moves one to the other half, and chooses anew in every half; se is the spread of what
    the chosen cells score on the other half minus what they score on all problems, their truth in the bootstrap's world. Limits as in
    `proportion_interval`, on the accuracies of the chosen cells.

    Parameters
    ----------
    values : (problems, cells) in [0, 1]
    strata : (problems,)
    replicates, halves
        At least 50 halves keep their own noise below that of the problems.

    Errors: fewer than two problems have no halves.

    Leaves out: what choosing on all problems instead of half of them gains.

    Source: sample splitting, Cox 1975; repeated and both ways as cross-fitting, Chernozhukov et al. 2018.
    """
    return chosen_best_of_first(values, [values.shape[1]], strata, replicates, halves, confidence, rng)[0]


def chosen_best_of_first(
    values: Floats,
    ends: Sequence[int],
    strata: NDArray[np.int64],
    replicates: int,
    halves: int,
    confidence: float,
    rng: np.random.Generator,
) -> list[ChosenBest]:
    """`chosen_best` among the first 1..end cells, for each end in rising order: one pass over the cells serves them all."""
    n, n_ends = len(values), len(ends)
    if n < 2:
        raise ValueError(f"{n} problem: the best cell is chosen on one half and judged on the other, so at least 2 are needed")
    mean = values.mean(axis=0)
    centred = values - mean
    w = np.vstack([np.full((1, n), 1 / n), weights(strata, replicates, rng)])  # row 0: the problems themselves
    total = w @ centred
    error, chosen, estimate = np.zeros((n_ends, len(w))), np.zeros((n_ends, values.shape[1])), np.zeros(n_ends)
    for _ in range(halves):
        half = stratified_half(strata, rng)
        one = w[:, half] @ centred[half]
        for own, other, size in ((one, total - one, half.mean()), (total - one, one, 1 - half.mean())):
            accuracy = own + size * mean  # times the half's share of the problems
            error += _best_so_far(accuracy, other, ends) / halves
            for i, end in enumerate(ends):
                best = accuracy[0, :end] >= accuracy[0, :end].max() - ROUNDING
                share = best / best.sum()
                estimate[i] += (share @ ((1 - size) * mean[:end])) / halves
                chosen[i, :end] += share / (2 * halves)
    out = []
    for i, end in enumerate(ends):
        a, se = np.clip([estimate[i] + error[i, 0]], 0.0, 1.0), error[i, 1:].std(ddof=1, keepdims=True)
        low, high = wilson(a, _effective_problems((values @ chosen[i])[:, None], a, se), confidence)
        naive = float(mean[:end].max())
        out.append(ChosenBest(float(a[0]), float(low[0]), float(high[0]), float(se[0]), naive, naive - float(a[0]), chosen[i, :end]))
    return out


def _best_so_far(accuracy: Floats, other: Floats, ends: Sequence[int]) -> Floats:
    """Mean of `other` over the cells that are most accurate among the first 1..end, (ends, rows) of (rows, cells)."""
    rows = len(accuracy)
    top, tied, summed = np.full(rows, -np.inf), np.zeros(rows), np.zeros(rows)
    out, start = np.empty((len(ends), rows)), 0
    for i, end in enumerate(ends):
        if end > start:
            part = accuracy[:, start:end]
            raised = np.maximum(top, part.max(axis=1))
            kept = top >= raised - ROUNDING
            best = part >= (raised - ROUNDING)[:, None]
            tied = np.where(kept, tied, 0) + best.sum(axis=1)
            summed = np.where(kept, summed, 0) + np.where(best, other[:, start:end], 0).sum(axis=1)
            top, start = raised, end
        out[i] = summed / tied
    return out


def stratified_half(strata: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.bool_]:
    """A random half of the problems, (problems,) bool: of the whole and of every stratum half, give or take one."""
    order = np.lexsort((rng.random(len(strata)), strata))
    half = np.empty(len(strata), dtype=bool)
    half[order] = (np.arange(len(strata)) + rng.integers(2)) % 2 == 0
    return half


def split_variance(total_se: float, sampling_variance: Floats) -> tuple[float, float]:
    """Parts of a standard error: se_sampling = sqrt(sum of variances) / n, and se_problems = sqrt(total² - se_sampling²), not below 0.

    Parameters
    ----------
    sampling_variance : (problems,)
        Variance of each problem's value that comes from its finite pool; NaN where unknown, which makes both parts NaN. An estimate
        from random cuts can be negative on a problem, and a sum below 0 counts as 0.
    """
    within = math.sqrt(max(float(sampling_variance.sum()), 0.0)) / len(sampling_variance)
    between = math.sqrt(max(total_se**2 - within**2, 0.0)) if math.isfinite(within) else math.nan
    return within, between


@dataclass(frozen=True)
class Resolution:
    """What would resolve a difference: this many more problems, or this many more samples per problem. None: it does not."""

    problems: int | None
    samples: int | None


def resolve(difference: float, se_problems: float, se_sampling: float, n_problems: int, n_samples: int, confidence: float) -> Resolution:
    """Smallest numbers of further problems n' and of further samples per problem K', each alone, with z·se <= |difference|.

    (se_problems² + se_sampling²) · n/(n + n') <= (difference/z)² and se_problems² + se_sampling² · K/(K + K') <= (difference/z)². Both
    are 0 for a difference that is resolved already, and None for one of 0 or where a standard error is unknown (NaN); samples are None
    too where se_problems alone is too wide.

    Leaves out: that the difference itself will move.
    # ASSUME the sampling part of the variance falls as 1/K: exact for one sample, the leading term for votes
    """
    wanted = (difference / norm.ppf(0.5 + confidence / 2)) ** 2
    between, within = se_problems**2, se_sampling**2
    if abs(difference) <= ROUNDING or not math.isfinite(between + within):
        return Resolution(None, None)
    if between + within <= wanted:
        return Resolution(0, 0)
    problems = math.ceil(n_problems * (between + within) / wanted) - n_problems
    room = wanted - between
    return Resolution(problems, math.ceil(n_samples * within / room) - n_samples if room > 0 else None)
