"""From graded chains to cells: the accuracy and cost of every configuration (arm, T, P, B, strategy)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from flopstat import bootstrap
from flopstat.costs import Flops, flops_nominal, flops_seed
from flopstat.estimators import NO_ANSWER, best_of_k, majority_at_all_k, majority_of_best_of
from flopstat.grading import count_states
from flopstat.models import ModelCard

Floats = NDArray[np.float64]

SCORE = "mean_logprob"
PERMUTATIONS = 16
MONTE_CARLO_SHARE = 0.1  # of the standard error; a composite's Monte Carlo error above it is flagged
ANSWER_TOKENS = 0  # ASSUME no forced answers: budgets are obeyed by cutting, so A = 0 in flops_nominal


@dataclass(frozen=True)
class Arm:
    """One arm's graded chains at one T as matrices: row a problem, column a sample."""

    problem_ids: list[str]
    codes: NDArray[np.int64]
    gold: NDArray[np.int64]
    correct: NDArray[np.bool_]
    score: Floats
    tokens: Floats
    decode_flops: Floats
    prefill_flops: Floats
    greedy_correct: Floats
    greedy_tokens: Floats
    greedy_flops: Floats


def matrices(grades: pd.DataFrame, gold: dict[str, str], flops: Flops) -> Arm:
    """Turn the grades of one (arm, T) into matrices, problems in the order of `gold`.

    Raises
    ------
    ValueError
        If problems have pools of different size: the estimators want the same K for all.
    """
    ids = list(gold)
    at = {p: r for r, p in enumerate(ids)}
    rows = grades["problem_id"].map(at).to_numpy()
    sample = grades["sample"].to_numpy()
    k = int(sample.max()) + 1
    if len(grades) != len(ids) * (k + 1):
        raise ValueError(f"{len(grades)} chains for {len(ids)} problems: every problem needs samples -1 to {k - 1}")
    answers = grades["answer"].astype(object).where(grades["answer"].notna(), None)
    code_of: list[dict[str, int]] = [{gold[p]: 0} for p in ids]
    codes = np.array([NO_ANSWER if a is None else code_of[r].setdefault(a, len(code_of[r])) for r, a in zip(rows, answers, strict=True)])

    def grid(values: Any, dtype: type = float) -> tuple[NDArray[Any], NDArray[Any]]:
        out: NDArray[Any] = np.empty((len(ids), k + 1), dtype=dtype)
        out[rows, sample + 1] = np.asarray(values)
        return out[:, 1:], out[:, 0]

    prompt = grades["prompt_tokens"].to_numpy()
    tokens, greedy_tokens = grid(grades["n_tokens"])
    decode, greedy_decode = grid(flops.decode(prompt, grades["n_tokens"].to_numpy()))
    prefill, _ = grid(flops.prefill(prompt))
    code, _ = grid(codes, np.int64)
    correct, greedy_correct = grid(grades["correct"], bool)
    score, _ = grid(grades[SCORE])
    return Arm(
        problem_ids=ids,
        codes=code,
        gold=np.zeros(len(ids), dtype=np.int64),
        correct=correct,
        score=np.where(code == NO_ANSWER, -np.inf, score),
        tokens=tokens.mean(axis=1),
        decode_flops=decode.mean(axis=1),
        prefill_flops=prefill[:, 0],
        greedy_correct=greedy_correct.astype(float),
        greedy_tokens=greedy_tokens,
        greedy_flops=greedy_decode + prefill[:, 0],
    )


@dataclass(frozen=True)
class Value:
    """A cell's accuracy per problem, its variance that comes from the finite pool (NaN where not split), and its Monte Carlo error."""

    strategy: str
    p: int
    b: int
    accuracy: Floats
    sampling_variance: Floats
    monte_carlo: Floats | None = None


