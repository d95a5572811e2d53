"""All starts, or all bootstrap refits, of one law as one batch: damped Gauss-Newton, then Newton.

Phase 1 solves (J'WJ + λD) step = -gradient per start, W the weights that bound each datum's curvature (IRLS for Huber, Fisher for
likelihoods), so that it works from far away, where Huber's own curvature is zero. Phase 2 takes the true Hessian and starts from where
phase 1 crawls. λ falls after a step that helps and rises after one that does not. D holds the diagonal of J'WJ, and a small share of
what is usual among all starts: without it a term of the law that has died out (e^-30 beside 1) would be thrown to the other end of the
range and never comes back; with it two starts of three find the optimum of the Chinchilla data instead of one in eleven.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from flopstat.lawbook.compiled import Compiled
from flopstat.lawbook.objectives import Objective, Terms

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

BLOCK_VALUES = 120_000  # doubles of one block's gradient, which then stays in the processor's cache
USUAL_SHARE = 1e-6
LONGEST_STEP = 8.0  # in θ: a factor e⁸ of a parameter that is searched on the log scale
OVER_RELAXATION = 1.4  # IRLS steps are too short by up to a factor of 2
CRAWL, CONVERGED = 3e-4, 1e-11  # relative gain of a step at which phase 1 and phase 2 end
STEPS = (80, 60)
FIRST_DAMPING = (1.0, 1e-6)
LOST = 1.5  # phase 2 leaves starts alone that are this much worse than the best


@dataclass(frozen=True)
class Problem:
    """One law, its data and its loss."""

    law: Compiled
    inputs: list[Floats]  # one (n,) per variable that the compiled law reads, logarithms where it wants them
    y: Floats  # (n,) in the objective's space, or (S, n) if every row of θ has data of its own
    trials: Floats | None
    objective: Objective
    low: Floats  # (p,) limits of θ
    high: Floats

    def at(self, rows: NDArray[np.intp]) -> Problem:
        """The problem of some rows of θ."""
        return self if self.y.ndim == 1 else replace(self, y=self.y[rows])

    @property
    def n(self) -> int:
        return self.y.shape[-1]

    def total(self, theta: Floats, weights: Floats | None = None) -> Floats:
        """Sum of the loss per row of θ (S,), infinite where it is not defined."""
        with np.errstate(all="ignore"):
            loss = self.losses(theta)
            total = (loss if weights is None else loss * weights).sum(axis=1)
        return np.where(np.isfinite(total), total, np.inf)

    def losses(self, theta: Floats) -> Floats:
        """Loss per datum (S, n)."""
        return self.objective.loss(self.law.value(theta, self.inputs), self.y, self.trials)

    def slopes(self, theta: Floats, weights: Floats | None = None) -> tuple[Floats, Floats]:
        """Gradient of the sum (S, p), and the sum of the absolute values of its terms, which says how small a gradient is."""
        u, jacobian = self.law.value_and_gradient(theta, self.inputs)
        slope = self.objective.terms(u, self.y, self.trials).slope
        slope = slope if weights is None else slope * weights
        return np.matmul(jacobian, slope[:, :, None])[:, :, 0], np.matmul(np.abs(jacobian), np.abs(slope)[:, :, None])[:, :, 0]

    def hessian(self, theta: Floats, weights: Floats | None = None) -> Floats:
        """Hessian of the sum (S, p, p)."""
        u, jacobian = self.law.value_and_gradient(theta, self.inputs)
        return self._hessian(theta, jacobian, self.objective.terms(u, self.y, self.trials), weights)

    def bounding(self, theta: Floats) -> Floats:
        """J'WJ (S, p, p): the positive semidefinite stand-in for the Hessian."""
        u, jacobian = self.law.value_and_gradient(theta, self.inputs)
        return _gram(jacobian, self.objective.terms(u, self.y, self.trials).weight)

    def _hessian(self, theta: Floats, jacobian: Floats, terms: Terms, weights: Floats | None) -> Floats:
        curvature, slope = terms.curvature(), terms.slope
        if weights is not None:
            curvature, slope = curvature * weights, slope * weights
        return _gram(jacobian, curvature) + self.law.second(theta, self.inputs, slope)


@dataclass(frozen=True)
class Minima:
    """Where each start ended: θ (S, p), loss (S,), steps taken (S,)."""

    theta: Floats
    value: Floats
    steps: NDArray[np.int64]


