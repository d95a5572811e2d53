"""From graded chains to cells: the accuracy and cost of every configuration (arm, T, P, B, strategy)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from flopstat import bootstrap
from flopstat.costs import Flops, flops_nominal, flops_seed
from flopstat.errors import InputError
from flopstat.estimators import NO_ANSWER, check_exchangeable
from flopstat.grading import count_states
from flopstat.models import ModelCard
from flopstat.strategies import GREEDY, SCORES, Axis, Outcome, Pool, evaluate, permutations_for, strategy

Floats = NDArray[np.float64]

PERMUTATIONS = 64  # of each problem's samples; with them the composites of the default study keep to MONTE_CARLO_SHARE
MONTE_CARLO_SHARE = 0.1  # of the standard error; a composite's Monte Carlo error above it is flagged
MAX_FAILED = 0.01  # share of failed chains that stops a study


@dataclass(frozen=True)
class Arm:
    """One arm's graded chains at one T as matrices: row a problem, column a sample."""

    problem_ids: list[str]
    pool: Pool
    tokens: Floats
    spent_tokens: Floats
    decode_flops: Floats
    prefill_flops: Floats
    greedy_tokens: Floats
    greedy_spent_tokens: Floats
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

    variants, _ = grid(grades["variant"], np.int64)
    check_exchangeable(variants, "grades")
    prompt = grades["prompt_tokens"].to_numpy()
    used = (grades["n_tokens"] + grades["answer_tokens"]).to_numpy()
    tokens, greedy_tokens = grid(used)
    # A forced answer is charged as a live cache takes it; drawn here, it put prompt and chain through the model once more.
    spent, greedy_spent = grid(np.where(grades["spent_tokens"] > 0, grades["n_tokens"] + grades["spent_tokens"], used))
    decode, greedy_decode = grid(flops.decode(prompt, used))
    prefill, _ = grid(flops.prefill(prompt))
    code, _ = grid(codes, np.int64)
    _, greedy_correct = grid(grades["correct"], bool)
    return Arm(
        problem_ids=ids,
        pool=Pool(code, {name: grid(grades[name])[0] for name in SCORES}, greedy_correct.astype(float)),
        tokens=tokens.mean(axis=1),
        spent_tokens=spent.mean(axis=1),
        decode_flops=decode.mean(axis=1),
        prefill_flops=prefill.mean(axis=1),  # ASSUME one prefill per problem, also where variants differ in their prompts
        greedy_tokens=greedy_tokens,
        greedy_spent_tokens=greedy_spent,
        greedy_flops=greedy_decode + prefill[:, 0],
    )


@dataclass(frozen=True)
class Value:
    """A cell's accuracy per problem, its variance that comes from the finite pool (NaN where not split), and its Monte Carlo error."""

    strategy: str
    p: int
    b: int
    outcome: Outcome


def _spends(axis: Axis, p: int, b: int) -> bool:
    """Whether a strategy that spends its chains on `axis` makes a cell of (P, B) that no other pair makes."""
    return (p > 1) == (axis in ("P", "PB")) and (b > 1) == (axis in ("B", "PB"))


def cell_values(pool: Pool, names: list[str], streams: list[int], branches: list[int], permutations: NDArray[np.int64]) -> Iterator[Value]:
    """Every cell of one (arm, T) with P·B <= K."""
    for name, b in itertools.product(names, sorted({1, *branches})):
        if name == GREEDY:
            if b == 1 and pool.greedy is not None:
                yield Value(name, 1, 1, Outcome(pool.greedy, np.zeros(len(pool.greedy)), None, None))
            continue
        rule = strategy(name, b)
        wanted = [p for p in sorted({1, *streams}) if p * b <= pool.size and _spends(rule.axis, p, b)]
        if wanted:
            outcomes = evaluate(rule, pool, [p * b for p in wanted], permutations)
            yield from (Value(name, p, b, outcome) for p, outcome in zip(wanted, outcomes, strict=True))


@dataclass(frozen=True)
class ArmFacts:
    """What a cell's row says of its arm."""

    card: ModelCard
    precision: str
    bits_effective: float
    c_counted: float  # FLOP per token and parameter
    c_effective: tuple[float, float, float]  # median, low, high, for a prefill at batch 1

    @property
    def name(self) -> str:
        return f"{self.card.name}@{self.precision}"

    def columns(self, study: str) -> dict[str, Any]:
        return {
            "study": study,
            "arm": self.name,
            "model": self.card.name,
            "n_params": self.card.n_params,
            "precision": self.precision,
            "bits_effective": self.bits_effective,
        }


def _accuracy_columns(value: Value, states: dict[str, int], w: Floats, confidence: float, recipe: bool) -> dict[str, Any]:
    """Accuracy, interval, its parts, the bounds that failed chains leave open, and flags.

    A cell of k chains meets a failed one with probability at most k·n_failed/n_asked, so that far its accuracy could lie on either side;
    one chain alone counts its failures as wrong already.
    """
    outcome = value.outcome
    n = len(outcome.accuracy)
    accuracy = float(np.clip(outcome.accuracy.mean(), 0.0, 1.0))
    interval = bootstrap.proportion_interval(outcome.accuracy[:, None], w, confidence)
    total = float(interval.se[0])
    within, between = bootstrap.split_variance(total, outcome.sampling_variance)
    k = value.p * value.b
    met = k * states["n_failed"] / states["n_asked"]
    flags = ["small_counts"] * bool(interval.wilson[0]) + ["recipe_T"] * recipe
    if outcome.monte_carlo is not None and np.sqrt((outcome.monte_carlo**2).sum()) / n > MONTE_CARLO_SHARE * total:
        flags.append("monte_carlo")
    changed = dict.fromkeys(("changed", "changed_low", "changed_high"), np.nan)
    if outcome.changed is not None:
        limits = bootstrap.proportion_interval(outcome.changed[:, None], w, confidence)
        changed = {"changed": float(outcome.changed.mean()), "changed_low": float(limits.low[0]), "changed_high": float(limits.high[0])}
    return {
        "n_problems": n,
        "accuracy": accuracy,
        "accuracy_low": min(float(interval.low[0]), accuracy),
        "accuracy_high": max(float(interval.high[0]), accuracy),
        "se_sampling": within,
        "se_problems": between,
        **changed,
        **states,
        "accuracy_bound_low": accuracy if k == 1 else max(0.0, accuracy - met),
        "accuracy_bound_high": min(1.0, accuracy + met),
        "estimand": bootstrap.ESTIMAND,
        "flags": ";".join(flags) or None,
    }


