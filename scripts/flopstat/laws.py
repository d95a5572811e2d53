"""The laws that a study fits to its own cells: κ, the gain per log-vote, and α(q), the effective-parameter factor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import logit

from flopstat import bootstrap
from flopstat.cells import matrices
from flopstat.costs import flops_of
from flopstat.estimators import majority_at_all_k
from flopstat.models import Card, ImportedCard

Floats = NDArray[np.float64]

COLLAPSED_PER_DOUBLING = 0.005  # half a point of accuracy
SHRINKAGE = 0.1

Link = Literal["logit", "share", "log"]
LINKS: dict[Link, Callable[[Floats], Floats]] = {"logit": logit, "share": np.asarray, "log": np.log}


@dataclass(frozen=True)
class Parameter:
    """One fitted parameter with its interval and what the fit says in words."""

    law: str
    parameter: str
    estimate: float
    low: float
    high: float
    certified: bool
    verdict: str

    def row(self, arm: str, t: int) -> dict[str, Any]:
        return {
            "law": self.law,
            "arm": arm,
            "T": t,
            "parameter": self.parameter,
            "estimate": self.estimate,
            "low": self.low,
            "high": self.high,
            "certified": self.certified,
            "verdict": self.verdict,
        }


def _shrunk_covariance(boot: Floats) -> Floats | None:
    """Covariance of the replicates, (replicates, m) to (m, m), its correlations shrunk by a tenth; None if nothing varies."""
    covariance = np.cov(boot, rowvar=False)
    variance = np.diag(covariance).copy()
    if not np.sqrt(variance.max()) > bootstrap.ROUNDING:
        return None
    ridge = 1e-12 * variance.max() * np.eye(len(variance))
    return np.asarray((1 - SHRINKAGE) * covariance + SHRINKAGE * np.diag(variance) + ridge)


def kappa_projection(curve: Floats, w: Floats) -> Floats:
    """The weights of `fit_kappa` on the gains at P = 3..K, (K - 2,): κ is their sum over the gains. Parameters as there."""
    x = np.log(np.arange(3, curve.shape[1] + 1))
    covariance = _shrunk_covariance(w @ (curve[:, 2:] - curve[:, :1]))
    inverse_x = np.full(len(x), np.nan) if covariance is None else np.linalg.solve(covariance, x)
    return np.asarray(inverse_x / (x @ inverse_x))


@dataclass(frozen=True)
class KappaFit:
    """κ of one curve with its limits, and the two conclusions that are drawn from it."""

    estimate: float
    low: float
    high: float
    lack_of_fit: float  # p
    gradient: float

    @property
    def gain(self) -> str:
        return told_gain(self.low, self.high)

    @property
    def law(self) -> str:
        return f"log law {'rejected' if self.lack_of_fit < 0.05 else 'not rejected'}"


def told_gain(low: float, high: float) -> str:
    """What the limits of a gain per unit of ln P say of votes."""
    if high * np.log(2) < COLLAPSED_PER_DOUBLING:
        return "collapsed: below half a point per doubling"
    return "votes gain" if low > 0 else "votes lose" if high < 0 else "not separable from zero"


def unmoved(curve: Floats) -> str:
    """Why the replicates of what votes of three and more gain do not differ, for (problems, K) accuracies of votes of P = 1..K."""
    moves = np.abs(curve[:, 2:] - curve[:, :1]).max() > bootstrap.ROUNDING
    return "every replicate over problems gains alike" if moves else "no vote changes any answer"


def kappa_of(curve: Floats, w: Floats, confidence: float, first: int = 3, generalised: bool = True) -> KappaFit | None:
    """κ over P = first..K as `fit_kappa` does, or by ordinary least squares; None where no replicate differs (`unmoved` says why)."""
    k = curve.shape[1]
    x = np.log(np.arange(first, k + 1))
    gain = curve[:, first - 1 :] - curve[:, :1]
    y = gain.mean(axis=0)
    boot = w @ gain
    covariance = _shrunk_covariance(boot)
    if covariance is None:
        return None
    pull = np.linalg.solve(covariance, x) if generalised else x
    projector = pull / (x @ pull)
    kappa = float(projector @ y)
    replicates = boot @ projector
    tail = (1 - confidence) / 2
    low, high = (float(q) for q in np.quantile(replicates, [tail, 1 - tail]))
    residual = y - kappa * x
    centred = (boot - replicates[:, None] * x) - residual
    q = float(residual @ np.linalg.solve(covariance, residual))
    q_boot = np.einsum("rp,rp->r", centred, np.linalg.solve(covariance, centred.T).T)
    p_value = (1 + int((q_boot >= q).sum())) / (1 + len(q_boot))
    gradient = abs(float(pull @ residual)) / max(float(abs(pull) @ abs(y)), 1e-300)
    return KappaFit(kappa, low, high, p_value, gradient)


def fit_kappa(curve: Floats, w: Floats, confidence: float) -> Parameter:
    """κ of A(P) - A(1) = κ ln P, through the origin, over P = 3..K.

    Generalised least squares, κ = x'S⁻¹y / x'S⁻¹x with y the gains, x = ln P and S the bootstrap covariance of y, its correlations
    shrunk by a tenth towards none (neighbouring P are nearly collinear). P = 2 equals P = 1 whatever the data under uniform
    ties, so it holds no information and is left out. The interval refits every replicate. Lack of fit: Q = r'S⁻¹r against its distribution
    over the centred replicates.

    Parameters
    ----------
    curve : (problems, K)
        Accuracy of a vote of P = 1..K per problem.
    w : (replicates, problems)
        Bootstrap weights.

    Returns
    -------
    Parameter in accuracy (share) per unit of ln P; times ln 2 it is the gain per doubling.

    Raises
    ------
    ValueError
        If K is below 4: there is no curve to fit.
    """
    if curve.shape[1] < 4:
        raise ValueError(f"a pool of {curve.shape[1]} samples: κ needs at least 4")
    names = ("kappa-log-p", "kappa")
    found = kappa_of(curve, w, confidence)
    if found is None:
        return Parameter(*names, np.nan, np.nan, np.nan, False, f"not identified: {unmoved(curve)}")
    verdict = f"{found.gain}; {found.law} (lack of fit p = {found.lack_of_fit:.3g})"
    return Parameter(*names, found.estimate, found.low, found.high, found.gradient < 1e-8, verdict)


def invert_reference(target: Floats, log_n: Floats, reference: Floats) -> Floats:
    """ln N at which the reference curve, logit A piecewise linear in ln N, has logit `target`; ±inf outside it, NaN if it does not rise.

    Parameters
    ----------
    target : (replicates,)
    log_n : (sizes,) rising
    reference : (replicates, sizes) logits, or accuracies under another rising function
    """
    out = np.full(len(target), np.nan)
    rising = (np.diff(reference, axis=1) > 0).all(axis=1)
    out[rising & (target < reference[:, 0])] = -np.inf
    out[rising & (target > reference[:, -1])] = np.inf
    for i in range(len(log_n) - 1):
        a, b = reference[:, i], reference[:, i + 1]
        inside = rising & (target >= a) & (target <= b)
        share = (target[inside] - a[inside]) / (b[inside] - a[inside])
        out[inside] = log_n[i] + share * (log_n[i + 1] - log_n[i])
    return out


def fit_alpha(
    quantized: Floats, n_params: int, references: list[tuple[int, Floats]], w: Floats, confidence: float, link: Link = "logit"
) -> Parameter:
    """α of A_ref(α N) = A_q(N): the size of the reference model that is as accurate, over the model's own.

    logit A of the reference arms is taken as piecewise linear in ln N; outside their range α is not identified and bounded on one side. The
    whole chain is refitted in every bootstrap replicate; where none moves α, as for arms that answer nothing right, it is not identified.

    Parameters
    ----------
    quantized : (problems,)
        Single-sample accuracy per problem of the quantised arm.
    references : list of (N, (problems,))
        The reference arms, any order.
    w : (replicates, problems)
    link
        Function of accuracy that is piecewise linear in ln N; all but logit are for the table of sensitivities.
    """
    parameter = ("alpha-q", "alpha")
    if len(references) < 2:
        return Parameter(*parameter, np.nan, np.nan, np.nan, False, "not identified: fewer than two reference arms")
    ordered = sorted(references, key=lambda item: item[0])
    log_n = np.log([float(n) for n, _ in ordered])
    values = np.column_stack([quantized, *(v for _, v in ordered)])
    stacked = np.vstack([values.mean(axis=0), w @ values])
    edge = 0.5 / len(quantized)
    linked = LINKS[link](np.clip(stacked, edge, 1 - edge))
    solved = invert_reference(linked[:, 0], log_n, linked[:, 1:]) - np.log(float(n_params))
    estimate, boot = solved[0], solved[1:]
    usable = boot[~np.isnan(boot)]
    basis = f"a line through {len(ordered)} sizes"
    if usable.size < 0.9 * boot.size or np.isnan(estimate):
        return Parameter(*parameter, np.nan, np.nan, np.nan, False, "not identified: the reference accuracy does not rise with N")
    if np.isfinite(usable).all() and np.ptp(usable) <= bootstrap.ROUNDING:
        why = "not identified: no resample of the problems tells the arm from an unquantised one"
        return Parameter(*parameter, np.nan, np.nan, np.nan, False, why)
    tail = (1 - confidence) / 2
    low, high = (float(np.exp(q)) for q in np.quantile(usable, [tail, 1 - tail], method="nearest"))
    lower = low if low > 0 else np.nan
    upper = high if np.isfinite(high) else np.nan
    if not np.isfinite(estimate):
        smallest, largest = float(np.exp(log_n[0])) / n_params, float(np.exp(log_n[-1])) / n_params
        bound = f"alpha < {smallest:.3g}" if estimate < 0 else f"alpha > {largest:.3g}"
        upper = max(high, smallest) if estimate < 0 and np.isfinite(high) else upper
        lower = min(low, largest) if estimate > 0 and low > 0 else lower
        return Parameter(*parameter, np.nan, lower, upper, False, f"not identified: outside the reference range ({bound}); {basis}")
    open_ends = "" if low > 0 and np.isfinite(high) else "; an open limit lies outside the reference range"
    return Parameter(*parameter, float(np.exp(estimate)), lower, upper, not open_ends, basis + open_ends)


def fit_study_laws(
    grades: dict[str, pd.DataFrame],
    cards: dict[str, Card],
    references: dict[str, str],
    problems: pd.DataFrame,
    config: dict[str, Any],
) -> list[dict[str, Any]]:
    """κ of every arm and α(q) of every quantised arm, at every T, on the calibration problems: rows of laws.csv.

    Parameters
    ----------
    grades : mapping of arm to its grades
    references : mapping of model to its reference precision
        A reference of 16 bits or more, or the file's own precision; a model without one takes no part in α's curve.
    """
    chosen = problems[problems["split"] == "calibration"]
    if chosen.empty:
        return []
    gold = dict(zip(chosen["problem_id"], chosen["gold"], strict=True))
    statistics = config["statistics"]
    rng = np.random.default_rng([config["seed"], 3, False])
    w = bootstrap.weights(chosen["difficulty"].to_numpy(), statistics["replicates"], rng)
    is_reference = {f"{m}@{p}" for m, p in references.items() if p in ("fp32", "bf16", "fp16")}
    rows = []
    for t in config["budgets"]["T"]:
        single: dict[str, Floats] = {}
        for arm, table in grades.items():
            card = cards[arm.split("@")[0]]
            part = table[(table["T"] == t) & (table["split"] == "calibration")]
            if part.empty:  # imported samples have one T
                continue
            pool = matrices(part, gold, flops_of(card)).pool
            single[arm] = pool.correct.mean(axis=1)
            if pool.size >= 4:
                rows.append(fit_kappa(majority_at_all_k(pool.codes, pool.gold), w, statistics["confidence"]).row(arm, t))
        curve = [(cards[arm.split("@")[0]].n_params, single[arm]) for arm in single if arm in is_reference]
        for arm, values in single.items():
            model = arm.split("@")[0]
            if arm in is_reference or isinstance(cards[model], ImportedCard):
                continue
            if f"{model}@{references[model]}" not in is_reference:
                why = f"not identified: {model} has no unquantised reference arm in this study"
                rows.append(Parameter("alpha-q", "alpha", np.nan, np.nan, np.nan, False, why).row(arm, t))
                continue
            rows.append(fit_alpha(values, cards[model].n_params, curve, w, statistics["confidence"]).row(arm, t))
    return rows
