"""Fit one law to data: all starts as one batch, a certificate, bootstrap and profile intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.stats import qmc
from scipy.stats import t as student

from flopstat.errors import InputError
from flopstat.lawbook.catalogue import Law
from flopstat.lawbook.certificate import certify, curvature_covariance
from flopstat.lawbook.compiled import Compiled, Scale, Shape, compile_law, transform, untransform
from flopstat.lawbook.intervals import bootstrap, profile
from flopstat.lawbook.objectives import Objective, objective
from flopstat.lawbook.observations import Observations, check
from flopstat.lawbook.optimiser import Minima, Problem, minimise
from flopstat.lawbook.result import Estimate, Fit

Floats = NDArray[np.float64]

DELTA = 1e-3  # Hoffmann et al. 2022, eq. 3
KEPT = 400  # replicates that a result carries for bands
EXACT = 1e-12  # share of a constant's loss below which a fit counts as exact


@dataclass(frozen=True)
class Settings:
    """How to fit.

    Attributes
    ----------
    objective : one of objectives.NAMES; None takes the law's own
    delta : δ of huber-log
    random_starts : so many starts drawn over the range of the law's own start values; None takes those values in all combinations
    replicates : bootstrap refits over resampled rows; 0 takes errors from the curvature
    profile : profile intervals as well
    keep_duplicates : exact duplicates among the rows are meant
    """

    objective: str | None = None
    delta: float = DELTA
    random_starts: int | None = None
    replicates: int = 1000
    seed: int = 20261121  # the default study's
    confidence: float = 0.95
    profile: bool = True
    keep_duplicates: bool = False


def compiled_for(law: Law, space: str, fixed: Mapping[str, float]) -> Compiled:
    """The law's code with some parameters held."""
    variables = tuple((v.name, v.positive) for v in law.variables)
    parameters: tuple[tuple[str, Scale], ...] = tuple((p.name, p.scale) for p in law.parameters)
    return compile_law(Shape(law.tree, variables, parameters, tuple(sorted(fixed.items())), "log" if space == "log" else "identity"))


def problem_for(law: Law, data: Observations, goal: Objective, fixed: Mapping[str, float]) -> Problem:
    """Data and code of one fit, ready for the optimiser."""
    code = compiled_for(law, goal.space, fixed)
    positive = {v.name: v.positive for v in law.variables}
    inputs = [np.log(data.variables[n]) if positive[n] else data.variables[n] for n in code.inputs]
    free = [p for p in law.parameters if p.name not in fixed]
    scales = [p.scale for p in free]
    low, high = (transform(np.array([getattr(p, end) for p in free]), scales) for end in ("low", "high"))
    return Problem(code, inputs, goal.response(data.y), data.trials, goal, low, high)


def starts_for(law: Law, data: Observations, fixed: Mapping[str, float], settings: Settings) -> Floats:
    """Starts (S, p) as θ: the law's grid, or a scrambled Sobol design between its ends."""
    scales = [p.scale for p in law.parameters if p.name not in fixed]
    grid = law.start_grid(data.variables, data.y, fixed)
    free = [p for p in law.parameters if p.name not in fixed]
    grid = np.column_stack([np.clip(grid[:, i], p.low, p.high) for i, p in enumerate(free)]) if free else grid
    theta = transform(grid, scales)
    if settings.random_starts is None or not free:
        return theta
    low, high = theta.min(axis=0), theta.max(axis=0)
    narrow = high - low < 1e-9
    low, high = np.where(narrow, low - 1, low), np.where(narrow, high + 1, high)
    power = int(np.ceil(np.log2(max(settings.random_starts, 2))))
    points = qmc.Sobol(len(free), rng=np.random.default_rng([settings.seed, 1])).random_base2(power)[: settings.random_starts]
    return low + points * (high - low)


def _checked(law: Law, data: Observations, fixed: Mapping[str, float], settings: Settings) -> Objective:
    for name, value in fixed.items():
        if name not in law.names:
            raise InputError(f"--fix {name}: law {law.id} has no such parameter; it has {', '.join(law.names)}")
        if not np.isfinite(value):
            raise InputError(f"--fix {name}={value}: not a finite number")
    if len(fixed) == len(law.names):
        raise InputError(f"law {law.id}: every parameter is held, so nothing is left to fit; drop one --fix")
    if not 0.5 < settings.confidence < 1:
        raise InputError(f"--confidence {settings.confidence}: must lie between 0.5 and 1")
    goal = objective(settings.objective or law.objective, settings.delta, data.y)
    code = compiled_for(law, goal.space, fixed)
    check(law, data, goal.name, code.inputs, len(code.names), settings.keep_duplicates)
    return goal


def _with_concentration(problem: Problem, theta: Floats) -> tuple[Problem, Floats]:
    """Beta-binomial: its concentration and the parameters in turn, from the binomial's optimum; each step lowers the likelihood's loss.

    ASSUME the concentration of a beta-binomial law is held in refits and profiles: mean and dispersion are nearly orthogonal.
    """
    for _ in range(5):
        now, at = problem, theta

        def loss(log_s: float, now: Problem = now, at: Floats = at) -> float:
            goal = replace(now.objective, concentration=float(np.exp(log_s)))
            return float(replace(now, objective=goal).total(at[None])[0])

        best = minimize_scalar(loss, bounds=(-5.0, 16.0), method="bounded")
        problem = replace(now, objective=replace(now.objective, concentration=float(np.exp(best.x))))
        theta = minimise(problem, at[None], near=True).theta[0]
    return problem, theta


