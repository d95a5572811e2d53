"""What common random numbers gain: the sampling variance of a difference between two arms against that of independent draws.

All arms of a study draw sample i of a problem with the same uniforms. That can narrow a difference of their accuracies, or widen it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import t as student

from flopstat import bootstrap
from flopstat.models import ModelCard

Floats = NDArray[np.float64]

PRIOR = 0.15  # problems that the variance of all-or-nothing ratios counts for, where few problems carry the measured one


@dataclass(frozen=True)
class RatioInterval:
    """Variance ratios with their limits, (m,) each, NaN without sampling noise; `few` marks those that few problems carry."""

    ratio: Floats
    low: Floats
    high: Floats
    few: NDArray[np.bool_]


def sample_variances(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Variances of one sample's difference on each problem: s²(x - y) as drawn, and s²(x) + s²(y) as if drawn independently.

    Their sums over problems, divided by K and by the squared number of problems, are the sampling variance of the difference of the two
    accuracies with common random numbers and with independent draws.

    Parameters
    ----------
    x, y : (problems, K) in {0, 1}
        Correctness of sample i of each problem in two arms.

    Returns
    -------
    shared, independent : (problems,), s² with K - 1; NaN for K = 1
    """
    if x.shape[1] < 2:
        unknown = np.full(len(x), np.nan)
        return unknown, unknown.copy()
    shared: Floats = (x - y).var(axis=1, ddof=1)
    independent: Floats = x.var(axis=1, ddof=1) + y.var(axis=1, ddof=1)
    return shared, independent


def ratio_interval(shared: Floats, independent: Floats, w: Floats, confidence: float) -> RatioInterval:
    """Ratios R = sum_p shared_p / sum_p independent_p in [0, 2] with intervals for problems like these.

    With v the mean of independent_p and e_p = (shared_p - R·independent_p) / v, the standard error of R is that of the mean of e over
    resamples of problems: numerator and denominator move together, and no replicate divides by a small number. Limits are those of
    logit(R/2) ± q·se / (2·(R/2)(1 - R/2)), with q the Student quantile at 2 / (1/m - 1/n) degrees of freedom, at most n - 1:
    Satterthwaite's, for se² rests on m = (sum e²)² / sum e⁴ of the n problems.

    Where m < 5, Wilson's limits of R/2 on the effective number k / r, with k = (sum v)² / sum v² (v_p = independent_p) the problems that
    the noise is spread over and r the ratio of se² to that of all-or-nothing ratios, drawn towards 1: (m·ratio + h) / (m + h), h = 0.15
    of a problem, m at most 4k·(R/2)(1 - R/2). Arms that agree in every sample get 0 to 2z² / (k + z²), z the normal quantile, not 0 to 0.

    benchmarks/simulate_variance_ratio.py, 2,000 studies per setting: at 100 and 150 problems, K = 8 and 32 and correlations -0.5 to 0.95
    these limits cover in 93.8 to 97.6%, percentile limits in 87 to 95.5%; at R = 0.01 in 96 to 98% against 59 to 94%.

    Parameters
    ----------
    shared, independent : (problems, m), see `sample_variances`
    w : (replicates, problems) of `bootstrap.weights`

    Leaves out: the bias of a ratio, of order 1/n, below 0.005 there at 100 problems; strata of one problem, which carry no variance.

    Source: Cochran 1977, Sampling Techniques, section 6 (ratio estimator); Satterthwaite 1946. The use of m, k and h is our own.
    """
    n, total = len(shared), independent.sum(axis=0)
    ratio, low, high = (np.full(shared.shape[1], np.nan) for _ in range(3))
    few = np.zeros(shared.shape[1], dtype=bool)
    noisy = total > 0
    if not noisy.any():
        return RatioInterval(ratio, low, high, few)
    u, v = shared[:, noisy], independent[:, noisy]
    r = np.clip(u.sum(axis=0) / total[noisy], 0.0, 2.0)
    e = (u - r * v) / v.mean(axis=0)
    se = (w @ e).std(axis=0, ddof=1)
    settled = se <= bootstrap.ROUNDING
    m = np.where(settled, 0.0, bootstrap.contributing(e))
    carried = settled | (m < bootstrap.SMALL_COUNT)
    below, above = _wilson_limits(r / 2, se / 2, m, v.sum(axis=0) ** 2 / (v**2).sum(axis=0), settled, confidence)
    a, se, m = r[~carried] / 2, se[~carried] / 2, m[~carried]
    reach = student.ppf(0.5 + confidence / 2, 1 / np.maximum((1 / m - 1 / n) / 2, 1 / max(n - 1, 1))) * se / (a * (1 - a))
    below[~carried], above[~carried] = expit(logit(a) - reach), expit(logit(a) + reach)
    ratio[noisy], low[noisy], high[noisy], few[noisy] = r, 2 * below, 2 * above, carried
    return RatioInterval(ratio, np.fmin(low, ratio), np.fmax(high, ratio), few)


