"""The ladder's model card: accuracy on fresh problems with intervals, and held-out losses, measured and written by one command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flopstat import bootstrap
from flopstat.cells import matrices
from flopstat.costs import Flops
from flopstat.errors import InputError
from flopstat.estimators import majority_at_all_k
from flopstat.grading import grade_chains
from flopstat.ladder.sizes import SIZES
from flopstat.models import LADDER, check_precision, checkpoint, describe
from flopstat.problems import filter_problems, ladder_rows, with_messages
from flopstat.sampling import draw_samples

BUDGETS = (16, 64, 128)
SAMPLES = 16
PRECISIONS = ("fp32", "int8", "nf4", "rtn3")
PROMPT = {"system": "", "instruction": "{question}", "answer_cue": ""}
SAMPLING = {
    "samples": SAMPLES,
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "compute_dtype": "float32",
    "device": "cpu",
    "batch_rows": 1024,
}
REPLICATES = 2000
MAX_STEPS = 6


def measure(name: str, n_problems: int, seed: int, store: Path) -> pd.DataFrame:
    """Accuracies of one shipped model on fresh problems: rows (model, precision, T, strategy, steps) with 95% intervals over problems.

    `steps` 0 stands for all problems, whose numbers of steps have equal shares.
    """
    card = describe({"name": name, "source": "ladder"}, store)
    rows, _ = filter_problems(ladder_rows((("fresh", n_problems),), MAX_STEPS, 0, seed))
    problems = with_messages(rows, PROMPT)
    gold = dict(zip(problems["problem_id"], problems["gold"], strict=True))
    steps = problems["difficulty"].to_numpy()
    w = bootstrap.weights(steps, REPLICATES, np.random.default_rng(seed))
    out: list[dict[str, Any]] = []
    for precision in PRECISIONS:
        try:
            check_precision(card, precision)
        except InputError:
            continue
        drawn, _ = draw_samples(problems, card, precision, SAMPLING, max(BUDGETS), seed, store)
        chains = drawn.rows(problems["problem_key"], max(BUDGETS))
        graded = grade_chains(chains, problems, list(BUDGETS), checkpoint(card) / "tokenizer.json")
        for t in BUDGETS:
            pool = matrices(graded[graded["T"] == t], gold, Flops.of(card)).pool
            vote = majority_at_all_k(pool.codes, pool.gold)[:, -1]
            values = {"single": pool.correct.mean(axis=1), f"vote of {SAMPLES}": vote, "greedy": pool.greedy}
            for strategy, value in values.items():
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
    return pd.DataFrame(out)


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
    accuracy = pd.concat([measure(name, n_problems, seed, store) for name in names], ignore_index=True)
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

Held-out loss (nats per solution token) at the end of each decay branch; D is the trunk's tokens before the decay.

{_losses(logs)}

What it is not: a language model. One kind of problem, a vocabulary of words and digits; nothing here carries over to other text.
"""
    (out / "README.md").write_text(text, encoding="utf-8")
