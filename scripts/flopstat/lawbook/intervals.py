"""Intervals of a fit: bootstrap refits over rows, and profiles, each as one batch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from flopstat.lawbook.certificate import noise_scale
from flopstat.lawbook.optimiser import Problem, minimise

Floats = NDArray[np.float64]

PROFILE = np.array([0.5, 1.0, 1.5, 2.0, 2.5, 3.5, 6.0])  # standard errors from the optimum


def bootstrap(problem: Problem, theta: Floats, replicates: int, seed: int) -> Floats:
    """Refits (replicates, p) as θ over rows drawn with replacement, all as one batch from the optimum.

    A draw with fewer different rows than parameters is drawn again: it fits anything.
    """
    n, p = len(problem.y), theta.size
    if not replicates:
        return np.zeros((0, p))
    rng = np.random.default_rng([seed, 0])
    weights = np.zeros((0, n))
    while len(weights) < replicates:
        drawn = rng.multinomial(n, np.full(n, 1 / n), replicates).astype(np.float64)
        weights = np.concatenate([weights, drawn[(drawn > 0).sum(axis=1) > p]])[:replicates]
    return minimise(problem, np.tile(theta, (replicates, 1)), weights, near=True).theta


def profile(problem: Problem, theta: Floats, covariance: Floats, confidence: float) -> Floats:
    """Ends of the profile intervals (R, p, 2) as θ: where the loss, minimised over all other parameters, has risen by λ t²/2.

    λ is `certificate.noise_scale`, t the quantile of Student's distribution (of the normal for likelihoods). Steps go outward, each from
    where the one before ended, all fits, parameters and sides of a step as one batch; the crossing is interpolated in √(rise). An end is
    the law's limit if the loss never rises so far within six standard errors.

    Parameters
    ----------
    theta : (R, p) optima, R = 1 but in simulations, where every row has data of its own
    covariance : (R, p, p) of `certificate.curvature_covariance`, which says how far to step
    """
    count, p = theta.shape
    quantile = student.ppf((1 + confidence) / 2, np.inf if problem.objective.likelihood else max(problem.n - p, 1))
    target = np.repeat(np.sqrt(np.maximum(noise_scale(problem, theta), 1e-300) / 2) * quantile, 2 * p)
    width = np.sqrt(np.maximum(np.einsum("rii->ri", covariance), 1e-300))
    moves = covariance / width[:, :, None]  # of all parameters while one goes one standard error up: the others follow it
    moves = np.stack([-moves, moves], axis=2).reshape(-1, p)  # rows: fit, held parameter, side
    held = np.tile(np.repeat(np.eye(p, dtype=bool), 2, axis=0), (count, 1))
    fits = np.repeat(np.arange(count), 2 * p)
    best = problem.total(theta)[fits]
    at = theta[fits]
    heights = np.full((len(at), len(PROFILE)), np.inf)
    going = np.arange(len(at))
    for i, step in enumerate(np.diff(PROFILE, prepend=0.0)):
        there = at[going] + step * moves[going]
        inside = ((there >= problem.low) & (there <= problem.high) | ~held[going]).all(axis=1)
        going, there = going[inside], there[inside]
        if not len(going):
            break
        found = minimise(problem.at(fits[going]), np.clip(there, problem.low, problem.high), held=held[going], near=True)
        at[going] = found.theta
        heights[going, i] = np.sqrt(np.maximum(found.value - best[going], 0))
        going = going[heights[going, i] < target[going]]
    steps = _crossings(heights, target).reshape(count, p, 2)
    ends = theta[:, :, None] + steps * width[:, :, None] * np.array([-1.0, 1.0])
    return np.stack([np.maximum(ends[:, :, 0], problem.low), np.minimum(ends[:, :, 1], problem.high)], axis=-1)


def _crossings(heights: Floats, target: Floats) -> Floats:
    """Where profiles of √(rise) at the steps of PROFILE (rows, steps) first pass their targets, in standard errors; infinite if never."""
    above = heights >= target[:, None]
    i = above.argmax(axis=1)
    rows = np.arange(len(heights))
    before = np.maximum(i - 1, 0)
    x0, y0 = np.where(i > 0, PROFILE[before], 0.0), np.where(i > 0, heights[rows, before], 0.0)
    with np.errstate(invalid="ignore"):
        crossing = x0 + (PROFILE[i] - x0) * (target - y0) / np.maximum(heights[rows, i] - y0, 1e-300)
    return np.where(above.any(axis=1) & np.isfinite(heights[rows, i]), crossing, np.inf)
