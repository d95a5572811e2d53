"""What the effective-parameter factors α of a study have in common: their curve over bits, over steps of difficulty and over N."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from flopstat.laws import Parameter, fit_alpha, invert_reference
from flopstat.study_pools import LawArm, StudyPools, finite, interval, missing, safe_logit

Floats = NDArray[np.float64]

LAW = "alpha-q"
GAMMAS = np.geomspace(0.1, 300.0, 1200)  # bits: from "2 bits are as good as 16" to "α is proportional to q"
FULL_BITS = 16.0
SHRINKAGE = 0.1  # of the correlations of a bootstrap covariance, as for κ
REJECTED = 0.05


def alpha_curve(bits: Floats, gamma: Floats | float) -> Floats:
    """α(q) = (1 - e^(-q/γ)) / (1 - e^(-16/γ)): 1 at 16 bits, rising in q."""
    out: Floats = np.expm1(-bits / gamma) / np.expm1(-FULL_BITS / gamma)
    return out


@dataclass(frozen=True)
class Alphas:
    """ln α of the quantised arms at one T: row 0 the estimate, then the replicates; ±inf outside the reference range, NaN unknown."""

    arms: list[LawArm]
    inside: Floats  # (1 + replicates, arms)
    extended: Floats  # the same with the reference's end segments carried on
    bounds: Floats  # (2, arms): ln α at the two ends of the reference range


def study_alphas(pools: StudyPools, t: int) -> Alphas:
    """ln α of every quantised arm whose model has an unquantised reference arm at this T; none with fewer than two references."""
    here = pools.of(t)
    references = sorted((arm for arm in here if arm.reference), key=lambda arm: arm.n_params)
    quantised = [a for a in here if not a.reference and not a.imported and any(r.model == a.model for r in references)]
    if len(references) < 2:
        quantised = []
    if not quantised:
        empty = np.empty((len(pools.w) + 1, 0))
        return Alphas([], empty, empty, np.empty((2, 0)))
    log_n = np.log([float(arm.n_params) for arm in references])
    curve = _logits(pools, references, t)
    targets = _logits(pools, quantised, t)
    own = np.log([float(arm.n_params) for arm in quantised])
    inside = np.column_stack([invert_reference(target, log_n, curve) for target in targets.T]) - own
    extended = np.where(np.isinf(inside), _extend(targets, log_n, curve) - own, inside)
    return Alphas(quantised, inside, extended, np.stack([log_n[0] - own, log_n[-1] - own]))


def _logits(pools: StudyPools, arms: list[LawArm], t: int) -> Floats:
    """logit of single-sample accuracy: row 0 the estimate, then the replicates, (1 + replicates, arms)."""
    values = np.column_stack([pools.single[arm.name, t] for arm in arms])
    return safe_logit(np.vstack([values.mean(axis=0), pools.w @ values]), pools.n_problems)


def _extend(target: Floats, log_n: Floats, curve: Floats) -> Floats:
    """ln N of targets beyond the reference range, on the nearest end segment carried on, (replicates, arms)."""
    with np.errstate(divide="ignore", invalid="ignore"):  # a flat reference is no reference: its replicates are NaN anyway
        low = log_n[0] + (target - curve[:, :1]) * (log_n[1] - log_n[0]) / (curve[:, 1:2] - curve[:, :1])
        high = log_n[-1] + (target - curve[:, -1:]) * (log_n[-1] - log_n[-2]) / (curve[:, -1:] - curve[:, -2:-1])
    return np.where(target < curve[:, :1], low, high)


def fit_gamma(log_alpha: Floats, bits: Floats, confidence: float) -> Parameter:
    """γ of α(q) = (1 - e^(-q/γ)) / (1 - e^(-16/γ)) through the arms' α, by generalised least squares in ln α.

    min over γ of r'S⁻¹r with r = ln α - ln α(q; γ) and S the bootstrap covariance of ln α, its correlations shrunk by a tenth. Every
    replicate is refitted. Lack of fit: the minimum against its distribution over the centred replicates.

    Parameters
    ----------
    log_alpha : (1 + replicates, arms)
        Row 0 the estimate.
    bits : (arms,) bits_effective

    Errors: γ at an end of 0.1 to 300 bits is called not identified.

    Leaves out: arms whose estimate lies outside the reference range.
    # ASSUME a replicate just outside the reference range lies on the last segment carried on, else limits would hold inside only
    """
    known = np.asarray(np.isfinite(log_alpha).all(axis=1), dtype=bool)
    if not bits.size or not known[0] or known.mean() < 0.9:
        return missing(LAW, "gamma", "no quantised arm has an α inside the reference range")
    y = log_alpha[known]
    covariance = np.atleast_2d(np.cov(y[1:], rowvar=False))
    variance = np.diag(covariance)
    if not variance.min() > 0:
        return missing(LAW, "gamma", "an α does not vary over the problems")
    inverse = np.asarray(np.linalg.inv((1 - SHRINKAGE) * covariance + SHRINKAGE * np.diag(variance)), dtype=np.float64)
    curve = np.log(alpha_curve(bits, GAMMAS[:, None]))  # (gammas, arms)
    fitted, least = _minimise(y, curve, inverse)
    gamma = fitted[0]
    low, high = interval(fitted[1:], confidence)
    edges = GAMMAS[1], GAMMAS[-2]
    if not edges[0] < gamma < edges[1]:
        return missing(LAW, "gamma", f"γ lies outside {GAMMAS[0]:g} to {GAMMAS[-1]:g} bits")
    open_ends = low <= edges[0] or high >= edges[1]
    basis = f"{len(bits)} arms of {bits.min():.3g} to {bits.max():.3g} bits"
    if len(np.unique(bits)) < 2:
        verdict = f"{basis}: one α gives γ whatever the curve, no test"
    else:
        shift = y[0] - np.log(alpha_curve(bits, np.array([gamma])))
        centred = _minimise(y[1:] - shift, curve, inverse)[1]
        p = (1 + int((centred >= least[0]).sum())) / (1 + len(centred))
        verdict = f"{basis}; the curve is {'rejected' if p < REJECTED else 'not rejected'} (lack of fit p = {p:.3g})"
    low, high = (np.nan if low <= edges[0] else low), (np.nan if high >= edges[1] else high)
    return Parameter(LAW, "gamma", float(gamma), low, high, not open_ends, verdict)


def _minimise(y: Floats, curve: Floats, inverse: Floats) -> tuple[Floats, Floats]:
    """Minimiser over GAMMAS and minimum of (y - curve)' inverse (y - curve), (rows,) each; a parabola in ln γ refines the grid."""
    q = np.einsum("ri,ij,rj->r", y, inverse, y)[:, None] - 2 * (y @ inverse) @ curve.T + np.einsum("gi,ij,gj->g", curve, inverse, curve)
    at = np.clip(q.argmin(axis=1), 1, len(GAMMAS) - 2)
    rows = np.arange(len(y))
    left, middle, right = q[rows, at - 1], q[rows, at], q[rows, at + 1]
    bend = left - 2 * middle + right
    offset = np.clip(np.divide(0.5 * (left - right), bend, out=np.zeros_like(bend), where=bend > 0), -1, 1)
    step = np.log(GAMMAS[1] / GAMMAS[0])
    return GAMMAS[at] * np.exp(offset * step), np.maximum(middle - 0.25 * (left - right) * offset, 0.0)