def _gram(jacobian: Floats, weight: Floats) -> Floats:
    return np.matmul(jacobian * weight[:, None, :], jacobian.transpose(0, 2, 1))


def _usual(problem: Problem, theta: Floats) -> Floats:
    """Mean squared derivative by each parameter (p,), the ninth decile over a sample of the starts."""
    sample = theta[:: max(1, len(theta) // 64)]
    _, jacobian = problem.law.value_and_gradient(sample, problem.inputs)
    with np.errstate(all="ignore"):
        size = np.where(np.isfinite(jacobian), jacobian, 0.0) ** 2
    return np.maximum(np.quantile(size.mean(axis=2), 0.9, axis=0), 1e-12)


def minimise(problem: Problem, theta: Floats, weights: Floats | None = None, held: Bools | None = None, *, near: bool = False) -> Minima:
    """Minimise the loss from every row of θ.

    Parameters
    ----------
    theta : (S, p) starts
    weights : (S, n) how often each datum counts, for bootstrap refits
    held : (S, p) parameters that stay where they start, for profiles
    near : the starts lie near their optima, and each has its own: Newton at once, and no start is left alone

    Returns
    -------
    Minima; the loss is infinite where a start has none.
    """
    n, p = problem.n, theta.shape[1]
    held = np.zeros(theta.shape, dtype=bool) if held is None else held
    theta = np.where(held, theta, np.clip(theta, problem.low, problem.high))
    if p == 0:
        return Minima(theta, problem.total(theta, weights), np.zeros(len(theta), dtype=np.int64))
    usual = _usual(problem, theta)
    size = max(8, BLOCK_VALUES // (n * p))
    values = np.full(len(theta), np.inf)
    steps = np.zeros(len(theta), dtype=np.int64)
    chosen = np.arange(len(theta))
    for newton in (True, False, True) if near else (False, True):
        for at in range(0, len(chosen), size):
            block = chosen[at : at + size]
            part = None if weights is None else weights[block]
            theta[block], values[block], taken = _descend(problem.at(block), theta[block], part, held[block], usual, newton)
            steps[block] += taken
        if near and newton:
            chosen = _unfinished(problem, theta, weights, held, size)
        elif not near and problem.y.ndim == 1:
            chosen = np.flatnonzero(values <= LOST * values.min() + 1e-30) if np.isfinite(values).any() else chosen[:0]
    return Minima(theta, values, steps)


def shortlist(problem: Problem, theta: Floats, keep: int, steps: int) -> Floats:
    """The best `keep` of each problem's starts after a few steps of phase 1, (R, starts, p) to (R, keep, p).

    A few steps without second derivatives cost little beside a whole descent, so that many starts can be tried.

    Parameters
    ----------
    problem : data of R problems, y (R, n)
    steps : of phase 1 per start
    """
    count, starts, p = theta.shape
    flat = np.clip(theta.reshape(-1, p), problem.low, problem.high)
    held, usual = np.zeros(flat.shape, dtype=bool), _usual(problem, flat)
    rows = np.repeat(np.arange(count), starts)
    values = np.full(len(flat), np.inf)
    size = max(8, BLOCK_VALUES // (problem.n * p))
    for at in range(0, len(flat), size):
        block = np.arange(at, min(at + size, len(flat)))
        flat[block], values[block], _ = _descend(problem.at(rows[block]), flat[block], None, held[block], usual, False, steps)
    order = np.argsort(values.reshape(count, starts), axis=1, kind="stable")[:, :keep]
    return np.asarray(flat.reshape(count, starts, p)[np.arange(count)[:, None], order])


def _unfinished(problem: Problem, theta: Floats, weights: Floats | None, held: Bools, size: int) -> NDArray[np.intp]:
    """Rows whose gradient does not vanish."""
    out = []
    for at in range(0, len(theta), size):
        block = np.arange(at, min(at + size, len(theta)))
        out.append(relative_gradient(problem.at(block), theta[block], None if weights is None else weights[block], held[block]) > 1e-6)
    return np.flatnonzero(np.concatenate(out))


def relative_gradient(problem: Problem, theta: Floats, weights: Floats | None = None, held: Bools | None = None) -> Floats:
    """Largest |gradient| over the sum of its terms' absolute values (S,): 0 at a minimum, 1 if all data pull the same way.

    Parameters that are held, or that a limit holds against the gradient, do not count.
    """
    slope, scale = problem.slopes(theta, weights)
    bound = _bound(problem, theta, slope) if held is None else held | _bound(problem, theta, slope)
    with np.errstate(all="ignore"):
        return np.where(bound, 0.0, np.abs(slope) / np.maximum(scale, 1e-250)).max(axis=1)


def _bound(problem: Problem, theta: Floats, slope: Floats) -> Bools:
    return ((theta <= problem.low) & (slope > 0)) | ((theta >= problem.high) & (slope < 0))


def _descend(
    problem: Problem, theta: Floats, weights: Floats | None, held: Bools, usual: Floats, newton: bool, most: int | None = None
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """One phase on one block of starts, of at most so many steps."""
    count, p = theta.shape
    diagonal = np.arange(p)
    theta = theta.copy()
    damping = np.full(count, FIRST_DAMPING[newton])
    steps = np.zeros(count, dtype=np.int64)
    value = problem.total(theta, weights)
    active = np.flatnonzero(np.isfinite(value))
    for _ in range(STEPS[newton] if most is None else most):
        if not len(active):
            break
        here, w = theta[active], None if weights is None else weights[active]
        part = problem.at(active)
        slope, matrix, metric = _model(part, here, w, usual, newton)
        still = held[active] | _bound(part, here, slope)
        slope[still] = 0
        matrix[still] = 0
        matrix.transpose(0, 2, 1)[still] = 0
        matrix[:, diagonal, diagonal] += damping[active, None] * metric + np.where(still, 1.0, 1e-280)
        step = _solve(matrix, -slope, metric)
        if not newton:
            step *= OVER_RELAXATION
        step *= np.minimum(1, LONGEST_STEP / np.maximum(np.abs(step).max(axis=1), 1e-300))[:, None]
        there = np.where(held[active], here, np.clip(here + step, problem.low, problem.high))
        before, after = value[active], part.total(there, w)
        better = after < before
        theta[active[better]] = there[better]
        value[active] = np.where(better, after, before)
        damping[active] = np.clip(damping[active] * np.where(better, 0.1, 4.0), 1e-14, 1e12)
        steps[active] += 1
        gain = (before - after) <= (CONVERGED if newton else CRAWL) * before
        active = active[~np.where(better, gain, damping[active] > 1e6)]
    return theta, value, steps


def _model(problem: Problem, theta: Floats, weights: Floats | None, usual: Floats, newton: bool) -> tuple[Floats, Floats, Floats]:
    """Gradient (S, p), quadratic model (S, p, p) and damping metric (S, p)."""
    u, jacobian = problem.law.value_and_gradient(theta, problem.inputs)
    with np.errstate(all="ignore"):
        terms = problem.objective.terms(u, problem.y, problem.trials)
        weight, slope = (terms.weight, terms.slope) if weights is None else (terms.weight * weights, terms.slope * weights)
        gradient = np.matmul(jacobian, slope[:, :, None])[:, :, 0]
        if newton:
            metric = np.matmul(jacobian**2, weight[:, :, None])[:, :, 0]
            matrix = problem._hessian(theta, jacobian, terms, weights)
        else:
            matrix = _gram(jacobian, weight)
            metric = np.einsum("sii->si", matrix).copy()
        metric += USUAL_SHARE * usual * weight.sum(axis=1)[:, None]
    return gradient, matrix, metric


def _solve(matrix: Floats, right: Floats, metric: Floats) -> Floats:
    """Solve per start in units in which the metric is 1; a start whose system is not finite or singular steps nowhere."""
    with np.errstate(all="ignore"):
        scale = 1 / np.sqrt(np.maximum(metric, 1e-280))
        scaled = matrix * scale[:, :, None] * scale[:, None, :]
        wanted = right * scale
    bad = ~(np.isfinite(scaled).all(axis=(1, 2)) & np.isfinite(wanted).all(axis=1))
    scaled[bad] = np.eye(matrix.shape[1])
    wanted[bad] = 0
    try:
        out = np.linalg.solve(scaled, wanted[:, :, None])[:, :, 0]
    except np.linalg.LinAlgError:
        out = np.matmul(np.linalg.pinv(scaled), wanted[:, :, None])[:, :, 0]
    step: Floats = np.where(np.isfinite(out * scale), out * scale, 0.0)
    return step
