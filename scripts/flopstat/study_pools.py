"""What the laws of a study stand on: the graded pools of one split as matrices, with one bootstrap over its problems."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import logit

from flopstat import bootstrap
from flopstat.cells import matrices
from flopstat.costs import flops_of
from flopstat.estimators import majority_at_all_k, pass_at_k
from flopstat.laws import Parameter
from flopstat.models import Card, ImportedCard
from flopstat.strategies import Pool

Floats = NDArray[np.float64]

ALIKE = "no resample of the problems differs"
REFERENCES = ("fp32", "bf16", "fp16")  # precisions of 16 bits or more that can serve as a model's reference
ALL_ARMS = "all"  # stands for the arm in rows about the whole study


@dataclass(frozen=True)
class LawArm:
    """One arm as the laws see it."""

    name: str
    model: str
    precision: str
    n_params: int
    bits: float  # bits_effective; NaN where unknown
    reference: bool  # its model's unquantised reference
    imported: bool


@dataclass(frozen=True)
class StudyPools:
    """All pools of one split. Arms without chains at a T, as imported ones have one T only, are left out there."""

    arms: dict[str, LawArm]
    budgets: list[int]
    pools: dict[tuple[str, int], Pool]
    difficulty: NDArray[np.int64]  # (problems,)
    w: Floats  # (replicates, problems)
    confidence: float

    @property
    def n_problems(self) -> int:
        return len(self.difficulty)

    def of(self, t: int) -> list[LawArm]:
        """The arms that have chains at T, in the study's order."""
        return [arm for name, arm in self.arms.items() if (name, t) in self.pools]

    @property
    def largest(self) -> int:
        """The largest T that some arm has."""
        return max(t for _, t in self.pools)

    @functools.cached_property
    def votes(self) -> dict[tuple[str, int], Floats]:
        """Accuracy of a vote of P = 1..K per problem, (problems, K), of every (arm, T)."""
        return {key: majority_at_all_k(pool.codes, pool.gold) for key, pool in self.pools.items()}

    @functools.cached_property
    def single(self) -> dict[tuple[str, int], Floats]:
        """Accuracy of one sample per problem, (problems,), of every (arm, T)."""
        return {key: pool.correct.mean(axis=1) for key, pool in self.pools.items()}

    def coverage(self, arm: str, t: int) -> Floats:
        """pass@k per problem for k = 1..K, (problems, K)."""
        correct = self.pools[arm, t].correct
        return np.column_stack([pass_at_k(correct, k) for k in range(1, correct.shape[1] + 1)])

    def interval(self, replicates: Floats) -> tuple[float, float]:
        """Percentile limits; infinite replicates count as beyond any number, NaN are left out, and none left gives NaN."""
        return interval(replicates, self.confidence)


def interval(replicates: Floats, confidence: float) -> tuple[float, float]:
    """Percentile limits of replicates, (replicates,); infinite ones count as beyond any number, NaN are left out."""
    known = replicates[~np.isnan(replicates)]
    if not known.size:
        return np.nan, np.nan
    tail = (1 - confidence) / 2
    if np.isfinite(known).all():
        low, high = np.quantile(known, [tail, 1 - tail])
    else:
        low, high = np.quantile(known, [tail, 1 - tail], method="nearest")
    return float(low), float(high)


def limits_if_any(replicates: Floats, confidence: float) -> tuple[float, float]:
    """`interval`; NaN where no replicate differs: that is no interval, not one of width zero."""
    known = replicates[~np.isnan(replicates)]
    if not known.size:
        return np.nan, np.nan
    least, most = float(known.min()), float(known.max())
    differ = most > least + bootstrap.ROUNDING * max(1.0, min(abs(least), abs(most)))
    return interval(known, confidence) if differ else (np.nan, np.nan)


def finite(value: float) -> float:
    """The value, NaN where infinite: tables hold no infinities."""
    return value if np.isfinite(value) else float("nan")


def missing(law: str, parameter: str, why: str) -> Parameter:
    """A parameter that the data do not give."""
    return Parameter(law, parameter, np.nan, np.nan, np.nan, False, f"not identified: {why}")


def safe_logit(accuracy: Floats, n_problems: int) -> Floats:
    """logit of accuracies kept half a problem away from 0 and 1."""
    edge = 0.5 / n_problems
    out: Floats = logit(np.clip(accuracy, edge, 1 - edge))
    return out


def law_row(arm: str, t: int | None, parameter: Parameter) -> dict[str, Any]:
    """A row of laws.csv; T is missing for laws over all budgets."""
    return parameter.row(arm, 0) | {"T": t}


def study_pools(
    grades: dict[str, pd.DataFrame],
    cards: dict[str, Card],
    references: dict[str, str],
    bits: dict[str, float],
    problems: pd.DataFrame,
    config: dict[str, Any],
    split: str,
) -> StudyPools | None:
    """Pools of one split, None where the study has no such problems.

    Parameters
    ----------
    grades : mapping of arm to its grades
    references : mapping of model to its reference precision
    bits : mapping of arm to bits_effective, NaN where unknown
    config : mapping with seed, budgets and statistics
    """
    chosen = problems[problems["split"] == split]
    if chosen.empty:
        return None
    gold = dict(zip(chosen["problem_id"], chosen["gold"], strict=True))
    statistics = config["statistics"]
    rng = np.random.default_rng([config["seed"], 3, split == "study"])
    w = bootstrap.weights(chosen["difficulty"].to_numpy(), statistics["replicates"], rng)
    arms, pools = {}, {}
    for name, table in grades.items():
        model, precision = name.split("@")
        card = cards[model]
        reference = precision == references[model] and precision in REFERENCES
        arms[name] = LawArm(name, model, precision, card.n_params, bits[name], reference, isinstance(card, ImportedCard))
        for t in config["budgets"]["T"]:
            part = table[(table["T"] == t) & (table["split"] == split)]
            if not part.empty:
                pools[name, t] = matrices(part, gold, flops_of(card)).pool
    return StudyPools(arms, sorted(config["budgets"]["T"]), pools, chosen["difficulty"].to_numpy(), w, statistics["confidence"])