def curve_over_bits(pools: StudyPools, t: int) -> Parameter:
    """γ over all quantised arms of one T whose α is identified; arms that can only be bounded are named where they contradict it."""
    alphas = study_alphas(pools, t)
    if not alphas.arms:
        return missing(LAW, "gamma", "no quantised arm beside two reference arms")
    bits = np.array([arm.bits for arm in alphas.arms])
    used = np.isfinite(alphas.inside[0]) & np.isfinite(bits)
    fitted = fit_gamma(alphas.extended[:, used], bits[used], pools.confidence)
    if not np.isfinite(fitted.estimate):
        return fitted
    references = [arm.n_params for arm in pools.of(t) if arm.reference]
    against = []
    for column in np.flatnonzero(np.isinf(alphas.inside[0]) & np.isfinite(bits)):
        arm = alphas.arms[column]
        predicted = arm.n_params * float(alpha_curve(bits[column], np.array(fitted.estimate)))
        surely = np.mean(alphas.inside[1:, column] == alphas.inside[0, column]) > pools.confidence
        below = alphas.inside[0, column] < 0
        if surely and (predicted > min(references) if below else predicted < max(references)):
            against.append(arm.name)
    note = f"; contradicted by {', '.join(against)}, which can only be bounded" if against else ""
    return replace(fitted, verdict=fitted.verdict + note)


