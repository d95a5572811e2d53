"""What parallel streams buy and cost: FLOP per right answer, waiting time and throughput for every number of streams P of a pool.

All of one arm at its largest T, votes by majority, over the study problems. Every P from 1 on is a subset of the pool, so no grid is
needed. Limits resample problems only; the error of the latency model is not in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from flopstat import bootstrap
from flopstat.cells import Arm, matrices
from flopstat.costs import Floats, Flops
from flopstat.estimators import majority_at_all_k
from flopstat.models import ModelCard
from flopstat.spending import ArmFacts, Spending, per_correct
from flopstat.waiting import Clock, slowest

MOST_STREAMS = 8  # of latency and throughput
SHARES = {"latency_p50_s": 0.5, "latency_p90_s": 0.9}
THROUGHPUT = "problems_per_s"
METRICS = {**dict.fromkeys(SHARES, "s"), THROUGHPUT: "1/s"}
BLOCK = 64  # columns of a product that are made together


@dataclass(frozen=True)
class Minimum:
    """Where FLOP per right answer is lowest, and how low it is there, with limits."""

    streams: int
    streams_low: int
    streams_high: int
    value: float
    low: float
    high: float


def cheapest(flops: Floats, accuracy: Floats, w: Floats, confidence: float) -> Minimum | None:
    """The number of streams with the least FLOP per right answer; None if nothing was right.

    value = min over P of mean(flops_P) / mean(accuracy_P), the smallest P of equal ones. A replicate weighs the problems, takes the ratios
    anew and finds its own minimum: the limits are percentiles of these P and of these minima. The minimum of noisy ratios lies below the
    minimum of their means, so the interval of the value leans to the low side where several P are nearly equal.

    Worked by hand: one problem, FLOP 12, 20, 30 and accuracies 1/4, 1/2, 5/8 for P = 1, 2, 3: 48, 40, 48, so P = 2 at 40.

    Parameters
    ----------
    flops, accuracy : (problems, streams), P = 1 first
    w : (replicates, problems)
    """

    def ratios(cost: Floats, share: Floats) -> Floats:
        return np.divide(cost, share, out=np.full(share.shape, np.inf), where=share > bootstrap.ROUNDING)

    found = ratios(flops.mean(axis=0), accuracy.mean(axis=0))
    if not np.isfinite(found).any():
        return None
    at, tail = int(np.argmin(found)), (1 - confidence) / 2
    boot = ratios(w @ flops, w @ accuracy)
    # Of numbers of streams, and of infinite neighbours, no mean can be taken: the limits are replicates themselves.
    first, last = np.quantile(np.argmin(boot, axis=1), [tail, 1 - tail], method="inverted_cdf")
    low, high = np.quantile(boot.min(axis=1), [tail, 1 - tail], method="inverted_cdf")
    value = float(found[at])
    return Minimum(at + 1, min(int(first), at) + 1, max(int(last), at) + 1, value, min(float(low), value), max(float(high), value))


@dataclass(frozen=True)
class LogFit:
    """a + b ln P, the interval of b, and whether the pointwise values contradict the form."""

    intercept: float
    slope: float
    slope_low: float
    slope_high: float
    p: float  # of the lack of fit; NaN where it can't be tested
    verdict: str


def fit_log(values: Floats, boot: Floats, confidence: float) -> LogFit:
    """Least squares of values at P = 1..m on 1 and ln P, with limits and lack of fit by bootstrap.

    Limits of b are percentiles of the replicates' own fits. Lack of fit: t = max over P of |residual| / its standard error, against
    the same of the replicates' residuals minus the residuals; p = (1 + replicates with as large a t) / (1 + replicates). The form is
    rejected if p < 1 - confidence. It can't be tested with two points, or where no residual varies; where no slope varies it has no
    limits.

    Worked by hand: 1, 1 + ln 2, 1 + ln 3 give a = b = 1 and residuals of 0.

    Parameters
    ----------
    values : (m,)
    boot : (replicates, m) the same in each replicate over problems

    # ASSUME equal weights do for a + b ln P: the points of one pool share most of their noise, which moves a and not b
    """
    m, nan = len(values), float("nan")
    if m < 2:
        return LogFit(float(values[0]), nan, nan, nan, nan, "one point: no fit")
    x = np.column_stack([np.ones(m), np.log(np.arange(1, m + 1))])
    solve = np.linalg.pinv(x)
    (a, b), slopes = solve @ values, boot @ solve[1]
    tail = (1 - confidence) / 2
    low, high = np.quantile(slopes, [tail, 1 - tail])
    if slopes.std() <= bootstrap.ROUNDING * np.abs(values).max():
        low = high = nan
    keep = np.eye(m) - x @ solve
    residual, centred = keep @ values, boot @ keep
    se = centred.std(axis=0, ddof=1)
    varies = se > bootstrap.ROUNDING * np.abs(values).max()
    p, verdict = nan, "not tested"
    if m > 2 and varies.any():
        t = (np.abs(residual[varies]) / se[varies]).max()
        drawn = (np.abs(centred - residual)[:, varies] / se[varies]).max(axis=1)
        p = float((1 + (drawn >= t).sum()) / (1 + len(drawn)))
        verdict = "rejected" if p < 1 - confidence else "not rejected"
    return LogFit(float(a), float(b), float(min(low, b)), float(max(high, b)), p, verdict)


def boot_waiting(clock: Clock, tokens: Floats, k: int, w: Floats) -> Floats:
    """Quantiles of the time until k chains are in, in every replicate over problems, (replicates, shares of SHARES).

    The mixture of `waiting.vote_latency` with the replicate's weights; a quantile is the first time by which the share is reached.
    """
    chance = slowest(tokens.shape[1], k)
    there = chance > 0
    seconds = clock.prefill[:, None] + k * clock.chain + clock.steps(k, np.sort(tokens, axis=1)[:, there])
    order = np.argsort(seconds, axis=None, kind="stable")
    times = seconds.ravel()[order]
    by_problem = np.zeros((len(tokens), len(times)))  # share of each problem's votes that are in by each time
    by_problem[np.repeat(np.arange(len(tokens)), there.sum())[order], np.arange(len(times))] = np.tile(chance[there], len(tokens))[order]
    np.cumsum(by_problem, axis=1, out=by_problem)
    return np.column_stack([times[_first_reached(w, by_problem, share)] for share in SHARES.values()])


def _first_reached(w: Floats, by_problem: Floats, share: float) -> NDArray[np.int64]:
    """First column of w @ by_problem, whose rows ascend to 1, that reaches the share, (replicates,).

    Looked for among every BLOCK-th column first, and then within the blocks that hold it: the whole product is never made.
    """
    share -= 1e-12  # rounding may keep the sum below 1, but never below a share that is asked for
    block = (w @ by_problem[:, BLOCK - 1 :: BLOCK] < share).sum(axis=1)
    out = np.empty(len(w), dtype=np.int64)
    for i in np.unique(block):
        rows = np.flatnonzero(block == i)
        inside = w[rows] @ by_problem[:, i * BLOCK : (i + 1) * BLOCK]
        out[rows] = i * BLOCK + np.argmax(inside >= share, axis=1)
    return out


@dataclass(frozen=True)
class ArmStreams:
    """Curves of one arm: rows of the figures and of their tables."""

    curve: pd.DataFrame  # FLOP per right answer against P
    minimum: dict[str, Any] | None
    speed: pd.DataFrame  # latency and throughput against P, with their fits


def streams_of(facts: ArmFacts, grades: pd.DataFrame, problems: pd.DataFrame, config: dict[str, Any]) -> ArmStreams:
    """Curves of one arm that was sampled here.

    Parameters
    ----------
    grades : its chains at all T
    config : seed, budgets and statistics of the study's config
    """
    budgets, statistics = config["budgets"], config["statistics"]
    assert isinstance(facts.card, ModelCard)
    chosen, t = problems[problems["split"] == "study"], max(budgets["T"])
    gold = dict(zip(chosen["problem_id"], chosen["gold"], strict=True))
    w = bootstrap.weights(chosen["difficulty"].to_numpy(), statistics["replicates"], np.random.default_rng([config["seed"], 3, True]))
    arm = matrices(grades[(grades["T"] == t) & (grades["split"] == "study")], gold, Flops.of(facts.card))
    key = {name: value for name, value in facts.columns("").items() if name not in ("study", "bits_effective")}
    key |= {"T": t, "n_problems": len(gold)}
    forced = budgets["answer_tokens"] if budgets["forcing"] == "force_answer" else 0
    curve, minimum = _per_correct(arm, w, statistics["confidence"])
    speed = _speed(facts, arm, t + forced, w, statistics["confidence"])
    estimand = {"estimand": bootstrap.ESTIMAND}
    return ArmStreams(
        curve.assign(**key),
        None if minimum is None else key | {"n_samples": arm.pool.size} | minimum | estimand,
        speed.assign(**key, **estimand),
    )


def _per_correct(arm: Arm, w: Floats, confidence: float) -> tuple[pd.DataFrame, dict[str, Any] | None]:
    accuracy = majority_at_all_k(arm.pool.codes, arm.pool.gold)
    p = np.arange(1, arm.pool.size + 1)
    flops = arm.prefill_flops[:, None] + arm.decode_flops[:, None] * p
    interval = bootstrap.proportion_interval(accuracy, w, confidence)
    bounds = np.where(interval.wilson[:, None], np.column_stack([interval.low, interval.high]), np.nan)
    points = pd.DataFrame(per_correct(flops, accuracy, bounds, w, confidence), columns=["value", "low", "high"])
    points.insert(0, "P", p)
    found = cheapest(flops, accuracy, w, confidence)
    if found is None:
        return points, None
    there = points.iloc[found.streams - 1]
    few = bool(interval.wilson[found.streams - 1])  # the replicates know too little: the limits of the accuracy there hold as well
    return points, {
        "P": found.streams,
        "P_low": found.streams_low,
        "P_high": found.streams_high,
        "value": found.value,
        "low": min(found.low, float(there["low"])) if few else found.low,
        "high": max(found.high, float(there["high"])) if few else found.high,
    }


def _speed(facts: ArmFacts, arm: Arm, budget: int, w: Floats, confidence: float) -> pd.DataFrame:
    """Median and 90th percentile of the waiting time, and problems per second of a full batch, at P = 1..8, each with its fit."""
    assert facts.latency is not None
    spending = Spending(facts, arm.chains, budget)
    clock = Clock(facts.latency, arm.chains.prompt, float(arm.chains.tokens.max()))
    streams = range(1, min(MOST_STREAMS, arm.pool.size) + 1)
    tail = (1 - confidence) / 2
    points: dict[str, list[tuple[float, ...]]] = {metric: [] for metric in METRICS}
    boots: dict[str, list[Floats]] = {metric: [] for metric in METRICS}
    for k in streams:
        drawn = boot_waiting(clock, arm.chains.tokens, k, w)
        for i, (metric, three) in enumerate(spending.waiting(k, w, confidence).items()):
            points[metric].append(three)
            boots[metric].append(drawn[:, i])
        seconds = spending.at(k)["device_s"]
        rate = 1 / (w @ seconds)
        points[THROUGHPUT].append((1 / float(seconds.mean()), *(float(v) for v in np.quantile(rate, [tail, 1 - tail]))))
        boots[THROUGHPUT].append(rate)
    parts = []
    for metric, unit in METRICS.items():
        fit = fit_log(np.array([value for value, _, _ in points[metric]]), np.column_stack(boots[metric]), confidence)
        part = pd.DataFrame(points[metric], columns=["value", "low", "high"]).assign(P=list(streams), metric=metric, unit=unit)
        parts.append(part.assign(**vars(fit)))
    return pd.concat(parts, ignore_index=True)
