"""Arms of a study whose samples another tool drew: their card and their grades. No model is present, and none is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from flopstat.errors import InputError
from flopstat.graders import gold_of
from flopstat.grading import VERDICT_COLUMNS, judge, side_by_side
from flopstat.importers.samples import import_samples
from flopstat.models import ImportedCard, sha256_of_files
from flopstat.strategies import SCORES

KEYS = ["problem_id", "sample"]
NUMBERING = "every problem needs each sample 0, 1, ... once, and a greedy chain (-1) where any has one; import one precision at a time"


def import_arm(entry: dict[str, Any], out: Path) -> ImportedCard:
    """Import a model entry's log to `out` in the Sample form, and say what is known of the model.

    Parameters
    ----------
    entry : mapping
        One item of `models` in the config, with source import.

    Raises
    ------
    InputError
        If the log holds several models, or neither the log nor the config says how large the model is.
    """
    path = Path(entry["path"])
    where = f"models {entry['name']}"
    done = import_samples(entry["kind"], path, out, only=entry["log_model"])
    if len(done.models) > 1:
        raise InputError(f"{where}: {path} holds {', '.join(done.models[:10])}; choose one with log_model")
    sizes = pq.read_table(out, columns=["n_params"])["n_params"].unique().drop_null().to_pylist()
    if entry["n_params"] is not None:
        sizes = [entry["n_params"]]
    if len(sizes) != 1:
        raise InputError(f"{where}: {path} names {len(sizes)} sizes of the model; declare n_params")
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    return ImportedCard(
        name=entry["name"],
        source="import",
        stored=str(entry["path"]),
        log_sha256=sha256_of_files(files),
        n_params=sizes[0],
        tokens_per_solution=entry["tokens_per_solution"],
        external_samples=entry["external_samples"] or 1,
        dropped=done.dropped,
        unknown=done.unknown,
    )


def grade_imported(
    samples: pd.DataFrame, problems: pd.DataFrame, budgets: list[int], name: str, graders: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Grades and verdicts of all imported chains of the study's problems, at the largest T, as `grading.grade_side_by_side` gives them.

    Chains are graded whole: without the tokenizer none can be cut, so smaller T have no rows.
    # ASSUME a chain whose log does not say how it ended, ended by itself

    Parameters
    ----------
    samples : table
        `imported`.
    problems : table
        With problem_id, split, difficulty, gold.
    budgets : list of int
        The grid of T.
    graders : sequence of str
        The first one decides.
    name : str
        The arm, for messages.

    Raises
    ------
    InputError
        If a problem lacks samples that others have, or a chain is longer than the largest T.
    """
    t = max(budgets)
    chosen = problems[["problem_id", "split", "difficulty", "gold"]].merge(samples, on="problem_id", how="inner", validate="one_to_many")
    counts = chosen["problem_id"].value_counts().reindex(problems["problem_id"], fill_value=0)
    if counts.min() == 0:
        absent = str(counts.idxmin())[:50]
        remedy = "take the problems from the same log, or lower dataset.n_study"
        raise InputError(f"{name}: no samples of {int((counts == 0).sum())} problems, such as {absent!r}; {remedy}")
    if counts.min() != counts.max():
        few, many = (str(problem)[:50] for problem in (counts.idxmin(), counts.idxmax()))
        found = f"{counts.min()} samples of problem {few!r} and {counts.max()} of {many!r}"
        raise InputError(f"{name}: {found}; every problem needs as many, drop the rest from the log")
    k, n_greedy = int(chosen["sample"].max()) + 1, int((chosen["sample"] < 0).sum())
    if k < 1 or n_greedy not in (0, len(problems)) or len(chosen) - n_greedy != k * len(problems) or chosen.duplicated(KEYS).any():
        raise InputError(f"{name}: samples up to {k - 1} and {n_greedy} greedy chains of {len(problems)} problems; {NUMBERING}")
    if (chosen["n_tokens"] > t).any():
        longest = int(chosen["n_tokens"].max())
        raise InputError(f"{name}: a chain of {longest} tokens can't be cut at {t} without its tokenizer; raise budgets.T to {longest}")
    golds = {
        p: [gold_of(g, gold, f"problem {p}") for g in graders] for p, gold in zip(problems["problem_id"], problems["gold"], strict=True)
    }
    verdicts = [
        judge(text, finish != "length", finish == "engine_error", graders, golds[problem])
        for text, finish, problem in zip(chosen["text"], chosen["finish_reason"], chosen["problem_id"], strict=True)
    ]
    states, answers, correct = (np.array([v[0][i] for v in verdicts], dtype=object) for i in range(3))
    answers = np.where(correct.astype(bool), chosen["gold"], answers)  # a vote counts all right answers as one
    named = chosen[["problem_id", "split", "difficulty", "sample", "gold"]].assign(T=t)
    beside: list[dict[str, object]] = []
    for values, text, several in zip(named.itertuples(index=False, name=None), chosen["text"], verdicts, strict=True):
        beside += side_by_side(dict(zip(named.columns, values, strict=True)), text, graders, several)
    kept = chosen[["problem_id", "split", "difficulty", "sample", "finish_reason", "n_tokens", "prompt_tokens"]]
    unknown = {score: np.nan for score in SCORES if score != "mean_logprob"}
    graded = kept.assign(
        T=t,
        variant=0,
        answer=answers,
        state=states,
        correct=correct.astype(bool),
        answer_tokens=0,
        spent_tokens=0,
        mean_logprob=chosen["mean_logprob"],
        **unknown,
    )
    return graded, pd.DataFrame(beside, columns=VERDICT_COLUMNS)
