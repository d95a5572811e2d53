"""How wide intervals will be, before anything is drawn: what n problems and K samples resolve.

A problem has a probability p of being solved by one sample. Over problems p has mean m and variance rho·m(1 - m); a sample adds
(1 - rho)·m(1 - m). So the accuracy of a single sample, estimated from n problems with K samples each, has

    variance = [rho + (1 - rho)/K]·m(1 - m) / n

and the difference of two arms on the same problems, whose p correlate by r,

    variance = 2·[rho·(1 - r) + (1 - rho)/K]·m(1 - m) / n.

# ASSUME before a pilot accuracy is one half, where intervals are widest
# ASSUME half of the variance then lies between problems (range: a tenth to nine tenths)
# ASSUME two arms then find the same problems hard, with correlation 0.7 (range: 0.3 to 0.95), and shared uniforms gain nothing
# ASSUME wrong answers then agree, so that a vote is one of two
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln, gammaln, ndtri

from flopstat.pilot import Estimate

BETWEEN = (0.5, 0.1, 0.9)  # rho: expected, low, high
ALIKE = (0.7, 0.95, 0.3)  # r: expected, then what makes the difference narrow, and wide


def accuracy_variance(between: float, n: int, k: int) -> float:
    """Worked by hand: rho 0.5, 50 problems of 16 samples: (0.5 + 0.5/16)·0.25/50 = 0.00265625, a standard error of 5.2 points."""
    return (between + (1 - between) / k) * 0.25 / n


def difference_variance(between: float, alike: float, n: int, k: int) -> float:
    """Worked by hand: rho 0.5, r 0.5, 50 problems of 16 samples: 2·(0.25 + 0.5/16)·0.25/50 = 0.0028125, 5.3 points."""
    return 2 * (between * (1 - alike) + (1 - between) / k) * 0.25 / n


def majority_of(k: int) -> NDArray[np.float64]:
    """(K+1, K) accuracy of a vote of P = 1..K of K samples of which c = 0..K are right, ties uniform: hypergeometric."""
    c = np.arange(k + 1)[:, None, None]
    p = np.arange(1, k + 1)[None, :, None]
    right = np.arange(k + 1)[None, None, :]

    def log_choose(n: NDArray[np.int64], r: NDArray[np.int64]) -> NDArray[np.float64]:
        out = gammaln(n + 1) - gammaln(np.maximum(r, 0) + 1) - gammaln(np.maximum(n - r, 0) + 1)
        return np.where((r >= 0) & (r <= n), out, -np.inf)

    chance = np.exp(log_choose(c, right) + log_choose(k - c, p - right) - log_choose(np.int64(k) + 0 * p, p))
    wins = (2 * right > p) + 0.5 * (2 * right == p)
    return np.asarray((chance * wins).sum(axis=2))


def kappa_variance(between: float, n: int, k: int) -> float:
    """Variance of the slope of accuracy against ln P, least squares through the origin over P = 3..K, of n problems with K samples.

    p follows a Beta distribution with mean one half and variance rho/4, so the number right is beta-binomial, and each number right has one
    slope. Generalised least squares, which studies fit, is a little narrower. Infinite below K = 4, where there is no curve.
    """
    if k < 4:
        return math.inf
    curve = majority_of(k)
    x = np.log(np.arange(3, k + 1))
    slope = (curve[:, 2:] - curve[:, :1]) @ x / (x @ x)
    half = (1 / between - 1) / 2  # both parameters of the Beta distribution
    c = np.arange(k + 1)
    log_mass = gammaln(k + 1) - gammaln(c + 1) - gammaln(k - c + 1) + betaln(c + half, k - c + half) - betaln(half, half)
    mass = np.exp(log_mass)
    return float(mass @ (slope - mass @ slope) ** 2) / n


@dataclass(frozen=True)
class Needs:
    """What would make the interval of a difference as narrow as asked: half-width at most the difference itself."""

    points: float
    problems: int  # with the study's K
    samples: int | None  # with the study's problems; None: no number of samples would


def half_widths(n: int, k: int, confidence: float) -> dict[str, Estimate]:
    """Half-widths in share: of one accuracy, of a paired difference of two arms, and of kappa."""
    z = float(ndtri(0.5 + confidence / 2))

    def half(variance: float) -> float:
        return z * math.sqrt(variance)

    accuracy = [half(accuracy_variance(b, n, k)) for b in BETWEEN]
    difference = [half(difference_variance(b, r, n, k)) for b, r in zip((BETWEEN[0],) * 3, ALIKE, strict=True)]
    kappa = sorted(half(kappa_variance(b, n, k)) for b in BETWEEN[1:])
    return {
        "half_width_accuracy": Estimate(*accuracy),
        "half_width_difference": Estimate(*difference),
        "half_width_kappa": Estimate(half(kappa_variance(BETWEEN[0], n, k)), *kappa),
    }


def needs(points: float, n: int, k: int, confidence: float) -> Needs:
    """Problems, or samples, with which a difference of so many points would be told from none: z·se <= difference.

    Worked by hand: 2 points, rho 0.5, r 0.7, K 16: variance of one problem 2·(0.15 + 0.03125)·0.25 = 0.090625, so n = 0.090625·(1.96/0.02)²
    = 870.3: 871 problems.
    """
    z = float(ndtri(0.5 + confidence / 2))
    wanted = (points / 100 / z) ** 2
    problems = math.ceil(difference_variance(BETWEEN[0], ALIKE[0], 1, k) / wanted - 1e-9)
    room = wanted * n / 0.5 - BETWEEN[0] * (1 - ALIKE[0])
    return Needs(points, problems, math.ceil((1 - BETWEEN[0]) / room - 1e-9) if room > 0 else None)
