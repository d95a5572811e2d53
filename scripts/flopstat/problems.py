"""Problems: load, filter to the deterministic ones, select, split.

A problem is *deterministic* if its gold answer is one integer after ``####``, it has at least one calculator annotation
``<<expression=value>>``, every annotation's expression evaluates to its value, and the last value equals the answer.
Every refusal is counted by reason.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from flopstat.arithmetic import evaluate
from flopstat.errors import LONE_SURROGATE, InputError, check_hub_address, without_secrets

if TYPE_CHECKING:
    from flopstat.ladder.generator import Split

_ANNOTATION = re.compile(r"<<([^<>]{0,400}?)=([^<>=]{0,60})>>")
_GOLD = re.compile(r"####\s*(\S[^\n]*)")
_INTEGER = re.compile(r"-?\d{1,3}(?:,\d{3})+|-?\d+")

REASONS = (
    "no_gold_answer",
    "gold_not_one_integer",
    "no_annotation",
    "annotation_unreadable",
    "annotation_wrong",
    "last_annotation_differs",
    "duplicate_question",
)


def judge(answer: str) -> tuple[str | None, int, int]:
    """Judge a gold answer as (reason of refusal or None, gold integer, number of annotated steps)."""
    golds = _GOLD.findall(answer)
    if not golds:
        return "no_gold_answer", 0, 0
    text = golds[-1].strip()
    if len(golds) > 1 or not _INTEGER.fullmatch(text):
        return "gold_not_one_integer", 0, 0
    gold = int(text.replace(",", ""))
    annotations = _ANNOTATION.findall(answer)
    if not annotations or answer.count("<<") != len(annotations):
        return ("annotation_unreadable" if "<<" in answer else "no_annotation"), gold, 0
    last = None
    for expression, value in annotations:
        try:
            left, last = evaluate(expression), evaluate(value)
        except ValueError:
            return "annotation_unreadable", gold, 0
        if left != last:
            return "annotation_wrong", gold, 0
    if last != gold:
        return "last_annotation_differs", gold, 0
    return None, gold, len(annotations)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Problems of a JSONL file in GSM8K's form; `problem_id` is the 0-based line number if absent.

    Raises
    ------
    InputError
        Naming file and line, for a missing file, bad JSON, a missing or non-text field, a text that UTF-8 can't hold, or a repeated
        `problem_id`.
    """
    if not os.path.isfile(path):
        raise InputError(f"dataset.path {path}: no such file; give a JSONL file with question and answer")
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    with path.open("rb") as lines:
        for number, line in enumerate(lines):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8"))
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path}:{number + 1}: not JSON ({error}); one object a line is wanted") from None
            if not isinstance(row, dict) or not all(isinstance(row.get(k), str) for k in ("question", "answer")):
                raise InputError(f"{path}:{number + 1}: needs the text fields question and answer")
            problem_id = str(row.get("problem_id", number))
            if LONE_SURROGATE.search(problem_id + row["question"] + row["answer"]):
                raise InputError(f"{path}:{number + 1}: holds half of a surrogate pair, which UTF-8 has no form for; mend or remove it")
            if problem_id in seen:
                raise InputError(f"{path}:{number + 1}: problem_id {problem_id!r} stands twice; ids must be unique")
            seen.add(problem_id)
            rows.append({"problem_id": problem_id, "question": row["question"], "answer": row["answer"]})
    return rows


def _from_hub(dataset: dict[str, Any]) -> list[dict[str, Any]]:
    check_hub_address()
    import datasets

    repo, revision = dataset["repo"], dataset["revision"]
    try:
        rows = datasets.load_dataset(repo, dataset["subset"], split=dataset["split"], revision=revision)
    except (OSError, ValueError) as error:  # no network, no such data set, subset or split
        why = f"neither in the hub's cache nor to be had ({without_secrets(' '.join(str(error).split()))[:150]})"
        remedy = f"check the network, subset and split, or `hf download {repo} --repo-type dataset --revision {revision}`"
        raise InputError(f"dataset.repo {repo} at {revision}: {why}; {remedy}") from None
    return [{"problem_id": str(i), "question": r["question"], "answer": r["answer"]} for i, r in enumerate(rows)]


def ladder_rows(wanted: Sequence[tuple[Split, int]], max_steps: int, distractors: int, seed: int) -> list[dict[str, Any]]:
    """Generated problems of several splits, the numbers of steps in equal shares, no question twice."""
    from flopstat.ladder.generator import generate

    rows: list[dict[str, Any]] = []
    for number, (split, n) in enumerate(wanted):
        rng = np.random.default_rng([seed, number])
        per_step = np.bincount(np.arange(n) % max_steps, minlength=max_steps)
        for step, count in enumerate(per_step, start=1):
            stream = generate(rng, split, steps=step, distractors=distractors)
            questions: set[str] = set()
            while len(questions) < count:
                problem = next(stream)
                if problem.question not in questions:
                    questions.add(problem.question)
                    rows.append({"question": problem.question, "answer": problem.answer, "split": split})
    return [{"problem_id": str(i)} | row for i, row in enumerate(rows)]


def judge_gold(answer: str) -> tuple[str | None, int, int]:
    """Judge a gold answer by its integer alone: (reason of refusal or None, gold integer, number of annotations)."""
    reason, gold, _ = judge(answer)
    if reason in ("no_gold_answer", "gold_not_one_integer"):
        return reason, gold, 0
    return None, gold, len(_ANNOTATION.findall(answer))