def by_steps(pools: StudyPools, arm: LawArm, t: int) -> list[Parameter]:
    """α of one arm on the problems of each number of steps, and whether one α serves them all.

    The common α solves Σ_s n_s A_ref,s(α N) = Σ_s n_s A_q,s with each step's own reference curve, and d_s = A_q,s - A_ref,s(α N)
    would be 0 if α were constant. Heterogeneity: d'S⁻¹d against its distribution over the centred replicates; `estimate` is the largest
    |d_s| in accuracy.

    Leaves out: steps whose accuracy never varies (all right or all wrong); they hold nothing about α.
    """
    references = sorted((a for a in pools.of(t) if a.reference), key=lambda a: a.n_params)
    steps = np.unique(pools.difficulty)
    rows = []
    for step in steps:
        mine = pools.difficulty == step
        w = pools.w[:, mine] / mine.mean()
        curve = [(a.n_params, pools.single[a.name, t][mine]) for a in references]
        own = fit_alpha(pools.single[arm.name, t][mine], arm.n_params, curve, w, pools.confidence)
        rows.append(Parameter(LAW, f"alpha_steps_{step}", own.estimate, own.low, own.high, own.certified, own.verdict))
    return [*rows, _heterogeneity(pools, arm, references, t, steps)]


def _heterogeneity(pools: StudyPools, arm: LawArm, references: list[LawArm], t: int, steps: NDArray[np.int64]) -> Parameter:
    name = "alpha_steps_heterogeneity"
    if len(references) < 2 or len(steps) < 2:
        return missing(LAW, name, "needs two reference arms and two numbers of steps")
    log_n = np.log([float(a.n_params) for a in references])
    share = np.array([(pools.difficulty == s).mean() for s in steps])

    def per_step(name: str) -> Floats:
        """(1 + replicates, steps)"""
        values = pools.single[name, t]
        columns = [np.append(values[m].mean(), pools.w[:, m] @ values[m] / m.mean()) for m in (pools.difficulty == s for s in steps)]
        return np.column_stack(columns)

    own = per_step(arm.name)
    edges = 0.5 / (share * pools.n_problems)
    curve = np.stack([np.clip(per_step(a.name), edges, 1 - edges) for a in references], axis=-1)
    logits = np.log(curve / (1 - curve))  # (1 + replicates, steps, sizes)
    target = np.clip(own, edges, 1 - edges) @ share

    def at(x: Floats) -> Floats:
        """Accuracy of the reference at ln N = x in each step, (rows, steps)."""
        left = np.clip(np.searchsorted(log_n, x, side="right") - 1, 0, len(log_n) - 2)
        rows = np.arange(len(x))
        a, b = logits[rows, :, left], logits[rows, :, left + 1]
        out: Floats = 1 / (1 + np.exp(-(a + (b - a) * ((x - log_n[left]) / (log_n[left + 1] - log_n[left]))[:, None])))
        return out

    low, high = np.full(len(target), log_n[0]), np.full(len(target), log_n[-1])
    inside = (at(low) @ share <= target) & (at(high) @ share >= target)
    if not inside[0] or inside.mean() < 0.9:
        return missing(LAW, name, "no common α inside the reference range")
    for _ in range(40):
        middle = (low + high) / 2
        under = at(middle) @ share < target
        low, high = np.where(under, middle, low), np.where(under, high, middle)
    d = (np.clip(own, edges, 1 - edges) - at((low + high) / 2))[inside]
    varies = d[1:].std(axis=0) > 1e-9
    if varies.sum() < 2:
        return missing(LAW, name, "fewer than two numbers of steps vary")
    covariance = np.cov(d[1:, varies], rowvar=False)
    inverse = np.linalg.inv((1 - SHRINKAGE) * covariance + SHRINKAGE * np.diag(np.diag(covariance)))
    centred = d[1:, varies] - d[0, varies]
    q = np.einsum("ri,ij,rj->r", np.vstack([d[0, varies], centred]), inverse, np.vstack([d[0, varies], centred]))
    p = (1 + int((q[1:] >= q[0]).sum())) / (1 + len(centred))
    worst = int(np.abs(d[0]).argmax())
    lower, upper = interval(d[1:, worst], pools.confidence)
    verdict = (
        f"α {'differs over' if p < REJECTED else 'is not distinguishable from constant over'} the number of steps (p = {p:.3g}); "
        f"the largest misfit of one common α, in accuracy, is at {steps[worst]} steps"
    )
    return Parameter(LAW, name, float(d[0, worst]), lower, upper, True, verdict)