def _cost_columns(value: Value, facts: ArmFacts, t: int, answer: int, spent: Floats, w: Floats, confidence: float) -> dict[str, Any]:
    """The three FLOP columns with their limits: calibration's range, none, and the bootstrap over problems."""
    low, high = bootstrap.mean_interval(spent[:, None], w, confidence)
    seed = [flops_seed(value.b, t, facts.card.n_params, c) for c in facts.c_effective]
    nominal = [flops_nominal(value.p, value.b, t, answer, facts.card.n_params, facts.c_counted)] * 3
    counted = [float(spent.mean()), float(low[0]), float(high[0])]
    costs = {"flops_seed": seed, "flops_nominal": nominal, "flops": counted}
    return {f"{name}{end}": v for name, three in costs.items() for end, v in zip(("", "_low", "_high"), three, strict=True)}


def _checked_states(states: pd.Series, where: str) -> dict[str, int]:
    """Counts by state.

    Raises
    ------
    InputError
        If more than 1% of the chains failed: no accuracy is worth stating then.
    """
    counts = count_states(states)
    if counts["n_failed"] > MAX_FAILED * counts["n_asked"]:
        raise InputError(f"{where}: {counts['n_failed']} of {counts['n_asked']} chains failed, more than 1%; look at states in its grades")
    return counts


def estimate_arm(
    grades: pd.DataFrame, problems: pd.DataFrame, facts: ArmFacts, config: dict[str, Any]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cells of one arm.

    Parameters
    ----------
    grades : table
        All chains of the arm at all T.
    config : mapping
        study, seed, samples (K), budgets and statistics of the config.

    Returns
    -------
    configurations, per_problem
        One row per (cell, split), and one per (cell, problem) with its accuracy and FLOPs: what paired intervals are made from.
    """
    budgets, statistics = config["budgets"], config["statistics"]
    flops = Flops.of(facts.card)
    answer = budgets["answer_tokens"] if budgets["forcing"] == "force_answer" else 0
    permutations = permutations_for(config["samples"], PERMUTATIONS, config["seed"])
    rows: list[dict[str, Any]] = []
    long: list[pd.DataFrame] = []
    for split in ("calibration", "study"):
        chosen = problems[problems["split"] == split]
        if chosen.empty:
            continue
        gold = dict(zip(chosen["problem_id"], chosen["gold"], strict=True))
        rng = np.random.default_rng([config["seed"], 3, split == "study"])
        w = bootstrap.weights(chosen["difficulty"].to_numpy(), statistics["replicates"], rng)
        for t in budgets["T"]:
            part = grades[(grades["T"] == t) & (grades["split"] == split)]
            arm = matrices(part, gold, flops)
            is_greedy = part["sample"] < 0
            states = {greedy: _checked_states(part.loc[is_greedy == greedy, "state"], f"{facts.name}, T = {t}") for greedy in (False, True)}
            for value in cell_values(arm.pool, config["strategies"], budgets["P"], budgets["B"], permutations):
                greedy, k = value.strategy == GREEDY, value.p * value.b
                tokens = arm.greedy_tokens if greedy else k * arm.tokens
                drawn = arm.greedy_spent_tokens if greedy else k * arm.spent_tokens
                spent = arm.greedy_flops if greedy else arm.prefill_flops + k * arm.decode_flops
                cell = {"T": t, "P": value.p, "B": value.b, "strategy": value.strategy, "split": split}
                rows.append(
                    facts.columns(config["study"])
                    | cell
                    | {"mean_tokens": float(tokens.mean()), "mean_spent_tokens": float(drawn.mean())}
                    | _accuracy_columns(value, states[greedy], w, statistics["confidence"], t in budgets["T_recipe"])
                    | _cost_columns(value, facts, t, answer, spent, w, statistics["confidence"])
                )
                each = {"problem_id": arm.problem_ids, "difficulty": chosen["difficulty"].to_numpy()}
                long.append(pd.DataFrame(each | {"arm": facts.name, "accuracy": value.outcome.accuracy, "flops": spent} | cell))
    return pd.DataFrame(rows), pd.concat(long, ignore_index=True)


def skipped(facts: ArmFacts, config: dict[str, Any]) -> list[dict[str, Any]]:
    """Cells whose P·B exceeds the pool."""
    k = config["samples"]
    budgets = config["budgets"]
    return [
        facts.columns(config["study"]) | {"T": t, "P": p, "B": b, "strategy": name, "reason": f"P·B = {p * b} exceeds the pool of K = {k}"}
        for t in budgets["T"]
        for name in config["strategies"]
        for p in budgets["P"]
        for b in budgets["B"]
        if p * b > k and name != GREEDY and _spends(strategy(name, b).axis, p, b)
    ]
