"""What quantisation does to the returns of T and of N: interactions on the logit scale, and one contrast between them."""

from __future__ import annotations

from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from flopstat.laws import Parameter
from flopstat.study_pools import ALIKE, ALL_ARMS, LawArm, StudyPools, interval, limits_if_any, missing, safe_logit

Floats = NDArray[np.float64]

LAW = "interaction"


def _slope(x: Floats) -> Floats:
    """Weights whose sum over y is the least-squares slope of y on x, (len(x),)."""
    centred = x - x.mean()
    out: Floats = centred / (centred @ centred)
    return out


class _Logits:
    """logit A of single samples per arm: row 0 the estimate, then the replicates, (1 + replicates, budgets)."""

    def __init__(self, pools: StudyPools) -> None:
        self.budgets = np.array(sorted({t for _, t in pools.pools}), dtype=float)
        self.of = {}
        for name in pools.arms:
            if all((name, t) in pools.pools for t in self.budgets):
                values = np.column_stack([pools.single[name, int(t)] for t in self.budgets])
                self.of[name] = safe_logit(np.vstack([values.mean(axis=0), pools.w @ values]), pools.n_problems)
        self.reference = {arm.model: self.of[name] for name, arm in pools.arms.items() if arm.reference and name in self.of}

    def pairs(self, pools: StudyPools) -> list[LawArm]:
        """Quantised arms whose model has a reference."""
        return [a for n, a in pools.arms.items() if n in self.of and not a.reference and not a.imported and a.model in self.reference]


def _parameter(name: str, values: Floats, confidence: float, words: tuple[str, str, str]) -> Parameter:
    """Estimate and limits of row 0 and the replicates; words: if above zero, below zero, neither."""
    low, high = limits_if_any(values[1:], confidence)
    if np.isnan(low):
        return Parameter(LAW, name, float(values[0]), low, high, False, f"no limits: {ALIKE}")
    verdict = words[0] if low > 0 else words[1] if high < 0 else words[2]
    return Parameter(LAW, name, float(values[0]), low, high, True, verdict)


def fit_interactions(pools: StudyPools) -> list[tuple[str, Parameter]]:
    """q × T, q × N and the contrast between T and N: pairs of arm and parameter.

    loss(N, T) = logit A_reference - logit A_quantised of the same model, single samples.

    - `loss_per_doubling_T` of each quantised arm: least-squares slope of its loss on log2 T over all budgets.
    - `loss_per_doubling_N` of each precision with two sizes or more (`*@precision`): slope on log2 N of its loss, averaged over budgets.
    - `retention_T_minus_N` of each such precision and of all (`all`): s_T(q)/s_T(ref) - s_N(q)/s_N(ref), where s_T is the slope of
      logit A on log2 T, averaged over the sizes, and s_N the slope on log2 N, averaged over the budgets, over the same arms. Above zero:
      quantisation leaves more of what T gains than of what N gains, so T is more robust to bits than N. Where a slope of the reference
      is not above zero for certain the question has no answer.

    Limits are percentiles over bootstrap replicates of the problems.
    """
    logits = _Logits(pools)
    quantised = logits.pairs(pools)
    if not quantised:
        return [(ALL_ARMS, missing(LAW, "retention_T_minus_N", "no quantised arm beside its model's reference"))]
    out = []
    log_t = np.log2(logits.budgets)
    for arm in quantised:
        if len(log_t) < 2:
            out.append((arm.name, missing(LAW, "loss_per_doubling_T", "one T")))
            continue
        loss = (logits.reference[arm.model] - logits.of[arm.name]) @ _slope(log_t)
        words = ("the loss grows with T", "the loss shrinks with T", "not distinguishable from a loss that is the same at every T")
        out.append((arm.name, _parameter("loss_per_doubling_T", loss, pools.confidence, words)))
    parts = []
    for precision, group in groupby(sorted(quantised, key=lambda a: (a.precision, a.n_params)), key=lambda a: a.precision):
        arms = list(group)
        if len({a.n_params for a in arms}) < 2:
            continue
        name = f"*@{precision}"
        low_bits, full = (np.stack(x) for x in zip(*((logits.of[a.name], logits.reference[a.model]) for a in arms), strict=True))
        by_n = _slope(np.log2([a.n_params for a in arms]))
        loss = np.einsum("nrt,n->r", full - low_bits, by_n) / len(log_t)
        words = ("the loss grows with N", "the loss shrinks with N", "not distinguishable from a loss that is the same at every N")
        out.append((name, _parameter("loss_per_doubling_N", loss, pools.confidence, words)))
        if len(log_t) > 1:
            by_t = _slope(log_t)
            slopes = [(np.einsum("nrt,t->r", x, by_t) / len(arms), np.einsum("nrt,n->r", x, by_n) / len(log_t)) for x in (low_bits, full)]
            parts.append(slopes)
            out.append((name, _contrast([slopes], pools.confidence)))
    if not parts:
        why = "needs a precision at two sizes, and two T"
        return [*out, (ALL_ARMS, missing(LAW, "retention_T_minus_N", why))]
    return [*out, (ALL_ARMS, _contrast(parts, pools.confidence))]


def _contrast(parts: list[list[tuple[Floats, Floats]]], confidence: float) -> Parameter:
    """Mean over precisions of s_T(q)/s_T(ref) - s_N(q)/s_N(ref), with its verdict."""
    name = "retention_T_minus_N"
    for (_, _), (full_t, full_n) in parts:
        if min(interval(full_t[1:], confidence)[0], interval(full_n[1:], confidence)[0]) <= 0:
            return missing(LAW, name, "the unquantised accuracy does not surely rise with both T and N")
    values = np.mean([low_t / full_t - low_n / full_n for (low_t, low_n), (full_t, full_n) in parts], axis=0)
    words = ("yes: T is more robust to bits than N", "no: N is more robust to bits than T", "not separable")
    return _parameter(name, values, confidence, words)
