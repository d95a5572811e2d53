"""The ladder's model card: accuracy on fresh problems with intervals, and held-out losses, measured and written by one command."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from flopstat import bootstrap
from flopstat.cells import matrices
from flopstat.config import section
from flopstat.costs import Flops
from flopstat.errors import InputError
from flopstat.estimators import Floats, majority_at_all_k
from flopstat.forcing import Plan
from flopstat.frontier import best_at
from flopstat.grading import grade_chains
from flopstat.ladder.sizes import SIZES
from flopstat.models import LADDER, checkpoint, describe
from flopstat.precisions import check_precision
from flopstat.problems import filter_problems, ladder_rows, with_messages
from flopstat.sampling import draw_samples, open_arm

BUDGETS = (16, 24, 32, 48, 64, 128)
SAMPLES = 16
VOTES = (1, 2, 4, 8, 16)
PRECISIONS = ("fp32", "int8", "nf4", "rtn3")
PROMPT = {"system": "", "instruction": "{question}", "answer_cue": ""}
REPLICATES = 2000
MAX_STEPS = 6


@dataclass(frozen=True)
class Curve:
    """What a model buys on the fresh problems at fp32: cells of single passes and votes at every T."""

    cost: Floats  # (cells,) FLOP per problem
    value: Floats  # (problems, cells) accuracy
    votes: NDArray[np.int64]  # (cells,) chains used
    strata: NDArray[np.int64]  # (problems,)


def measure(name: str, n_problems: int, seed: int, store: Path) -> tuple[pd.DataFrame, Curve]:
    """Accuracies of one shipped model on fresh problems.

    Returns
    -------
    accuracy, curve
        Rows (model, precision, T, strategy, steps) with 95% intervals over problems; `steps` 0 stands for all problems, whose numbers of
        steps have equal shares. And cost and accuracy of its fp32 cells.
    """
    card = describe({"name": name, "source": "ladder"}, store)
    rows, _ = filter_problems(ladder_rows((("fresh", n_problems),), MAX_STEPS, 0, seed))
    problems = with_messages(rows, [PROMPT])
    gold = dict(zip(problems["problem_id"], problems["gold"], strict=True))
    steps = problems["difficulty"].to_numpy()
    w = bootstrap.weights(steps, REPLICATES, np.random.default_rng(seed))
    out: list[dict[str, Any]] = []
    cost: list[float] = []
    values: list[Floats] = []
    for precision in PRECISIONS:
        try:
            check_precision(card, precision)
        except InputError:
            continue
        sampling, budgets = section("sampling", {"samples": SAMPLES, "device": "cpu"}), section("budgets", {"T": list(BUDGETS)})
        drawn = open_arm(card, precision, sampling, Plan.of(sampling, budgets, seed), store)
        draw_samples(problems, drawn)
        chains = drawn.pool.rows(problems["problem_key"], max(BUDGETS))
        graded = grade_chains(chains, problems, list(BUDGETS), checkpoint(card) / "tokenizer.json")
        for t in BUDGETS:
            arm = matrices(graded[graded["T"] == t], gold, Flops.of(card))
            vote = majority_at_all_k(arm.pool.codes, arm.pool.gold)
            if precision == PRECISIONS[0]:
                cost += [float((arm.prefill_flops + k * arm.decode_flops).mean()) for k in VOTES]
                values += [vote[:, k - 1] for k in VOTES]
            assert arm.pool.greedy is not None
            shown = {"single": vote[:, 0], f"vote of {SAMPLES}": vote[:, -1], "greedy": arm.pool.greedy}
            for strategy, value in shown.items():
                for step in (0, *range(1, MAX_STEPS + 1)):
                    mine = steps == step if step else np.ones(len(steps), dtype=bool)
                    part = w[:, mine] / w[:, mine].sum(axis=1, keepdims=True)
                    interval = bootstrap.proportion_interval(value[mine][:, None], part, 0.95)
                    out.append(
                        {
                            "model": name,
                            "n_params": card.n_params,
                            "precision": precision,
                            "T": t,
                            "strategy": strategy,
                            "steps": step,
                            "n_problems": int(mine.sum()),
                            "accuracy": float(value[mine].mean()),
                            "low": float(interval.low[0]),
                            "high": float(interval.high[0]),
                        }
                    )
    return pd.DataFrame(out), Curve(np.array(cost), np.column_stack(values), np.tile(VOTES, len(BUDGETS)), steps)


def crossing(small: Curve, large: Curve, seed: int) -> dict[str, tuple[float, float, float, float]]:
    """Where the best of the smaller model's passes and votes and the larger model's single pass lead, at equal cost.

    Returns
    -------
    For "smaller" and "larger": (cost, lead, low, high) at the cost where that lead is clearest. Limits hold for all costs at once.
    """
    single = large.votes == 1
    w = bootstrap.weights(small.strata, REPLICATES, np.random.default_rng(seed))
    grid = np.unique(np.concatenate([small.cost, large.cost[single]]))
    grid = grid[grid >= max(small.cost.min(), large.cost[single].min())]
    best = [best_at(c.cost[m], c.value[:, m].mean(axis=0), w @ c.value[:, m], grid) for c, m in ((small, small.votes > 0), (large, single))]
    lead, boot = best[1][0] - best[0][0], best[1][1] - best[0][1]
    low, high, _ = bootstrap.simultaneous_limits(lead, boot, 0.95)
    behind, ahead = int(high.argmin()), int(low.argmax())
    return {
        "smaller": (float(grid[behind]), -float(lead[behind]), -float(high[behind]), -float(low[behind])),
        "larger": (float(grid[ahead]), float(lead[ahead]), float(low[ahead]), float(high[ahead])),
    }


def _crossings(curves: dict[str, Curve], seed: int) -> str:
    lines = ["| pair | smaller with votes ahead | larger single pass ahead |", "|---|---|---|"]
    for small, large in itertools.pairwise(curves):
        found = crossing(curves[small], curves[large], seed)
        text = [f"{100 * lead:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] at {cost:.2e}" for cost, lead, low, high in found.values()]
        lines.append(f"| {small}, {large} | {text[0]} | {text[1]} |")
    return "\n".join(lines)


def _percent(row: pd.Series) -> str:
    return f"{100 * row['accuracy']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"


def _pivot(rows: pd.DataFrame, columns: str, head: str) -> str:
    table = rows.assign(text=rows.apply(_percent, axis=1)).pivot(index=["model", "n_params"], columns=columns, values="text")
    table = table.sort_index(level="n_params")
    lines = [f"| {head} | " + " | ".join(str(c) for c in table.columns) + " |", "|---|" + "---|" * len(table.columns)]
    for index, (_, row) in zip(table.index, table.iterrows(), strict=True):
        lines.append(f"| {index[0]} | " + " | ".join("not run" if pd.isna(v) else v for v in row) + " |")
    return "\n".join(lines)


def _losses(logs: dict[str, pd.DataFrame]) -> str:
    parts = [log[log["kind"] == "branch"].assign(D=(log["branch_tokens"] / 1e6).round(1)) for log in logs.values()]
    table = pd.concat(parts).pivot(index=["n_params", "model"], columns="D", values="loss").sort_index()
    lines = ["| model | N | " + " | ".join(f"D = {d:g}M" for d in table.columns) + " |", "|---|---|" + "---|" * len(table.columns)]
    for index, (_, row) in zip(table.index, table.iterrows(), strict=True):
        lines.append(f"| {index[1]} | {index[0]:,} | " + " | ".join("" if pd.isna(v) else f"{v:.4f}" for v in row) + " |")
    return "\n".join(lines)


def write_card(out: Path, n_problems: int, seed: int, store: Path) -> None:
    """Measure every shipped model and write `accuracy.csv` and `README.md` into `out`."""
    names = [name for name in SIZES if (LADDER / name / "config.json").is_file()]
    measured = {name: measure(name, n_problems, seed, store) for name in names}
    accuracy = pd.concat([table for table, _ in measured.values()], ignore_index=True)
    curves = {name: curve for name, (_, curve) in measured.items()}
    accuracy.to_csv(out / "accuracy.csv", index=False, float_format="%.6g", lineterminator="\n")
    logs = {name: pd.read_csv(LADDER / name / "training_log.csv") for name in names}
    top = accuracy[accuracy["T"] == max(BUDGETS)]
    whole = accuracy[accuracy["steps"] == 0]
    reference = top[(top["steps"] == 0) & (top["precision"] == "fp32")]
    by_steps = top[(top["strategy"] == "single") & (top["precision"] == "fp32") & (top["steps"] > 0)]
    megabytes = sum(f.stat().st_size for f in out.glob("*/*.safetensors")) / 1e6
    shipped = "; ".join(
        f"{name} after {SIZES[name].branches[SIZES[name].shipped] / 1e6:g}M tokens and {SIZES[name].decay_fraction:.0%} of decay"
        for name in names
    )
    text = f"""# Model card: the ladder

