"""Coverage, the share of problems that any of k samples solves: three laws fitted to small k and judged at k they have not seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flopstat.lawbook.objectives import Name
from flopstat.laws import Parameter
from flopstat.problem_fits import ProblemFit, fit_curve
from flopstat.study_pools import StudyPools, interval, missing

Floats = NDArray[np.float64]

FORMS = {"coverage": "k", "coverage-beta": "k", "ttspm": "n"}  # law and its name for the number of samples
FITTED_POINTS = 10  # at most, spread evenly over ln k
UNSEEN_POINTS = 4
REJECTED = 0.05
GOOD_ENOUGH = 0.005  # a law whose error surely stays below half a point at the unseen k is kept, however precise the data
SHRINKAGE = 0.1
SMALLEST_POOL = 8


@dataclass(frozen=True)
class CoverageFit:
    """The laws of one (arm, T), and their errors at unseen k."""

    curve: Floats  # (K,) measured pass@k
    seen: NDArray[np.int64]  # k that the laws are fitted to
    unseen: NDArray[np.int64]
    fits: dict[str, ProblemFit]  # none where no replicate differs
    rows: list[Parameter]
    held: list[str]  # laws that hold at the unseen k


def _spread(low: int, high: int, points: int) -> NDArray[np.int64]:
    """Whole numbers from low to high, evenly over their logarithm."""
    return np.unique(np.rint(np.geomspace(low, high, points)).astype(np.int64))


def _misfit(error: Floats, boot: Floats) -> float:
    """p-value of errors that would be 0: e'S⁻¹e against its distribution over the centred replicates, correlations shrunk by a tenth."""
    covariance = np.atleast_2d(np.cov(boot, rowvar=False))
    variance = np.diag(covariance)
    if not (variance > 0).all():
        return 0.0 if np.abs(error).max() > 1e-9 else 1.0
    inverse = np.linalg.inv((1 - SHRINKAGE) * covariance + SHRINKAGE * np.diag(variance))
    q = np.einsum("ri,ij,rj->r", boot - error, inverse, boot - error)
    return (1 + int((q >= error @ inverse @ error).sum())) / (1 + len(q))


def _rmse(error: Floats, boot: Floats, confidence: float) -> tuple[float, float, float, Floats]:
    """Root mean square in points of accuracy with limits, and the replicates of the mean square (freed of what resampling adds)."""
    square = float(np.mean(error**2)) * 1e4
    boots = np.mean(boot**2, axis=1) * 1e4
    boots = boots - boots.mean() + square
    low, high = interval(np.maximum(boots, 0.0), confidence)
    value = float(np.sqrt(square))
    return value, min(float(np.sqrt(low)), value), max(float(np.sqrt(high)), value), boots


def fit_coverage(
    pools: StudyPools, judges: StudyPools | None, arm: str, t: int, seed: int, objective: Name = "mse"
) -> CoverageFit | Parameter:
    """The three laws of pass@k of one (arm, T).

    - coverage: exp(a k^b) (Brown et al. 2024)
    - coverage-beta: 1 - Π_{j<k} (b + j)/(a + b + j), p ~ Beta(a, b), with m = a/(a + b) and s = a + b
    - ttspm: F_max (1 - (1 - p)^k)

    Least squares on up to 10 numbers k <= K/2 spread evenly over ln k, on calibration problems; each replicate of the problems refits.
    Judged at K/2 < k <= K of the same problems, errors paired by replicate: a law holds if its errors there are not rejected (p >= 0.05) or
    surely below half a point (upper limit of their RMSE). `rmse_unseen_k` says how large they are, `rmse_study` the same on the
    study problems, with what another set of problems adds. Where no replicate of the problems differs no law is identified.

    Parameters
    ----------
    pools, judges : calibration and study pools
    objective : least squares, but for the table of sensitivities

    Leaves out: that k <= K/2 and k > K/2 are of the same samples: unseen is k, not the problem.
    """
    everything = pools.coverage(arm, t)
    k = everything.shape[1]
    if k < SMALLEST_POOL:
        return missing("coverage", "best_form", f"a pool of {k} samples: fitted to half of them it needs {SMALLEST_POOL}")
    seen = _spread(1, k // 2, FITTED_POINTS)
    unseen = _spread(k // 2 + 1, k, UNSEEN_POINTS)
    measured, replicates = everything[:, unseen - 1], pools.w @ everything[:, unseen - 1]
    fits, rows, squares, held, why = {}, [], {}, [], ""
    for law, name in FORMS.items():
        fit = fit_curve(law, {name: seen.astype(float)}, everything[:, seen - 1], pools.w, seed, objective)
        if isinstance(fit, str):
            why = fit
            rows.append(missing(law, "rmse_unseen_k", why))
            continue
        fits[law] = fit
        value, boot = fit.predict({name: unseen.astype(float)})
        error, boot_error = value - measured.mean(axis=0), boot - replicates
        rmse, low, high, squares[law] = _rmse(error, boot_error, pools.confidence)
        p = _misfit(error, boot_error)
        holds = p >= REJECTED or high < 100 * GOOD_ENOUGH
        held += [law] * holds
        note = f"{'holds' if holds else 'rejected'} at k = {unseen[0]} to {k} (p = {p:.3g}), fitted to k = 1 to {seen[-1]}"
        rows += fit.parameters(pools.confidence)
        rows.append(Parameter(law, "rmse_unseen_k", rmse, low, high, fit.certificate.certified, note))
        if judges is not None and (arm, t) in judges.pools and judges.pools[arm, t].size >= k:
            other = judges.coverage(arm, t)[:, unseen - 1]
            study = _rmse(value - other.mean(axis=0), boot - judges.w @ other, pools.confidence)
            rows.append(Parameter(law, "rmse_study", *study[:3], fit.certificate.certified, "the same law on the study problems"))
    rows.append(_best(squares, held, pools.confidence) if fits else missing("coverage", "best_form", why))
    return CoverageFit(everything.mean(axis=0), seen, unseen, fits, rows, held)


def _best(squares: dict[str, Floats], held: list[str], confidence: float) -> Parameter:
    """Which law holds and errs least at unseen k; `estimate` is how much more the next one errs, in squared points."""
    names = ("coverage", "best_form")
    if not held:
        return Parameter(*names, np.nan, np.nan, np.nan, False, "no law holds at the unseen k")
    order = sorted(squares, key=lambda law: float(squares[law].mean()))
    order = [law for law in order if law in held]
    best = order[0]
    if len(order) == 1:
        return Parameter(*names, np.nan, np.nan, np.nan, True, f"{best} alone holds")
    gaps = {law: squares[law] - squares[best] for law in order[1:]}
    rivals = [law for law, gap in gaps.items() if interval(gap, confidence)[0] <= 0]
    nearest = gaps[order[1]]
    low, high = interval(nearest, confidence)
    verdict = f"not distinguishable: {', '.join([best, *rivals])}" if rivals else f"{best} errs least"
    return Parameter(*names, float(nearest.mean()), low, high, not rivals, verdict)
