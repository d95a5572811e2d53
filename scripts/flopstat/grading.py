"""Grades of stored chains: the state of every chain at every budget, by one grader or several side by side.

A chain cut at T is answered only if an explicit marker with a complete number stands in its decoded first T ids; the last number of
the text counts for finished chains only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from flopstat.columns import FAILED, STATES, TABLES
from flopstat.errors import printable
from flopstat.graders import GRADERS, Verdict, gold_of
from flopstat.scores import scores_at

if TYPE_CHECKING:
    import pyarrow as pa
    from tokenizers import Tokenizer

VERDICT_COLUMNS = [c for c in TABLES["verdicts"] if c not in ("model", "precision")]
EXCERPT_HEAD, EXCERPT_TAIL = 60, 140  # characters of a text that a person is shown


def grade_chains(
    samples: pa.Table,
    problems: pd.DataFrame,
    budgets: list[int],
    tokenizer_file: Path,
    answer_prompt: str | None = None,
    grader: str = "gsm8k",
) -> pd.DataFrame:
    """One row per chain and budget, as `grade_side_by_side` makes them with one grader."""
    return grade_side_by_side(samples, problems, budgets, tokenizer_file, answer_prompt, [grader])[0]


def grade_side_by_side(
    samples: pa.Table,
    problems: pd.DataFrame,
    budgets: list[int],
    tokenizer_file: Path,
    answer_prompt: str | None,
    graders: Sequence[str],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row per chain and budget: answer, state, tokens used and confidence scores; and what each of several graders says.

    Where an answer was forced at T, it is read from the cue and what the model answered, and nothing else.

    Parameters
    ----------
    samples : table
        Chains, and forced answers, as the pool stores them or as an archive keeps them.
    problems : table
        With problem_id, problem_key, split, difficulty, gold.
    budgets : list of int
        The grid of T, ascending.
    tokenizer_file : Path
        `tokenizer.json` of the model.
    answer_prompt : str, optional
        The cue of forced answers.
    graders : list of str
        The first one decides.

    Returns
    -------
    grades, verdicts
        Columns of the tables `grades`, without model and precision, and `verdicts`, which is empty for one grader.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    forced = _forced_answers(samples, tokenizer, answer_prompt) if answer_prompt is not None else {}
    samples = samples.filter(pc.equal(samples["budget"], 0))
    of = problems.set_index("problem_key")[["problem_id", "split", "difficulty", "gold"]].to_dict("index")
    golds = {
        (key, name): gold_of(name, problem["gold"], f"problem {problem['problem_id']}") for key, problem in of.items() for name in graders
    }
    n_tokens = samples["n_tokens"].to_numpy()
    finish = samples["finish_reason"].to_pylist()
    ids = samples["ids"].to_pylist()
    scores = scores_at(samples, budgets)
    keys, index, prompts, variants = (samples[c].to_pylist() for c in ("problem_key", "sample", "prompt_tokens", "variant"))
    out: list[dict[str, object]] = []
    beside: list[dict[str, object]] = []
    whole = tokenizer.decode_batch(ids, skip_special_tokens=True)
    for place, t in enumerate(budgets):
        cut = np.flatnonzero(n_tokens > t)
        prefixes = dict(zip(cut.tolist(), tokenizer.decode_batch([ids[r][:t] for r in cut], skip_special_tokens=True), strict=True))
        for r in range(len(ids)):
            within = n_tokens[r] <= t
            length = min(int(n_tokens[r]), t)
            text, ending, answer_tokens, spent_tokens = forced.get((keys[r], index[r], t), (prefixes.get(r, whole[r]), finish[r], 0, 0))
            finished = ending == "eos" and (within or answer_tokens > 0)
            failed = (finish[r] == "engine_error" and within) or (ending == "engine_error" and answer_tokens > 0)
            problem = of[keys[r]]
            verdicts = judge(text, finished, failed, graders, [golds[keys[r], name] for name in graders])
            state, answer, correct = verdicts[0]
            chain = {"problem_id": problem["problem_id"], "split": problem["split"], "difficulty": problem["difficulty"]}
            chain |= {"sample": index[r], "T": t}
            out.append(
                chain
                | {
                    "variant": variants[r],
                    "answer": problem["gold"] if correct else answer,  # a vote counts all right answers as one
                    "state": state,
                    "correct": correct,
                    "finish_reason": finish[r] if within else "length",
                    "n_tokens": length,
                    "answer_tokens": answer_tokens,
                    "spent_tokens": spent_tokens,
                    "prompt_tokens": prompts[r],
                }
                | {name: float(values[r, place]) for name, values in scores.items()}
            )
            beside += side_by_side(chain | {"gold": problem["gold"]}, text, graders, verdicts)
    return pd.DataFrame(out), pd.DataFrame(beside, columns=VERDICT_COLUMNS)


def judge(text: str, finished: bool, failed: bool, graders: Sequence[str], golds: Sequence[str]) -> list[Verdict]:
    """What each grader says of a text; of a chain that broke none says anything."""
    if failed:
        return [Verdict("engine_error", None, False)] * len(graders)
    return [GRADERS[name].grade(text, finished, gold) for name, gold in zip(graders, golds, strict=True)]


def side_by_side(chain: dict[str, object], text: str, graders: Sequence[str], verdicts: Sequence[Verdict]) -> list[dict[str, object]]:
    """Rows of `verdicts` for one chain, none if there is one grader; the text is shown where graders disagree."""
    if len(graders) < 2:
        return []
    shown = excerpt(text) if len({v.correct for v in verdicts}) > 1 else None
    return [chain | {"grader": name, **verdict._asdict(), "excerpt": shown} for name, verdict in zip(graders, verdicts, strict=True)]


def excerpt(text: str) -> str:
    """The beginning and the end of a text on one line, whatever cannot be printed escaped."""
    if len(text) > EXCERPT_HEAD + EXCERPT_TAIL:
        text = f"{text[:EXCERPT_HEAD]} … {text[-EXCERPT_TAIL:]}"
    return printable(text).replace("\n", "\\n") or "(empty)"


def _forced_answers(samples: pa.Table, tokenizer: Tokenizer, cue: str) -> dict[tuple[str, int, int], tuple[str, str, int, int]]:
    """Text, finish reason, tokens charged and tokens spent by (problem, sample, T).

    Charged are the cue and the answer, which a live cache takes; spent are the answer and everything before it, which had to be prefilled
    again.
    """
    rows = samples.filter(pc.greater(samples["budget"], 0))
    cue_tokens = len(tokenizer.encode(cue, add_special_tokens=False).ids)
    texts = tokenizer.decode_batch(rows["ids"].to_pylist(), skip_special_tokens=True)
    columns = (rows[c].to_pylist() for c in ("problem_key", "sample", "budget", "finish_reason", "n_tokens", "prompt_tokens"))
    return {
        (key, sample, t): (cue + text, finish, cue_tokens + n, prompt + n)
        for text, key, sample, t, finish, n, prompt in zip(texts, *columns, strict=True)
    }


def count_states(states: pd.Series) -> dict[str, int]:
    """Chains by state with the balance asserted: asked = answered + no_answer + truncated + failed."""
    counts = states.value_counts()
    out = {"n_asked": len(states)} | {f"n_{s}": int(counts.get(s, 0)) for s in STATES[:3]}
    out["n_failed"] = int(sum(counts.get(s, 0) for s in FAILED))
    if out["n_asked"] != out["n_answered"] + out["n_no_answer"] + out["n_truncated"] + out["n_failed"]:
        raise AssertionError(f"chains do not add up: {out}")
    return out
