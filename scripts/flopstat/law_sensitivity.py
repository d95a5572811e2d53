"""Sensitivity of a study's laws: each conclusion drawn again under other choices of the fit; one that flips is called fragile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from flopstat import surface, training_laws
from flopstat.coverage_law import FORMS, CoverageFit, fit_coverage
from flopstat.lawbook import catalogue
from flopstat.lawbook.fitting import Settings
from flopstat.lawbook.objectives import Name
from flopstat.lawbook.refutation import Choice, sensitivity, sign
from flopstat.laws import LINKS, Parameter, fit_alpha, kappa_of, told_gain
from flopstat.study_pools import ALL_ARMS, StudyPools, limits_if_any
from flopstat.votes_law import FIRST, SMALLEST_POOL, doubling_gains

Floats = NDArray[np.float64]
Rows = list[dict[str, Any]]

KEYS = ["law", "arm", "T", "parameter"]
COLUMNS = [*KEYS, "variant", "estimate", "low", "high", "conclusion", "fragile"]
REPORTED = " (as reported)"
REPLICATES = 200  # of a training law's refits per choice: limits say on which side of 0 an exponent lies
LINK_WORDS = {"logit": "logit of accuracy", "share": "accuracy", "log": "logarithm of accuracy"}
OBJECTIVES: dict[Name, str] = {"mse-log": "least squares of logarithms", "binomial": "binomial likelihood"}
HELD = {True: "holds", False: "rejected"}


def _row(key: tuple[str, str, int | None, str], variant: str, numbers: tuple[float, float, float], conclusion: str) -> dict[str, Any]:
    values = dict(zip(("estimate", "low", "high"), numbers, strict=True))
    return dict(zip(KEYS, key, strict=True)) | {"variant": variant, "conclusion": conclusion} | values


def _numbers(found: Parameter) -> tuple[float, float, float]:
    return found.estimate, found.low, found.high


def with_fragile(rows: Rows) -> pd.DataFrame:
    """Rows of law_sensitivity.csv: fragile where the variants of one (law, arm, T, parameter) do not all conclude the same."""
    table = pd.DataFrame(rows, columns=COLUMNS[:-1])
    table["fragile"] = table.groupby(KEYS, dropna=False)["conclusion"].transform("nunique").to_numpy(int) > 1
    return table.astype({"T": "Int64", "fragile": bool})


def of_votes(arm: str, t: int, curve: Floats, w: Floats, confidence: float) -> Rows:
    """κ and the log law of one vote curve, by weights and by the P that are used.

    Generalised and ordinary least squares over P = 3..K, ordinary over all P (P = 2, which gains nothing whatever the data, has no variance
    that could weigh it), generalised over the upper half of P, and the mean of local κ(P), in which A(1) has no part. The log law is tested
    over P = 3..K and over the upper half. A variant of which no replicate differs concludes nothing and has no row.

    Parameters
    ----------
    curve : (problems, K) accuracy of a vote of P = 1..K, K >= 6
    w : (replicates, problems)
    """
    k = curve.shape[1]
    fits = {
        f"generalised least squares, P = 3 to {k}{REPORTED}": kappa_of(curve, w, confidence),
        f"ordinary least squares, P = 3 to {k}": kappa_of(curve, w, confidence, generalised=False),
        f"ordinary least squares, P = 1 to {k}": kappa_of(curve, w, confidence, first=2, generalised=False),
        f"generalised least squares, P = {k // 2} to {k}": kappa_of(curve, w, confidence, first=k // 2),
    }
    gains, law = ("kappa-log-p", arm, t, "kappa"), ("kappa-log-p", arm, t, "lack_of_fit_p")
    known = {variant: fit for variant, fit in fits.items() if fit is not None}
    rows = [_row(gains, variant, (fit.estimate, fit.low, fit.high), fit.gain) for variant, fit in known.items()]
    local = doubling_gains(curve).mean(axis=1) / np.log(2)
    low, high = limits_if_any(w @ local, confidence)
    if np.isfinite(low):
        rows.append(_row(gains, f"mean of local kappa, P = {FIRST} to {k // 2}", (float(local.mean()), low, high), told_gain(low, high)))
    tested = [(variant, fit) for variant, fit in known.items() if "P = 1 " not in variant]
    return rows + [_row(law, variant, (fit.lack_of_fit, np.nan, np.nan), fit.law) for variant, fit in tested]


def _told_alpha(found: Parameter) -> str:
    if np.isnan([found.low, found.high]).all():
        return "not identified"
    return "below 1" if found.high < 1 else "above 1" if found.low > 1 else "not separable from 1"


def of_alpha(pools: StudyPools, t: int) -> Rows:
    """α of every quantised arm of one T, the reference curve drawn through logits, accuracies or their logarithms."""
    here = pools.of(t)
    references = [(arm.n_params, pools.single[arm.name, t]) for arm in here if arm.reference]
    models = {arm.model for arm in here if arm.reference}
    rows = []
    for arm in here:
        if arm.reference or arm.imported or arm.model not in models or len(references) < 2:
            continue
        for link in LINKS:
            found = fit_alpha(pools.single[arm.name, t], arm.n_params, references, pools.w, pools.confidence, link)
            variant = f"line through {LINK_WORDS[link]}" + (REPORTED if link == "logit" else "")
            rows.append(_row(("alpha-q", arm.name, t, "alpha"), variant, _numbers(found), _told_alpha(found)))
    return rows


def of_coverage(pools: StudyPools, reported: Mapping[tuple[str, int], CoverageFit], seed: int) -> Rows:
    """Which coverage law holds at unseen k, and which is best, by what the fit minimises.

    Parameters
    ----------
    reported : mapping of (arm, T) to the least-squares fits
    """
    rows: Rows = []
    for (arm, t), first in reported.items():
        others = {words: fit_coverage(pools, None, arm, t, seed, name) for name, words in OBJECTIVES.items()}
        for variant, found in {f"least squares{REPORTED}": first, **others}.items():
            if isinstance(found, Parameter):
                continue
            for p in found.rows:
                if p.parameter == "best_form":
                    rows.append(_row((p.law, arm, t, p.parameter), variant, _numbers(p), p.verdict))
                elif p.parameter == "rmse_unseen_k" and p.law in FORMS and np.isfinite(p.estimate):
                    rows.append(_row((p.law, arm, t, p.parameter), variant, _numbers(p), HELD[p.law in found.held]))
    return rows


def of_surface(fitted: surface.Surface) -> Rows:
    """Which type of surface is best over all axes of left-out cells, and without each of them."""
    axes = surface.held_out_axes(fitted)
    if len(axes) < 2:
        return []
    sets = {f"over {', '.join(axes)}{REPORTED}": axes} | {f"without {left_out}": [a for a in axes if a != left_out] for left_out in axes}
    found = {variant: surface.best_type(fitted, chosen) for variant, chosen in sets.items()}
    return [_row((surface.LAW, ALL_ARMS, None, "best_type"), variant, _numbers(p), p.verdict) for variant, p in found.items()]


def of_training(points: pd.DataFrame, config: dict[str, Any]) -> Rows:
    """Signs of the training-time exponents under each objective and two designs of starts; a refused fit concludes nothing.

    Parameters
    ----------
    points : `training_laws.branches`
    """
    settings = Settings(replicates=REPLICATES, seed=config["seed"], confidence=config["statistics"]["confidence"], profile=False)
    rows: Rows = []
    for what, law, data in training_laws.fits(points):
        entry = catalogue.find(law)
        for choice in sensitivity(entry, data, settings).choices:
            rows += _of_choice(what, entry, choice)
    return rows


def _of_choice(what: str, law: catalogue.Law, choice: Choice) -> Rows:
    if choice.result is None:
        return []
    rows = []
    reported = (choice.objective, choice.starts) == (law.objective, "grid")
    variant = f"{choice.objective}, {choice.starts} starts" + (REPORTED if reported else "")
    for name in training_laws.EXPONENTS[law.id]:
        e = choice.result.parameters[name]
        conclusion = sign(choice.result, name) if choice.result.certificate.certified else "refused by its certificate"
        rows.append(_row((law.id, what, None, name), variant, (e.value, e.low, e.high), conclusion))
    return rows


def table(
    pools: StudyPools | None,
    coverage: Mapping[tuple[str, int], CoverageFit],
    fitted: surface.Surface | None,
    points: pd.DataFrame | None,
    config: dict[str, Any],
) -> pd.DataFrame:
    """All variants of all laws of a study, each conclusion that flips marked.

    Parameters
    ----------
    pools : of the calibration problems, None without any
    coverage : mapping of (arm, T) to the reported fits
    fitted : the reported surface, None without one
    points : decay branches of the ladder, None for other studies
    config : mapping with seed and statistics
    """
    rows: Rows = []
    if pools is not None:
        for (arm, t), curve in pools.votes.items():
            if curve.shape[1] >= SMALLEST_POOL:
                rows += of_votes(arm, t, curve, pools.w, pools.confidence)
        for t in sorted({t for _, t in pools.pools}):
            rows += of_alpha(pools, t)
        rows += of_coverage(pools, coverage, config["seed"])
    if fitted is not None:
        rows += of_surface(fitted)
    if points is not None:
        rows += of_training(points, config)
    return with_fragile(rows)
