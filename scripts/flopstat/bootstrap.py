"""Resampling of problems, and intervals from it.

Only problems are resampled: each carries its average over all subsets of its pool, which already holds the sampling noise. One matrix
of weights serves all cells of a split, so every difference between cells is paired.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

Floats = NDArray[np.float64]

ESTIMAND = "problems like these"
ROUNDING = 1e-9  # standard errors below this are rounding: the replicates do not differ
SMALL_COUNT = 5.0  # expected successes or failures below which the bootstrap is not trusted


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
    """Intervals for mean accuracies.

    Percentile bootstrap over problems; where fewer than 5 successes or failures are expected, or the replicates do not differ, Wilson's
    interval on the effective number of problems n_eff = a(1-a)/se², between 1 and n (n where se is 0).

    Parameters
    ----------
    values : (problems, cells)
    w : (replicates, problems)

    Source: Wilson 1927; Efron and Tibshirani 1993, chapter 13.
    """
    n = len(values)
    a = values.mean(axis=0)
    boot = w @ values
    se = boot.std(axis=0, ddof=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(boot, [tail, 1 - tail], axis=0)
    no_spread = se <= ROUNDING
    small = (n * np.minimum(a, 1 - a) < SMALL_COUNT) | no_spread
    with np.errstate(divide="ignore", invalid="ignore"):
        effective = np.where(no_spread | (a * (1 - a) <= ROUNDING), n, np.clip(a * (1 - a) / se**2, 1.0, n))
    wilson_low, wilson_high = wilson(a, effective, confidence)
    low = np.where(small, wilson_low, low)
    high = np.where(small, wilson_high, high)
    return Interval(np.clip(low, 0.0, 1.0), np.clip(high, 0.0, 1.0), se, small)


def wilson(a: Floats | float, n: Floats | float, confidence: float) -> tuple[Floats, Floats]:
    """Wilson score interval of a proportion `a` of `n` trials."""
    z = norm.ppf(0.5 + confidence / 2)
    a, n = np.asarray(a, dtype=float), np.asarray(n, dtype=float)
    middle = (a + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(a * (1 - a) / n + z**2 / (4 * n**2))
    return np.clip(middle - half, 0.0, 1.0), np.clip(middle + half, 0.0, 1.0)


def mean_interval(values: Floats, w: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Percentile limits of the means of non-negative costs, (problems, cells)."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(w @ values, [tail, 1 - tail], axis=0)
    return np.maximum(low, 0.0), high


def simultaneous_limits(estimate: Floats, boot: Floats, confidence: float) -> tuple[Floats, Floats, float]:
    """Limits that hold for all estimates at once: estimate ± q·se, q the quantile of max |t| over the replicates.

    Estimates without variance take part with the smallest standard error that one problem could cause, never zero.

    Parameters
    ----------
    estimate : (m,)
    boot : (replicates, m)

    Returns
    -------
    low, high, q
    """
    se = boot.std(axis=0, ddof=1)
    seen = se[se > 0]
    floor = float(seen.min()) if seen.size else 1e-3
    se = np.maximum(se, floor)
    t = np.abs(boot - boot.mean(axis=0)) / se
    q = float(np.quantile(t.max(axis=1), confidence))
    return estimate - q * se, estimate + q * se, q
