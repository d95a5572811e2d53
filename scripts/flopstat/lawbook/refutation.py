"""Ways for a law to fail: a bend that it has not, a slope that collapsed, and conclusions that flip with the choices of the fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import f as fisher
from scipy.stats import t as student

from flopstat.errors import InputError
from flopstat.lawbook.catalogue import Law
from flopstat.lawbook.fitting import Settings, fit
from flopstat.lawbook.objectives import NAMES
from flopstat.lawbook.observations import Observations
from flopstat.lawbook.optimiser import Problem
from flopstat.lawbook.result import Fit

Floats = NDArray[np.float64]

RANDOM_STARTS = 256


def bends(problem: Problem, theta: Floats, data: Observations) -> dict[str, float]:
    """p of each variable's bend test: does a parabola in ln x explain residuals that the law leaves?

    The column (ln x - mean)² is added to the law's own derivatives at the optimum, weighted as a likelihood weights a datum, and its share
    of the residual sum of squares is tested by F(1, n - p - 1). Variables with fewer than three values are left out: they can't bend.
    """
    u, jacobian = problem.law.value_and_gradient(theta[None], problem.inputs)
    n, p = problem.n, theta.size
    if n - p - 1 < 1:
        return {}
    # Huber's own weights would hide a bend: points that it calls outliers would not count.
    weight = problem.objective.terms(u, problem.y, problem.trials).weight[0] if problem.objective.likelihood else np.ones(n)
    root = np.sqrt(weight)
    residual = (problem.y - u[0]) * root
    basis, _ = np.linalg.qr((jacobian[0] * root).T)
    left = residual - basis @ (basis.T @ residual)
    out = {}
    for name, x in data.variables.items():
        if len(np.unique(x)) < 3 or name not in problem.law.inputs:
            continue
        z = np.log(x) if (x > 0).all() else x
        column = (z - z.mean()) ** 2 * root
        column = column - basis @ (basis.T @ column)
        size = float(column @ column)
        if size < 1e-12 * float(((z - z.mean()) ** 4 * weight).sum()):
            continue  # the law bends that way itself
        explained = float(column @ left) ** 2 / size
        rest = float(left @ left) - explained
        out[name] = float(fisher.sf(explained / max(rest / (n - p - 1), 1e-300), 1, n - p - 1)) if explained > 0 else 1.0
    return out


@dataclass(frozen=True)
class Collapse:
    """Gain per doubling of a variable over the upper part of its range, with its interval and the verdict."""

    axis: str
    above: float
    slope: float
    low: float
    high: float
    verdict: str


def collapse(data: Observations, axis: str, threshold: float, confidence: float = 0.95) -> Collapse:
    """Has the gain collapsed? The slope of the response per doubling over the upper half of ln x, by least squares with Student's interval.

    "collapsed" only if the upper limit lies below the threshold, "still gains" only if the lower one lies above it.

    Parameters
    ----------
    threshold : smallest gain per doubling that matters, in the response's unit, above 0

    Raises
    ------
    InputError
        If fewer than four points lie in the upper half, or the threshold is not positive.
    """
    if not threshold > 0:
        raise InputError(f"collapse: threshold {threshold} must be above 0")
    x = np.log2(data.variables[axis])
    upper = x >= (x.min() + x.max()) / 2
    z, y = x[upper], data.y[upper]
    if len(z) < 4 or np.ptp(z) == 0:
        raise InputError(f"collapse: {len(z)} points in the upper half of {axis}; at least 4 at different values are needed")
    centred = z - z.mean()
    slope = float(centred @ y / (centred @ centred))
    residual = y - y.mean() - slope * centred
    se = float(np.sqrt((residual @ residual) / (len(z) - 2) / (centred @ centred)))
    reach = float(student.ppf((1 + confidence) / 2, len(z) - 2)) * se
    low, high = slope - reach, slope + reach
    verdict = "collapsed" if high < threshold else "still gains" if low > threshold else "not separable"
    return Collapse(axis, float(2.0 ** z.min()), slope, low, high, verdict)


@dataclass(frozen=True)
class Choice:
    """One way to fit the same data: objective and starts, with its result, or the reason why it can't be done."""

    objective: str
    starts: str
    result: Fit | None
    refused: str


@dataclass(frozen=True)
class Sensitivity:
    """All choices, and the conclusions that flip between them."""

    choices: tuple[Choice, ...]
    fragile: tuple[str, ...]


def sensitivity(law: Law, data: Observations, settings: Settings, fixed: Mapping[str, float] | None = None) -> Sensitivity:
    """Fit under each objective that the data allow and two designs of starts; a conclusion that flips is called fragile.

    Conclusions are: the sign of each parameter that may have either, as its interval states it (above 0, below 0, open), whether the
    intervals of a parameter under two choices exclude each other, and whether the fit is certified.
    """
    choices = []
    for name in NAMES:
        for starts, count in (("grid", None), ("random", RANDOM_STARTS)):
            wanted = replace(settings, objective=name, random_starts=count)
            try:
                choices.append(Choice(name, starts, fit(law, data, fixed, wanted), ""))
            except InputError as error:
                choices.append(Choice(name, starts, None, str(error)))
    return Sensitivity(tuple(choices), tuple(_fragile([c for c in choices if c.result is not None])))


def _fragile(done: list[Choice]) -> list[str]:
    results = [c.result for c in done if c.result is not None]
    if not results:
        return ["no choice could be fitted"]
    labels = [f"{c.objective} from {c.starts} starts" for c in done]
    out = []
    for name in results[0].parameters:
        signs = [sign(r, name) for r in results]
        told = sorted({s for s in signs if s != "open"})
        if len(told) == 2:
            out.append(f"the sign of {name} flips: " + ", ".join(f"{label}: {s}" for label, s in zip(labels, signs, strict=True)))
        elif told and "open" in signs:
            open_at = ", ".join(label for label, s in zip(labels, signs, strict=True) if s == "open")
            out.append(f"the sign of {name} ({told[0]}) is open with {open_at}")
        lowest = min(range(len(results)), key=lambda i: results[i].parameters[name].high)
        highest = max(range(len(results)), key=lambda i: results[i].parameters[name].low)
        if results[lowest].parameters[name].high < results[highest].parameters[name].low:
            out.append(f"the intervals of {name} exclude each other: {labels[lowest]} and {labels[highest]}")
    certified = {r.certificate.certified for r in results}
    if len(certified) == 2:
        refused = ", ".join(label for label, r in zip(labels, results, strict=True) if not r.certificate.certified)
        out.append(f"the fit is refused with {refused}")
    return out


def sign(result: Fit, name: str) -> str:
    """above 0, below 0 or open, as a parameter's interval states it."""
    estimate = result.parameters[name]
    if next(p.scale for p in result.law.parameters if p.name == name) != "linear":
        return "above 0"
    return "above 0" if estimate.low > 0 else "below 0" if estimate.high < 0 else "open"