def _wilson_limits(a: Floats, se: Floats, m: Floats, k: Floats, settled: NDArray[np.bool_], confidence: float) -> tuple[Floats, Floats]:
    """Wilson's limits of the shares `a` on the effective number of problems of `ratio_interval`, (m,) each; k where `settled`."""
    spread = a * (1 - a)
    m = np.where(settled, 0.0, np.minimum(m, 4 * k * spread))
    measured = np.divide(k * se**2, spread, out=np.zeros_like(a), where=~settled)
    return bootstrap.wilson(a, k * (m + PRIOR) / (m * measured + PRIOR), confidence)


def _correctness(grades: pd.DataFrame, problem_ids: list[str], arm: str) -> Floats:
    """Correctness of the chains of one (arm, T), (problems, K), without the greedy chain.

    Raises
    ------
    ValueError
        If a problem lacks a sample: the samples of two arms are compared by their index.
    """
    wide = grades[grades["sample"] >= 0].pivot(index="problem_id", columns="sample", values="correct").reindex(problem_ids)
    if wide.empty or wide.isna().to_numpy().any() or not np.array_equal(wide.columns, np.arange(wide.shape[1])):
        raise ValueError(f"{arm}: every one of the {len(problem_ids)} problems needs samples 0 to K - 1 at each T; draw what is missing")
    return wide.to_numpy(dtype=float)


def _correlation(x: Floats, y: Floats) -> float:
    """Correlation of two arms' samples within problems, sum_p cov_p / sqrt(sum_p s²(x) · sum_p s²(y)); NaN if an arm does not vary."""
    dx, dy = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    scale = np.sqrt((dx**2).sum() * (dy**2).sum())
    return float(np.clip((dx * dy).sum() / scale, -1.0, 1.0)) if scale > 0 else np.nan


def _flags(x: Floats, y: Floats, few: bool) -> str | None:
    """Why a ratio is missing, or how far it can be trusted."""
    if x.shape[1] < 2:
        return "one_sample"
    varies = [np.ptp(z, axis=1) > 0 for z in (x, y)]
    if not (varies[0] | varies[1]).any():
        return "no_noise"
    no_overlap = not (varies[0] & varies[1]).any()
    return ";".join(["small_counts"] * few + ["no_overlap"] * no_overlap) or None


def measure_variance_ratios(
    grades: dict[str, pd.DataFrame], cards: dict[str, ModelCard], problems: pd.DataFrame, config: dict[str, Any]
) -> list[dict[str, Any]]:
    """Rows of variance_ratio.csv: every two arms whose models share a tokenizer, once, in the order of `grades`, at every T.

    ratio = sum_p s²_p(x - y) / sum_p [s²_p(x) + s²_p(y)] over the study problems, with x and y the correctness of single samples
    (P = B = 1) of the two arms: below 1 the shared uniforms narrow the difference, at 1 they do nothing, above 1 they widen it.

    Parameters
    ----------
    grades : all chains by arm, `model@precision`, in the order of the config
    cards : by model name
    config : mapping
        study, seed, budgets and statistics of the config.

    Errors: two arms with pools of different size, or with a sample missing.

    Leaves out: votes and best-of, whose samples stand in groups; pairs across tokenizers, for which the same uniform means nothing alike;
    greedy chains, which are not drawn.

    Source: common random numbers, Law 2015, Simulation Modeling and Analysis, section 11.2.
    """
    chosen = problems[problems["split"] == "study"]
    ids = chosen["problem_id"].tolist()
    statistics = config["statistics"]
    rng = np.random.default_rng([config["seed"], 3, True])  # the weights of the study's cells
    w = bootstrap.weights(chosen["difficulty"].to_numpy(), statistics["replicates"], rng)
    pairs = [(a, b) for a, b in itertools.combinations(grades, 2) if _tokenizer(cards, a) == _tokenizer(cards, b)]
    rows: list[dict[str, Any]] = []
    for t in config["budgets"]["T"] if pairs else []:
        correct = {arm: _correctness(table[(table["T"] == t) & (table["split"] == "study")], ids, arm) for arm, table in grades.items()}
        sizes = sorted({x.shape[1] for x in correct.values()})
        if len(sizes) > 1:
            raise ValueError(f"pools of {sizes} samples at T = {t}: all arms of a study need the same K; draw what is missing")
        shared, independent = (np.column_stack(z) for z in zip(*(sample_variances(correct[a], correct[b]) for a, b in pairs), strict=True))
        found = ratio_interval(shared, independent, w, statistics["confidence"])
        for i, (a, b) in enumerate(pairs):
            rows.append(
                {
                    "study": config["study"],
                    "arm_a": a,
                    "arm_b": b,
                    "same_model": a.split("@")[0] == b.split("@")[0],
                    "T": t,
                    "n_problems": len(ids),
                    "n_samples": sizes[0],
                    "ratio": found.ratio[i],
                    "low": found.low[i],
                    "high": found.high[i],
                    "correlation": _correlation(correct[a], correct[b]),
                    "estimand": bootstrap.ESTIMAND,
                    "flags": _flags(correct[a], correct[b], bool(found.few[i])),
                }
            )
    return rows


def _tokenizer(cards: dict[str, ModelCard], arm: str) -> str:
    return cards[arm.split("@")[0]].tokenizer_sha256