def filter_problems(
    rows: Iterable[dict[str, Any]], judged: Callable[[str], tuple[str | None, int, int]] = judge
) -> tuple[pd.DataFrame, Counter[str]]:
    """Keep the deterministic problems, or those that `judged` accepts: (problems with gold and difficulty, refusals by reason)."""
    refusals: Counter[str] = Counter()
    kept: list[dict[str, Any]] = []
    questions: set[str] = set()
    for row in rows:
        reason, gold, steps = judged(row["answer"])
        if reason is None and row["question"] in questions:
            reason = "duplicate_question"
        if reason is not None:
            refusals[reason] += 1
            continue
        questions.add(row["question"])
        kept.append(row | {"gold": str(gold), "difficulty": steps})
    return pd.DataFrame(kept), refusals


def stratified(strata: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of `n` items, each stratum in proportion to its share (largest remainders), sorted.

    Parameters
    ----------
    strata : (items,) int array
    """
    values, counts = np.unique(strata, return_counts=True)
    exact = n * counts / counts.sum()
    take = np.floor(exact).astype(int)
    short = n - take.sum()
    take[np.argsort(-(exact - take), kind="stable")[:short]] += 1
    chosen = [rng.permutation(np.flatnonzero(strata == value))[:k] for value, k in zip(values, take, strict=True)]
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, dtype=int)


def render(question: str, prompt: dict[str, str]) -> list[dict[str, str]]:
    """The chat messages that every model of a study is given, whatever its template."""
    user = prompt["instruction"].replace("{question}", question) + prompt["answer_cue"]
    system = [{"role": "system", "content": prompt["system"]}] if prompt["system"] else []
    return [*system, {"role": "user", "content": user}]


def digest(value: object) -> str:
    """First 16 hex digits of the SHA-256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def with_messages(table: pd.DataFrame, prompts: Sequence[dict[str, str]]) -> pd.DataFrame:
    """Add the rendered chat messages, one set for each of the prompts, and their hash, the problem's identity in pools."""
    several = [[render(q, prompt) for prompt in prompts] for q in table["question"]]
    messages = [m if len(prompts) > 1 else m[0] for m in several]
    return table.assign(messages=[json.dumps(m, ensure_ascii=False) for m in messages], problem_key=[digest(m) for m in messages])


def messages_of(text: str) -> list[list[dict[str, str]]]:
    """The chat messages of a problem, one set for each variant of the prompt."""
    messages = json.loads(text)
    return messages if isinstance(messages[0], list) else [messages]


def prompts_of(prompt: dict[str, str], variants: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """The prompts that a study's variants ask with: one if they differ in nothing but temperature."""
    all_of_them = [{key: text if v[key] is None else v[key] for key, text in prompt.items()} for v in variants] or [prompt]
    return all_of_them if any(p != all_of_them[0] for p in all_of_them) else all_of_them[:1]


@dataclass(frozen=True)
class Selection:
    """The chosen problems and the account of those that were not."""

    problems: pd.DataFrame
    refusals: pd.DataFrame


def select_problems(dataset: dict[str, Any], prompts: Sequence[dict[str, str]], seed: int) -> Selection:
    """Load a dataset, filter it, and choose calibration and study problems, stratified by number of steps.

    Raises
    ------
    InputError
        If fewer deterministic problems remain than are asked for.
    """
    if dataset["source"] == "ladder":
        wanted_rows: tuple[tuple[Split, int], ...] = (("calibration", dataset["n_calibration"]), ("study", dataset["n_study"]))
        rows = ladder_rows(wanted_rows, dataset["max_steps"], dataset["distractors"], seed)
    elif dataset["source"] == "local":
        rows = read_jsonl(Path(dataset["path"]))
    elif dataset["source"] == "import":
        from flopstat.importers.samples import read_problems

        rows = read_problems(dataset["kind"], Path(dataset["path"]))
    else:
        rows = _from_hub(dataset)
    table, refusals = filter_problems(rows, judge_gold if dataset.get("filter") == "gold" else judge)
    if "split" not in table:
        wanted = {"calibration": dataset["n_calibration"], "study": dataset["n_study"]}
        if len(table) < sum(wanted.values()):
            raise InputError(
                f"dataset: {len(table)} of {len(rows)} problems pass dataset.filter, {sum(wanted.values())} are asked for; "
                "lower dataset.n_study or dataset.n_calibration"
            )
        # The study is drawn first and by a stream of its own: adding calibration problems never changes it.
        study = stratified(table["difficulty"].to_numpy(), wanted["study"], np.random.default_rng([seed, 1]))
        rest = np.setdiff1d(np.arange(len(table)), study)
        extra = stratified(table["difficulty"].to_numpy()[rest], wanted["calibration"], np.random.default_rng([seed, 0]))
        split = pd.Series("unused", index=table.index)
        split.iloc[study] = "study"
        split.iloc[rest[extra]] = "calibration"
        table["split"] = split
    n_unused = int((table["split"] == "unused").sum())
    table = table[table["split"] != "unused"].reset_index(drop=True)
    account = {"asked": len(rows), **{r: refusals[r] for r in REASONS}, "not_selected": n_unused, "selected": len(table)}
    if account["asked"] != sum(v for k, v in account.items() if k != "asked"):
        raise AssertionError(f"problems do not add up: {account}")
    return Selection(with_messages(table, prompts).drop(columns="answer"), pd.DataFrame(account.items(), columns=["reason", "n_problems"]))