Written by `flopstat card`; do not edit. Data, training and format: docs/ladder.md.

Shipped: {shipped}. Seed {SIZES[names[0]].seed}. Float32 safetensors, Qwen2 architecture, {megabytes:.1f} MB in all.

Accuracy in percent on {n_problems:,} fresh problems (equal shares of 1 to {MAX_STEPS} steps) that no training, calibration or study saw,
temperature 1, {SAMPLES} samples a problem, 95% intervals over problems like these.

{_pivot(reference, "strategy", f"fp32, T = {max(BUDGETS)}")}

{_pivot(by_steps, "steps", "single, fp32, by steps")}

{_pivot(whole[(whole["strategy"] == "single") & (whole["precision"] == "fp32")], "T", "single, fp32, by T")}

{_pivot(top[(top["strategy"] == "single") & (top["steps"] == 0)], "precision", f"single, T = {max(BUDGETS)}, by precision")}

At equal cost (FLOP per problem, prompt included): the smaller model's best of single passes and votes of up to {SAMPLES} against
the larger model's single pass, both at the T that serves best. Lead in points at the cost where it is clearest; limits hold for all
costs at once.

{_crossings(curves, seed)}

Held-out loss (nats per solution token) at the end of each decay branch; D is the trunk's tokens before the decay.

{_losses(logs)}

What it is not: a language model. One kind of problem, a vocabulary of words and digits; nothing here carries over to other text.
"""
    (out / "README.md").write_text(text, encoding="utf-8")
