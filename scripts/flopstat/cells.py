"""From graded chains to cells: the accuracy and cost of every configuration (arm, T, P, B, strategy)."""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from flopstat import bootstrap
from flopstat.costs import Flops, flops_of
from flopstat.errors import InputError
from flopstat.estimators import NO_ANSWER, check_exchangeable
from flopstat.grading import count_states
from flopstat.models import Card, ImportedCard
from flopstat.spending import ENDS, ArmFacts, Chains, Spending, Three, columns, per_correct, provisioned
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
    chains: Chains
    spent_tokens: Floats
    greedy: Chains
    greedy_spent_tokens: Floats

    @property
    def tokens(self) -> Floats:
        """(problems,) mean over the pool's chains."""
        return np.asarray(self.chains.tokens.mean(axis=1))

    @property
    def prefill_flops(self) -> Floats:
        return self.chains.prefill_flops

    @property
    def decode_flops(self) -> Floats:
        return self.chains.decode_flops


def matrices(grades: pd.DataFrame, gold: dict[str, str], flops: Flops | None) -> Arm:
    """Turn the grades of one (arm, T) into matrices, problems in the order of `gold`.

    A pool without greedy chains has none; scores that some answered chain lacks are left out; FLOPs are NaN where the model's shape or
    token counts are unknown.

    Raises
    ------
    ValueError
        If problems have pools of different size: the estimators want the same K for all.
    """
    ids = list(gold)
    at = {p: r for r, p in enumerate(ids)}
    rows = grades["problem_id"].map(at).to_numpy()
    sample = grades["sample"].to_numpy()
    k, has_greedy = int(sample.max()) + 1, bool((sample < 0).any())
    if len(grades) != len(ids) * (k + has_greedy):
        raise ValueError(f"{len(grades)} chains for {len(ids)} problems: every problem needs samples {-has_greedy} to {k - 1}")
    answers = grades["answer"].astype(object).where(grades["answer"].notna(), None)
    code_of: list[dict[str, int]] = [{gold[p]: 0} for p in ids]
    codes = np.array([NO_ANSWER if a is None else code_of[r].setdefault(a, len(code_of[r])) for r, a in zip(rows, answers, strict=True)])

    def grid(values: Any, dtype: type = float) -> tuple[NDArray[Any], NDArray[Any]]:
        out: NDArray[Any] = np.zeros((len(ids), k + 1), dtype=dtype)
        out[rows, sample + 1] = np.asarray(values)
        return out[:, 1:], out[:, 0]

    variants, _ = grid(grades["variant"], np.int64)
    check_exchangeable(variants, "grades")
    prompt = grades["prompt_tokens"].to_numpy(float, na_value=np.nan)
    used = (grades["n_tokens"] + grades["answer_tokens"]).to_numpy(float, na_value=np.nan)
    tokens, greedy_tokens = grid(used)
    # A forced answer is charged as a live cache takes it; drawn here, it put prompt and chain through the model once more.
    spent, greedy_spent = grid(np.where(grades["spent_tokens"] > 0, used - grades["answer_tokens"] + grades["spent_tokens"], used))
    unknown = np.full(len(grades), np.nan)
    decode, greedy_decode = grid(unknown if flops is None else flops.decode(prompt, used))
    prefill, greedy_prefill = grid(unknown if flops is None else flops.prefill(prompt))
    prompts, greedy_prompts = grid(prompt)
    code, _ = grid(codes, np.int64)
    _, greedy_correct = grid(grades["correct"], bool)
    scores = {name: grid(grades[name].to_numpy(float, na_value=np.nan))[0] for name in SCORES}
    known = {name: values for name, values in scores.items() if not np.isnan(values[code != NO_ANSWER]).any()}
    return Arm(
        problem_ids=ids,
        pool=Pool(code, known, greedy_correct.astype(float) if has_greedy else None),
        # ASSUME a problem costs one prefill, also where variants differ in their prompts
        chains=Chains(prompts.mean(axis=1), tokens, prefill.mean(axis=1), decode.mean(axis=1)),
        spent_tokens=spent.mean(axis=1),
        greedy=Chains(greedy_prompts, greedy_tokens[:, None], greedy_prefill, greedy_decode),
        greedy_spent_tokens=greedy_spent,
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


def lacking(needs: Iterable[str], scores: Container[str]) -> list[str]:
    """The columns a strategy needs and a pool has not."""
    return [name for name in needs if name not in scores]


def cell_values(pool: Pool, names: list[str], streams: list[int], branches: list[int], permutations: NDArray[np.int64]) -> Iterator[Value]:
    """Every cell of one (arm, T) with P·B <= K."""
    for name, b in itertools.product(names, sorted({1, *branches})):
        if name == GREEDY:
            if b == 1 and pool.greedy is not None:
                yield Value(name, 1, 1, Outcome(pool.greedy, np.zeros(len(pool.greedy)), None, None))
            continue
        rule = strategy(name, b)
        if lacking(rule.needs, pool.scores):
            continue
        wanted = [p for p in sorted({1, *streams}) if p * b <= pool.size and _spends(rule.axis, p, b)]
        if wanted:
            outcomes = evaluate(rule, pool, [p * b for p in wanted], permutations)
            yield from (Value(name, p, b, outcome) for p, outcome in zip(wanted, outcomes, strict=True))


def _accuracy_columns(value: Value, states: dict[str, int], w: Floats, confidence: float, recipe: bool, card: Card) -> dict[str, Any]:
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
    flags += card.flags if isinstance(card, ImportedCard) else ()
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


def _cost_columns(
    values: list[Value], arm: Arm, facts: ArmFacts, t: int, answer: int, w: Floats, confidence: float
) -> list[tuple[dict[str, float], Floats]]:
    """Each cell's cost columns with limits, and its counted FLOPs per problem.

    Limits: calibration's range (flops_seed), none (flops_nominal), Woodruff's (latencies), else the bootstrap over problems.
    """
    keys = [(v.strategy == GREEDY, v.p * v.b) for v in values]
    spending = {greedy: Spending(facts, arm.greedy if greedy else arm.chains, t + answer) for greedy in {greedy for greedy, _ in keys}}
    each = {(greedy, k): spending[greedy].at(k) for greedy, k in dict.fromkeys(keys)}
    stacked = np.column_stack([array for costs in each.values() for array in costs.values()])
    limits = iter(zip(stacked.mean(axis=0), *bootstrap.mean_interval(stacked, w, confidence), strict=True))
    known: dict[tuple[bool, int], dict[str, Three]] = {
        (greedy, k): {name: (float(v), float(lo), float(hi)) for name, (v, lo, hi) in zip(costs, limits, strict=False)}
        | spending[greedy].waiting(k, w, confidence)
        for (greedy, k), costs in each.items()
    }
    return [
        (columns(known[key] | provisioned(facts, v.p, v.b, t, answer, float(arm.tokens.mean()))), each[key]["flops"])
        for v, key in zip(values, keys, strict=True)
    ]


def _per_correct(rows: list[dict[str, Any]], values: list[Value], flops: list[Floats], w: Floats, confidence: float) -> None:
    """Fill in flops_per_correct, which needs the interval of the accuracy."""
    small = ["small_counts" in (row["flags"] or "") for row in rows]
    bounds = np.array([[row["accuracy_low"], row["accuracy_high"]] if few else [np.nan] * 2 for row, few in zip(rows, small, strict=True)])
    accuracy = np.column_stack([v.outcome.accuracy for v in values])
    found = per_correct(np.column_stack(flops), accuracy, bounds, w, confidence)
    for row, three in zip(rows, found, strict=True):
        row.update({f"flops_per_correct{end}": float(v) for end, v in zip(ENDS, three, strict=True)})


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
    flops = flops_of(facts.card)
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
            kinds = sorted(set(is_greedy))
            states = {greedy: _checked_states(part.loc[is_greedy == greedy, "state"], f"{facts.name}, T = {t}") for greedy in kinds}
            values = list(cell_values(arm.pool, config["strategies"], budgets["P"], budgets["B"], permutations))
            costs = _cost_columns(values, arm, facts, t, answer, w, statistics["confidence"])
            made: list[dict[str, Any]] = []
            for value, (cost, spent) in zip(values, costs, strict=True):
                greedy, k = value.strategy == GREEDY, value.p * value.b
                tokens = arm.greedy.tokens[:, 0] if greedy else k * arm.tokens
                drawn = arm.greedy_spent_tokens if greedy else k * arm.spent_tokens
                cell = {"T": t, "P": value.p, "B": value.b, "strategy": value.strategy, "split": split}
                made.append(
                    facts.columns(config["study"])
                    | cell
                    | {"mean_tokens": float(tokens.mean()), "mean_spent_tokens": float(drawn.mean())}
                    | _accuracy_columns(value, states[greedy], w, statistics["confidence"], t in budgets["T_recipe"], facts.card)
                    | cost
                )
                each = {"problem_id": arm.problem_ids, "difficulty": chosen["difficulty"].to_numpy()}
                long.append(pd.DataFrame(each | {"arm": facts.name, "accuracy": value.outcome.accuracy, "flops": spent} | cell))
            if flops is not None:
                _per_correct(made, values, [spent for _, spent in costs], w, statistics["confidence"])
            rows += made
    return pd.DataFrame(rows), pd.concat(long, ignore_index=True)


def skipped(facts: ArmFacts, config: dict[str, Any], grades: pd.DataFrame | None = None) -> list[dict[str, Any]]:
    """Cells without an estimate: P·B exceeds the pool, or its grades lack a column that the strategy needs, as imported ones may."""
    k, budgets = config["samples"], config["budgets"]
    lacks = {name: "" if grades is None else _missing(name, grades) for name in config["strategies"]}
    rows = []
    for t, name, p, b in itertools.product(budgets["T"], config["strategies"], budgets["P"], budgets["B"]):
        is_cell = p * b == 1 if name == GREEDY else _spends(strategy(name, b).axis, p, b)
        too_many, lacking_columns = f"P·B = {p * b} exceeds the pool of K = {k}", f"needs {lacks[name]}, which these samples lack"
        reason = too_many if p * b > k else lacks[name] and lacking_columns
        if is_cell and reason:
            rows.append(facts.columns(config["study"]) | {"T": t, "P": p, "B": b, "strategy": name, "reason": reason})
    return rows


def _missing(name: str, grades: pd.DataFrame) -> str:
    """What a strategy needs and an arm's grades lack, in words; empty if nothing."""
    if name == GREEDY:
        return "" if (grades["sample"] < 0).any() else "a chain with sample -1 of every problem"
    answered = grades.loc[grades["state"] == "answered"]
    return ", ".join(lacking(strategy(name, 1).needs, [column for column in SCORES if answered[column].notna().all()]))