def over_sizes(pools: StudyPools, t: int) -> list[tuple[str, Parameter]]:
    """Whether α of a precision is constant over N: log2 α of its largest minus that of its smallest model, by the name `*@precision`.

    An α outside the reference range is known by its bound only: the lower limit takes the least change that the bounds allow, the upper
    limit the most, which may be infinite.
    """
    alphas = study_alphas(pools, t)
    out = []
    for precision in dict.fromkeys(arm.precision for arm in alphas.arms):
        columns = sorted((c for c, a in enumerate(alphas.arms) if a.precision == precision), key=lambda c: alphas.arms[c].n_params)
        if len(columns) < 2:
            continue
        small, large = columns[0], columns[-1]
        least, most = _change(alphas, small, large)
        estimate = least[0] if least[0] == most[0] else np.nan
        low, high = interval(least[1:], pools.confidence)[0], interval(most[1:], pools.confidence)[1]
        names = (LAW, "log2_alpha_change_over_n")
        pair = f"{alphas.arms[small].model} to {alphas.arms[large].model}"
        if low > 0:
            verdict = f"α grows with N ({pair})"
        elif high < 0:
            verdict = f"α falls with N ({pair})"
        elif not np.isfinite([estimate, low, high]).all():
            verdict = f"not identified: an α lies outside the reference range ({pair})"
        else:
            verdict = f"not distinguishable from constant ({pair})"
        known = bool(np.isfinite([estimate, low, high]).all())
        out.append((f"*@{precision}", Parameter(*names, float(estimate), finite(low), finite(high), known, verdict)))
    return out


def _change(alphas: Alphas, small: int, large: int) -> tuple[Floats, Floats]:
    """Least and most log2 α of arm `large` minus that of arm `small` that the reference range allows, (1 + replicates,) each."""

    def ends(column: int) -> tuple[Floats, Floats]:
        x = alphas.inside[:, column]
        return np.where(x == np.inf, alphas.bounds[1, column], x), np.where(x == -np.inf, alphas.bounds[0, column], x)

    (small_low, small_high), (large_low, large_high) = ends(small), ends(large)
    return (large_low - small_high) / np.log(2), (large_high - small_low) / np.log(2)
