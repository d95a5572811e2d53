"""Catalogue laws fitted to curves of one pool: points that share problems, so every replicate of the problems refits the whole curve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from flopstat import bootstrap
from flopstat.errors import InputError
from flopstat.lawbook import catalogue
from flopstat.lawbook.catalogue import Law
from flopstat.lawbook.certificate import Certificate, certify
from flopstat.lawbook.compiled import untransform
from flopstat.lawbook.fitting import EXACT, Settings, constant_loss, optimum
from flopstat.lawbook.objectives import Name
from flopstat.lawbook.observations import Observations
from flopstat.lawbook.optimiser import minimise
from flopstat.laws import Parameter
from flopstat.study_pools import ALIKE, limits_if_any

Floats = NDArray[np.float64]

SMALLEST = 1e-6  # accuracy


@dataclass(frozen=True)
class ProblemFit:
    """A law's fit to a curve of accuracies, with its refits."""

    law: Law
    values: dict[str, float]
    replicates: Floats  # (replicates, parameters), in the order of `values`
    residuals: Floats  # (points,) measured - fitted
    certificate: Certificate

    def predict(self, at: Mapping[str, Floats]) -> tuple[Floats, Floats]:
        """The law at new points: (points,) of the estimate and (replicates, points)."""
        points = {name: np.asarray(x, dtype=float) for name, x in at.items()}
        value = np.asarray(self.law.predict(self.values, points), dtype=float)
        columns = {name: self.replicates[:, i : i + 1] for i, name in enumerate(self.values)}
        boot = np.asarray(self.law.predict(columns, {name: x[None] for name, x in points.items()}), dtype=float)
        return np.broadcast_to(value, (len(next(iter(points.values()))),)), np.broadcast_to(boot, (len(self.replicates), value.size))

    def parameters(self, confidence: float, note: str = "") -> list[Parameter]:
        """Rows of the law's parameters; why the certificate is refused, or a parameter has no limits, stands in the verdict."""
        rows = []
        for i, (name, value) in enumerate(self.values.items()):
            low, high = limits_if_any(self.replicates[:, i], confidence)
            alike = [] if np.isfinite(low) else ["no limits: it is the same in every resample of the problems"]
            words = "; ".join([*([note] if note else []), *self.certificate.reasons, *alike]) or "fitted"
            rows.append(Parameter(self.law.id, name, value, low, high, self.certificate.certified and not alike, words))
        return rows


def fit_curve(law: str, variables: Mapping[str, Floats], values: Floats, w: Floats, seed: int, objective: Name = "mse") -> ProblemFit | str:
    """A catalogue law on the means over problems of `values`, refitted in each replicate; or why it can't be fitted.

    Where no replicate differs, as where nothing or everything is answered right, no parameter is identified.

    Parameters
    ----------
    variables : the law's variables, (points,) each
    values : (problems, points)
    w : (replicates, problems)
    objective : least squares of the means, but for the table of sensitivities
    """
    found = catalogue.find(law)
    y, boot = values.mean(axis=0), w @ values
    if not boot.std(axis=0).max() > bootstrap.ROUNDING:
        return ALIKE
    trials = np.full(len(y), float(len(values)))
    data = Observations({name: np.asarray(x, dtype=float) for name, x in variables.items()}, y, trials)
    try:
        problem, minima, theta = optimum(found, data, {}, Settings(objective=objective, seed=seed))
    except InputError as error:
        return str(error)
    certificate = certify(problem, minima, theta, EXACT * constant_loss(problem))
    if objective != "mse":
        boot = np.clip(boot, SMALLEST, 1.0)  # widened weights can leave [0, 1] by a hair, where logarithms and likelihoods end
    refits = minimise(replace(problem, y=problem.objective.response(boot)), np.tile(theta, (len(boot), 1)), near=True)
    scales = [p.scale for p in found.parameters]
    natural = untransform(theta, scales)
    estimates = dict(zip(found.names, (float(v) for v in natural), strict=True))
    residuals = y - np.asarray(found.predict(estimates, data.variables), dtype=float)
    return ProblemFit(found, estimates, untransform(refits.theta, scales), residuals, certificate)