def _jackknife(estimate: Callable[[NDArray[np.int64], NDArray[np.bool_], Floats], Floats], arm: Arm) -> Floats:
    """Variance of a U-statistic per problem by leaving out one sample at a time: (K-1)/K · sum_i (x_i - mean x)²."""
    n, k = arm.codes.shape
    keep = np.array([[c for c in range(k) if c != out] for out in range(k)])
    shape = (n * k, k - 1)
    left_out = estimate(arm.codes[:, keep].reshape(shape), arm.correct[:, keep].reshape(shape), arm.score[:, keep].reshape(shape))
    values = left_out.reshape(n, k, *left_out.shape[1:])
    variance: Floats = (k - 1) / k * ((values - values.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    return variance


def _best_of(b: int, _codes: NDArray[np.int64], correct: NDArray[np.bool_], score: Floats) -> Floats:
    return best_of_k(correct, score, b)


def cell_values(arm: Arm, streams: list[int], branches: list[int], permutations: NDArray[np.int64]) -> Iterator[Value]:
    """Accuracy per problem of every cell of one (arm, T) with P·B <= K."""
    n, k = arm.codes.shape
    unknown = np.full(n, np.nan)
    yield Value("single", 1, 1, arm.correct.mean(axis=1), arm.correct.mean(axis=1) * (1 - arm.correct.mean(axis=1)) / max(k - 1, 1))
    yield Value("greedy", 1, 1, arm.greedy_correct, np.zeros(n))
    votes = [p for p in streams if 1 < p <= k]
    if votes:
        top = max(votes)
        majority = majority_at_all_k(arm.codes, arm.gold, top)
        left = min(top, k - 1)
        variance = _jackknife(lambda codes, _c, _s: majority_at_all_k(codes, np.zeros(len(codes), dtype=np.int64), left), arm)
        for p in votes:
            yield Value("majority", p, 1, majority[:, p - 1], variance[:, p - 1] if p <= left else unknown)
    for b in branches:
        if not 1 < b <= k:
            continue
        spread = _jackknife(functools.partial(_best_of, b), arm) if b < k else unknown
        yield Value(f"best_of_{SCORE}", 1, b, best_of_k(arm.correct, arm.score, b), spread)
        for p in votes:
            if p * b <= k:
                value, error = majority_of_best_of(arm.codes, arm.gold, arm.score, p, b, permutations)
                yield Value("majority_of_best_of", p, b, value, unknown, error)


def permutations_for(k: int, seed: int) -> NDArray[np.int64]:
    """The random permutations that all cells and arms of a study share, (16, K)."""
    rng = np.random.default_rng([seed, 2])
    return np.array([rng.permutation(k) for _ in range(PERMUTATIONS)])


def estimate_arm(
    grades: pd.DataFrame,
    problems: pd.DataFrame,
    card: ModelCard,
    precision: str,
    bits: float,
    c_counted: float,
    c_effective: tuple[float, float, float],
    config: dict[str, Any],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cells of one arm.

    Parameters
    ----------
    grades : table
        All chains of the arm at all T.
    c_effective : (median, low, high)
        C seen on this hardware for a prefill at batch 1, FLOP per token and parameter.

    Returns
    -------
    configurations, per_problem
        One row per (cell, split), and one per (cell, problem) with its accuracy and FLOPs: what paired intervals are made from.
    """
    budgets, statistics = config["budgets"], config["statistics"]
    flops = Flops.of(card)
    permutations = permutations_for(config["samples"], config["seed"])
    rows: list[dict[str, Any]] = []
    long: list[pd.DataFrame] = []
    arm_name = f"{card.name}@{precision}"
    for split in ("calibration", "study"):
        chosen = problems[problems["split"] == split]
        if chosen.empty:
            continue
        gold = dict(zip(chosen["problem_id"], chosen["gold"], strict=True))
        w = bootstrap.weights(
            chosen["difficulty"].to_numpy(), statistics["replicates"], np.random.default_rng([config["seed"], 3, split == "study"])
        )
        for t in budgets["T"]:
            part = grades[(grades["T"] == t) & (grades["split"] == split)]
            arm = matrices(part, gold, flops)
            states = count_states(part.loc[part["sample"] >= 0, "state"])
            for value in cell_values(arm, budgets["P"], budgets["B"], permutations):
                k = value.p * value.b
                greedy = value.strategy == "greedy"
                tokens = arm.greedy_tokens if greedy else k * arm.tokens
                spent = arm.greedy_flops if greedy else arm.prefill_flops + k * arm.decode_flops
                interval = bootstrap.proportion_interval(value.accuracy[:, None], w, statistics["confidence"])
                low, high = bootstrap.mean_interval(spent[:, None], w, statistics["confidence"])
                within = float(np.sqrt(value.sampling_variance.sum()) / len(spent))
                total = float(interval.se[0])
                accuracy = float(np.clip(value.accuracy.mean(), 0.0, 1.0))
                failed = states["n_failed"]
                share = [float(arm.correct.mean()), float(arm.correct.mean() + failed / states["n_asked"])] if failed else [accuracy] * 2
                seed_cost = [flops_seed(value.b, t, card.n_params, c) for c in c_effective]
                nominal = flops_nominal(value.p, value.b, t, ANSWER_TOKENS, card.n_params, c_counted)
                flags = ["wilson"] * bool(interval.wilson[0]) + ["recipe_T"] * (t in budgets["T_recipe"])
                if value.monte_carlo is not None and np.sqrt((value.monte_carlo**2).sum()) / len(spent) > MONTE_CARLO_SHARE * total:
                    flags.append("monte_carlo")
                row = {
                    "study": config["study"],
                    "arm": arm_name,
                    "model": card.name,
                    "n_params": card.n_params,
                    "precision": precision,
                    "bits_effective": bits,
                    "T": t,
                    "P": value.p,
                    "B": value.b,
                    "strategy": value.strategy,
                    "split": split,
                    "n_problems": len(spent),
                    "accuracy": accuracy,
                    "accuracy_low": min(float(interval.low[0]), accuracy),
                    "accuracy_high": max(float(interval.high[0]), accuracy),
                    "se_sampling": within,
                    "se_problems": float(np.sqrt(max(total**2 - within**2, 0.0))) if np.isfinite(within) else np.nan,
                    **states,
                    "accuracy_bound_low": share[0],
                    "accuracy_bound_high": min(share[1], 1.0),
                    "mean_tokens": float(tokens.mean()),
                    "estimand": bootstrap.ESTIMAND,
                    "flags": ";".join(flags) or None,
                    "flops_seed": seed_cost[0],
                    "flops_seed_low": seed_cost[1],
                    "flops_seed_high": seed_cost[2],
                    "flops_nominal": nominal,
                    "flops_nominal_low": nominal,
                    "flops_nominal_high": nominal,
                    "flops": float(spent.mean()),
                    "flops_low": float(low[0]),
                    "flops_high": float(high[0]),
                }
                if greedy:
                    greedy_states = count_states(part.loc[part["sample"] < 0, "state"])
                    row |= greedy_states | {"accuracy_bound_low": accuracy}
                    row["accuracy_bound_high"] = min(1.0, accuracy + greedy_states["n_failed"] / greedy_states["n_asked"])
                rows.append(row)
                long.append(
                    pd.DataFrame(
                        {
                            "arm": arm_name,
                            "T": t,
                            "P": value.p,
                            "B": value.b,
                            "strategy": value.strategy,
                            "split": split,
                            "problem_id": arm.problem_ids,
                            "difficulty": chosen["difficulty"].to_numpy(),
                            "accuracy": value.accuracy,
                            "flops": spent,
                        }
                    )
                )
    return pd.DataFrame(rows), pd.concat(long, ignore_index=True)


def skipped(card: ModelCard, precision: str, bits: float, config: dict[str, Any]) -> list[dict[str, Any]]:
    """Cells whose P·B exceeds the pool."""
    k = config["samples"]
    budgets = config["budgets"]
    return [
        {
            "study": config["study"],
            "arm": f"{card.name}@{precision}",
            "model": card.name,
            "n_params": card.n_params,
            "precision": precision,
            "bits_effective": bits,
            "T": t,
            "P": p,
            "B": b,
            "strategy": "majority_of_best_of" if p > 1 and b > 1 else "majority" if p > 1 else f"best_of_{SCORE}",
            "reason": f"P·B = {p * b} exceeds the pool of K = {k}",
        }
        for t in budgets["T"]
        for p in budgets["P"]
        for b in budgets["B"]
        if p * b > k
    ]