def optimum(law: Law, data: Observations, fixed: Mapping[str, float], settings: Settings) -> tuple[Problem, Minima, Floats]:
    """The problem, where all starts ended, and the best θ (p,).

    Raises
    ------
    InputError
        For data that can't be fitted, or if the law is defined at no start.
    """
    goal = _checked(law, data, fixed, settings)
    problem = problem_for(law, data, goal, fixed)
    minima = minimise(problem, starts_for(law, data, fixed, settings))
    if not np.isfinite(minima.value).any():
        raise InputError(f"law {law.id}: is not defined on these data at any of its {len(minima.value)} starts; check units and --map")
    theta = minima.theta[int(np.argmin(minima.value))]
    if goal.name == "beta-binomial":
        problem, theta = _with_concentration(problem, theta)
        minima = minimise(problem, minima.theta, near=True)
        theta = minima.theta[int(np.argmin(minima.value))]
    return problem, minima, theta


def fit(law: Law, data: Observations, fixed: Mapping[str, float] | None = None, settings: Settings | None = None) -> Fit:
    """Fit a law: argmin over θ of the objective, over all starts at once.

    Parameters
    ----------
    fixed : parameters to hold at a value, in their own units

    Returns
    -------
    Fit, certified or refused; a refused fit still carries its numbers.

    Raises
    ------
    InputError
        For data that can't be fitted: too few points, duplicates, a constant variable, values outside the objective's range.

    Errors are from a bootstrap over rows, which asks that rows are independent; points of one pool of samples are not, and need resamples
    of problems (flopstat's study laws).
    """
    settings, fixed = settings or Settings(), dict(fixed or {})
    problem, minima, theta = optimum(law, data, fixed, settings)
    certificate = certify(problem, minima, theta, EXACT * constant_loss(problem))
    free = [p for p in law.parameters if p.name not in fixed]
    scales = [p.scale for p in free]
    covariance = curvature_covariance(problem, theta[None])[0]
    rows = bootstrap(problem, theta, settings.replicates, settings.seed)
    replicates = untransform(rows, scales)
    ends = profile(problem, theta[None], covariance[None], settings.confidence)[0] if settings.profile else np.full((len(free), 2), np.nan)
    values = untransform(theta, scales)
    slope = _slope(theta, scales)
    natural = np.cov(replicates, rowvar=False).reshape(len(free), len(free)) if len(replicates) > 1 else covariance * np.outer(slope, slope)
    tail = (1 - settings.confidence) / 2
    reach = student.ppf(1 - tail, max(len(data) - len(free), 1)) * np.sqrt(np.diag(covariance))
    percentile = (
        np.quantile(replicates, [tail, 1 - tail], axis=0).T
        if len(rows)
        else untransform(np.stack([theta - reach, theta + reach]), scales).T
    )
    profiles = untransform(ends.T, scales).T
    se = np.sqrt(np.diag(natural))
    parameters = {p.name: Estimate(*(float(v) for v in (values[i], se[i], *percentile[i], *profiles[i]))) for i, p in enumerate(free)}
    u = problem.law.value(theta[None], problem.inputs)[0]
    total = float(problem.total(theta[None])[0])
    residuals = problem.y - u
    return Fit(
        law,
        parameters,
        fixed,
        problem.objective.name,
        float(np.abs(residuals).mean()) if problem.objective.name == "mae" else problem.objective.reported(total, len(data)),
        settings.delta,
        problem.objective.concentration,
        certificate,
        natural,
        residuals,
        log_likelihood(problem, theta),
        replicates[:: max(1, len(replicates) // KEPT)][:KEPT],
        len(data),
        data.hash,
        settings.seed,
        settings.confidence,
    )


def _slope(theta: Floats, scales: list[Scale]) -> Floats:
    """Derivative of each parameter by its θ (p,)."""
    values = untransform(theta, scales)
    return np.array([{"log": v, "linear": 1.0, "logit": v * (1 - v)}[s] for v, s in zip(values, scales, strict=True)])


def constant_loss(problem: Problem) -> float:
    """Loss of the best guess that knows no variable: the response's median (mean for squares and likelihoods)."""
    y = problem.y
    middle = np.median(y) if problem.objective.name in ("huber-log", "mae") else np.average(y, weights=problem.trials)
    return float(problem.objective.terms(np.full((1, len(y)), middle), y, problem.trials).loss.sum())


def log_likelihoods(problem: Problem, theta: Floats) -> Floats:
    """Per datum (n,): of Gaussian errors with their fitted variance in the objective's space, or of the trials."""
    losses = problem.losses(theta[None])[0]
    if problem.objective.likelihood:
        return -losses
    r = problem.y - problem.law.value(theta[None], problem.inputs)[0]
    variance = max(float((r**2).mean()), 1e-300)
    out: Floats = -0.5 * (np.log(2 * np.pi * variance) + r**2 / variance)
    return out


def log_likelihood(problem: Problem, theta: Floats) -> float:
    return float(log_likelihoods(problem, theta).sum())
