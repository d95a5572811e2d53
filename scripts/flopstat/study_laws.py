"""All laws of a study in one place: votes, coverage, precision, interactions, budgets, the surface and, for the ladder, training."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flopstat import alpha_law, bootstrap, interactions, law_sensitivity, surface, surface_gradients, training_laws, votes_law, weight_bits
from flopstat.columns import TABLES
from flopstat.coverage_law import FORMS, CoverageFit, fit_coverage
from flopstat.errors import InputError
from flopstat.lawbook import catalogue
from flopstat.lawbook.result import Fit
from flopstat.laws import Parameter, fit_study_laws
from flopstat.models import Card
from flopstat.problem_fits import ProblemFit, fit_curve
from flopstat.study_pools import ALL_ARMS, StudyPools, law_row, missing, study_pools
from flopstat.surface_types import TYPES

Rows = list[dict[str, Any]]
OPTIONAL = ("vote_gains", "local_kappa", "coverage", "weight_bits", "surface", "surface_gradients")  # empty without calibration problems
CURVES = ["arm", "T", "law", "k", "measured", "low", "high", "fitted", "seen"]


@dataclass(frozen=True)
class StudyLaws:
    """What the rule fit_laws writes: tables by name, and one JSON text per law."""

    tables: dict[str, pd.DataFrame]
    details: dict[str, str]


def fit_laws(
    grades: dict[str, pd.DataFrame],
    cards: dict[str, Card],
    references: dict[str, str],
    problems: pd.DataFrame,
    configurations: pd.DataFrame,
    per_problem: pd.DataFrame,
    training_logs: Iterable[Path],
    config: dict[str, Any],
) -> StudyLaws:
    """Fit every law that the study's data allow; what they do not allow is a row that says why.

    Parameters
    ----------
    grades : mapping of arm to its grades
    references : mapping of model to its reference precision
    configurations, per_problem : the tables of the cells; the first holds bits_effective
    training_logs : of the ladder, empty for studies of other models
    config : mapping with seed, budgets and statistics

    Laws are estimated on calibration problems; the surface and `rmse_study` are judged on study problems. A study without calibration
    problems has no inference-time laws.
    """
    bits = {str(arm): float(part["bits_effective"].iloc[0]) for arm, part in configurations.groupby("arm")}
    pools, judges = (study_pools(grades, cards, references, bits, problems, config, split) for split in ("calibration", "study"))
    rows: Rows = fit_study_laws(grades, cards, references, problems, config)
    out = {name: pd.DataFrame(columns=list(TABLES[name])) for name in OPTIONAL}
    covered: dict[tuple[str, int], CoverageFit] = {}
    fitted: surface.Surface | None = None
    if pools is not None:
        kappa = {(r["arm"], r["T"]): r["estimate"] for r in rows if r["parameter"] == "kappa"}
        out["vote_gains"] = votes_law.vote_gains(pools, kappa)
        out["local_kappa"] = votes_law.local_kappa(pools)
        rows += _votes(pools)
        rows += [*_of_alpha(pools), *(law_row(arm, None, p) for arm, p in interactions.fit_interactions(pools)), *_of_bits(pools, config)]
        out["weight_bits"] = weight_bits.weight_bits_table(pools, pools.largest)
        coverage_rows, covered = _coverage(pools, judges, config["seed"])
        out["coverage"] = _curves(pools, covered)
        surface_rows, fitted = _surface(pools, per_problem, config)
        rows += [*coverage_rows, *_of_budgets(pools, config["seed"]), *surface_rows]
        if fitted is not None:
            out["surface"], out["surface_gradients"] = surface.table(fitted), surface_gradients.gradients(fitted)
    joint: dict[str, Fit] = {}
    branches: pd.DataFrame | None = None
    if logs := list(training_logs):
        branches = training_laws.branches(logs)
        found, joint = training_laws.fit_training(branches, config)
        rows += [law_row(what, None, p) for what, p in found]
    out["laws"] = pd.DataFrame(rows, columns=list(TABLES["laws"])).astype({"T": "Int64"})
    out["law_sensitivity"] = law_sensitivity.table(pools, covered, fitted, branches, config)
    out["exponents"] = training_laws.exponents(out["laws"], None if pools is None else pools.largest)
    return StudyLaws(out, _details(out["laws"], {law: json.loads(fit.to_json()) for law, fit in joint.items()}))


def _votes(pools: StudyPools) -> Rows:
    return [
        law_row(arm, t, votes_law.fit_saturation(curve, pools.w, pools.confidence))
        for (arm, t), curve in pools.votes.items()
        if curve.shape[1] > 1
    ]


def _of_alpha(pools: StudyPools) -> Rows:
    """γ and constancy over N at every T, α by steps at the largest; nothing for a study of imported arms or of one precision."""
    if all(arm.imported or arm.reference for arm in pools.arms.values()):
        return []
    rows: Rows = []
    for t in sorted({t for _, t in pools.pools}):
        rows.append(law_row(ALL_ARMS, t, alpha_law.curve_over_bits(pools, t)))
        rows += [law_row(arm, t, p) for arm, p in alpha_law.over_sizes(pools, t)]
    t = pools.largest
    for arm in alpha_law.study_alphas(pools, t).arms:
        rows += [law_row(arm.name, t, p) for p in alpha_law.by_steps(pools, arm, t)]
    return rows


def _of_bits(pools: StudyPools, config: dict[str, Any]) -> Rows:
    t = pools.largest
    if not weight_bits.known_arms(pools, t):
        return []
    found = [*weight_bits.four_bits(pools, t), *weight_bits.fit_k_bit(pools, t, config["seed"])]
    return [law_row(ALL_ARMS, t, p) for p in found]


def _coverage(pools: StudyPools, judges: StudyPools | None, seed: int) -> tuple[Rows, dict[tuple[str, int], CoverageFit]]:
    """Laws of every arm at the largest T it has."""
    rows: Rows = []
    fits = {}
    for arm in pools.arms:
        t = max((t for name, t in pools.pools if name == arm), default=0)
        if not t or pools.pools[arm, t].size < 2:
            continue
        found = fit_coverage(pools, judges, arm, t, seed)
        if isinstance(found, Parameter):
            rows.append(law_row(arm, t, found))
        else:
            rows += [law_row(arm, t, p) for p in found.rows]
            fits[arm, t] = found
    return rows, fits


def _curves(pools: StudyPools, fits: dict[tuple[str, int], CoverageFit]) -> pd.DataFrame:
    """Measured and fitted pass@k of every arm for the figure."""
    parts = [part for (arm, t), found in fits.items() for part in _curves_of(pools, arm, t, found)]
    return pd.concat(parts, ignore_index=True)[CURVES] if parts else pd.DataFrame(columns=CURVES)


def _curves_of(pools: StudyPools, arm: str, t: int, found: CoverageFit) -> list[pd.DataFrame]:
    values = pools.coverage(arm, t)
    k = np.arange(1, values.shape[1] + 1)
    limits = bootstrap.proportion_interval(values, pools.w, pools.confidence)
    base = {"arm": arm, "T": t, "k": k, "measured": found.curve, "low": limits.low, "high": limits.high, "seen": k <= found.seen[-1]}
    fitted = {law: np.clip(fit.predict({FORMS[law]: k})[0], 0, 1) for law, fit in found.fits.items()}
    return [pd.DataFrame(base | {"law": law, "fitted": fitted.get(law, np.nan)}) for law in FORMS]


def _surface(pools: StudyPools, per_problem: pd.DataFrame, config: dict[str, Any]) -> tuple[Rows, surface.Surface | None]:
    """All types on the cells of all arms, or a row that says why not."""
    data = surface.surface_data(per_problem, pools.arms, config)
    if isinstance(data, str):
        return [law_row(ALL_ARMS, None, missing(surface.LAW, "best_type", data))], None
    fitted = surface.fit_all(data, config["seed"])
    return [law_row(ALL_ARMS, None, p) for p in [*surface.judge(fitted), *surface.parameters(fitted)]], fitted


def _of_budgets(pools: StudyPools, seed: int) -> Rows:
    """budget-forcing: min(a + b ln T, A_max) of single samples over the budgets, per arm with at least four."""
    rows: Rows = []
    for arm in pools.arms:
        budgets = [t for t in pools.budgets if (arm, t) in pools.pools]
        if len(budgets) < 2:  # nothing to say of a study of one budget
            continue
        if len(budgets) < 4:
            rows.append(law_row(arm, None, missing("budget-forcing", "b", f"{len(budgets)} budgets: three parameters need four")))
            continue
        values = np.column_stack([pools.single[arm, t] for t in budgets])
        fit: ProblemFit | str = fit_curve("budget-forcing", {"T": np.array(budgets, dtype=float)}, values, pools.w, seed)
        if isinstance(fit, str):
            rows.append(law_row(arm, None, missing("budget-forcing", "b", fit)))
        else:
            worst = 100 * float(np.abs(fit.residuals).max())
            rows += [law_row(arm, None, p) for p in fit.parameters(pools.confidence, f"largest residual {worst:.2g} points")]
    return rows


def _details(laws: pd.DataFrame, fits: dict[str, Any]) -> dict[str, str]:
    """One JSON text per law: its definition, its rows, and the joint fit where there is one."""
    out = {}
    for law, rows in laws.groupby("law", sort=True):
        name = str(law)
        shown = json.loads(rows.to_json(orient="records", double_precision=12))
        data = {"law": name, "definition": _definition(name), "rows": shown} | ({"fit": fits[name]} if name in fits else {})
        out[name] = json.dumps(data, indent=1, ensure_ascii=False) + "\n"
    return out


def _definition(law: str) -> Any:
    if law == surface.LAW:
        return {kind.name: kind.meaning for kind in TYPES.values()}
    try:
        return catalogue.find(law).to_data()
    except InputError:
        return None  # an interaction is a contrast, not a law of the catalogue
