"""Reading answers from texts, and the state of every chain at every budget.

A chain cut at T is answered only if an explicit marker with a complete number stands in its decoded first T ids; the last number of
the text counts for finished chains only. Texts are never evaluated, all patterns run in linear time.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from flopstat.tables import FAILED, STATES

if TYPE_CHECKING:
    import pyarrow as pa
    from tokenizers import Tokenizer

WINDOW = 16  # tokens of the sliding and of the tail window
MAX_TEXT = 200_000  # characters read of one text: a longer one is read at its end
MAX_DIGITS = 40  # digits of an answer that is still taken for a number

_NUMBER = r"[-−]?(?:[$€£]\s?)?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)"
_MARKERS = (
    ("first", re.compile(rf"####\s*(?P<n>{_NUMBER})")),
    ("last", re.compile(rf"\\boxed\{{\s*(?P<n>{_NUMBER})")),
    ("last", re.compile(rf"(?i:the (?:final )?answer is)[\s:*]{{0,4}}(?P<n>{_NUMBER})")),
    ("last", re.compile(rf"(?:^|\n)\s{{0,4}}A:\s{{0,4}}(?P<n>{_NUMBER})")),
)
_LAST_NUMBER = re.compile(_NUMBER)

State = Literal["answered", "no_answer", "truncated", "timeout", "invalid", "engine_error"]


def normalize(number: str) -> str:
    """Canonical form of a number: no separators, currency or leading zeros; 18.0 is 18, -0 is 0."""
    sign = "-" if number[0] in "-−" else ""
    digits = re.sub(r"[^\d.]", "", number)
    whole, _, fraction = digits.partition(".")
    fraction = fraction.rstrip("0")
    whole = whole.lstrip("0") or "0"
    value = f"{whole}.{fraction}" if fraction else whole
    return value if value == "0" else sign + value


def _complete(text: str, end: int) -> bool:
    """Whether a number that ends at `end` can't go on behind the cut."""
    rest = text[end : end + 2]
    if not rest or rest[0].isdigit() or rest[0] == "%":
        return False
    return not (rest[0] in ".," and (len(rest) == 1 or rest[1].isdigit()))


def read_answer(text: str, finished: bool) -> tuple[State, str | None]:
    """State and normalised answer of one text.

    Parameters
    ----------
    text : str
        Decoded ids of the chain, up to its budget.
    finished : bool
        Whether the chain ended by itself; if not, it was cut.

    Returns
    -------
    state, answer
        ("answered", number), ("no_answer", None) for a finished chain without a number, ("truncated", None) for a cut chain without a
        complete marked number, ("invalid", None) for a number of more than 40 digits.
    """
    text = text[-MAX_TEXT:]
    found: str | None = None
    for which, pattern in _MARKERS:
        matches = [m for m in pattern.finditer(text) if finished or _complete(text, m.end())]
        if matches:
            found = matches[0 if which == "first" else -1]["n"]
            break
    if found is None and finished:
        numbers = _LAST_NUMBER.findall(text)
        found = numbers[-1] if numbers else None
    if found is None:
        return ("no_answer" if finished else "truncated"), None
    if sum(c.isdigit() for c in found) > MAX_DIGITS:
        return "invalid", None
    return "answered", normalize(found)


def _window_statistics(confidence: np.ndarray, length: int) -> tuple[float, float]:
    """(lowest mean over a sliding window, mean of the last window) of the first `length` confidences."""
    if not length:
        return float("nan"), float("nan")
    sums = np.concatenate([[0.0], np.cumsum(confidence[:length], dtype=np.float64)])
    w = min(WINDOW, length)
    means = (sums[w:] - sums[:-w]) / w
    return float(means.min()), float(means[-1])


def grade_chains(
    samples: pa.Table, problems: pd.DataFrame, budgets: list[int], tokenizer_file: Path, answer_prompt: str | None = None
) -> pd.DataFrame:
    """One row per chain and budget: answer, state, tokens used and confidence scores.

    Where an answer was forced at T, it is read from the cue and what the model answered, and nothing else.

    Parameters
    ----------
    samples : table
        Chains, and forced answers, as the pool stores them.
    problems : table
        With problem_id, problem_key, split, difficulty, gold.
    budgets : list of int
        The grid of T, ascending.
    tokenizer_file : Path
        `tokenizer.json` of the model.
    answer_prompt : str, optional
        The cue of forced answers.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    forced = _forced_answers(samples, tokenizer, answer_prompt) if answer_prompt is not None else {}
    samples = samples.filter(pc.equal(samples["budget"], 0))
    of = problems.set_index("problem_key")[["problem_id", "split", "difficulty", "gold"]].to_dict("index")
    n_tokens = samples["n_tokens"].to_numpy()
    finish = samples["finish_reason"].to_pylist()
    ids = samples["ids"].to_pylist()
    arrays = {name: _ragged(samples[name]) for name in ("logprob", "entropy", "self_certainty", "confidence")}
    keys, index, prompts, variants = (samples[c].to_pylist() for c in ("problem_key", "sample", "prompt_tokens", "variant"))
    means = {k: _running_means(v) for k, v in arrays.items() if k != "confidence"}
    out: list[dict[str, object]] = []
    whole = tokenizer.decode_batch(ids, skip_special_tokens=True)
    for t in budgets:
        cut = np.flatnonzero(n_tokens > t)
        prefixes = dict(zip(cut.tolist(), tokenizer.decode_batch([ids[r][:t] for r in cut], skip_special_tokens=True), strict=True))
        for r in range(len(ids)):
            within = n_tokens[r] <= t
            finished = finish[r] == "eos" and within
            length = min(int(n_tokens[r]), t)
            answer_tokens = spent_tokens = 0
            state: State
            if finish[r] == "engine_error" and within:
                state, answer = "engine_error", None
            elif (keys[r], index[r], t) in forced:
                state, answer, answer_tokens, spent_tokens = forced[keys[r], index[r], t]
            else:
                state, answer = read_answer(prefixes.get(r, whole[r]), finished)
            problem = of[keys[r]]
            lowest, tail = _window_statistics(arrays["confidence"][r], length)
            out.append(
                {
                    "problem_id": problem["problem_id"],
                    "split": problem["split"],
                    "difficulty": problem["difficulty"],
                    "sample": index[r],
                    "variant": variants[r],
                    "T": t,
                    "answer": answer,
                    "state": state,
                    "correct": state == "answered" and answer == problem["gold"],
                    "finish_reason": finish[r] if within else "length",
                    "n_tokens": length,
                    "answer_tokens": answer_tokens,
                    "spent_tokens": spent_tokens,
                    "prompt_tokens": prompts[r],
                    "mean_logprob": _upto(means["logprob"][r], length),
                    "mean_entropy": _upto(means["entropy"][r], length),
                    "self_certainty": _upto(means["self_certainty"][r], length),
                    "lowest_window": lowest,
                    "tail_confidence": tail,
                }
            )
    return pd.DataFrame(out)


def _forced_answers(samples: pa.Table, tokenizer: Tokenizer, cue: str) -> dict[tuple[str, int, int], tuple[State, str | None, int, int]]:
    """State, answer, tokens charged and tokens spent by (problem, sample, T).

    Charged are the cue and the answer, which a live cache takes; spent are the answer and everything before it, which had to be prefilled
    again.
    """
    rows = samples.filter(pc.greater(samples["budget"], 0))
    cue_tokens = len(tokenizer.encode(cue, add_special_tokens=False).ids)
    texts = tokenizer.decode_batch(rows["ids"].to_pylist(), skip_special_tokens=True)
    columns = (rows[c].to_pylist() for c in ("problem_key", "sample", "budget", "finish_reason", "n_tokens", "prompt_tokens"))
    out: dict[tuple[str, int, int], tuple[State, str | None, int, int]] = {}
    for text, key, sample, t, finish, n, prompt in zip(texts, *columns, strict=True):
        state, answer = ("engine_error", None) if finish == "engine_error" else read_answer(cue + text, finish == "eos")
        out[key, sample, t] = state, answer, cue_tokens + n, prompt + n
    return out


def _upto(means: np.ndarray, length: int) -> float:
    return float(means[length - 1]) if length else float("nan")


def _ragged(column: pa.ChunkedArray) -> list[np.ndarray]:
    """Rows of a list column as numpy views."""
    array = column.combine_chunks()
    values, offsets = array.flatten().to_numpy(), array.offsets.to_numpy() - array.offsets[0].as_py()
    return [values[offsets[i] : offsets[i + 1]] for i in range(len(array))]


def _running_means(rows: list[np.ndarray]) -> list[np.ndarray]:
    return [np.cumsum(row, dtype=np.float64) / np.arange(1, len(row) + 1) for row in rows]


def count_states(states: pd.Series) -> dict[str, int]:
    """Chains by state with the balance asserted: asked = answered + no_answer + truncated + failed."""
    counts = states.value_counts()
    out = {"n_asked": len(states)} | {f"n_{s}": int(counts.get(s, 0)) for s in STATES[:3]}
    out["n_failed"] = int(sum(counts.get(s, 0) for s in FAILED))
    if out["n_asked"] != out["n_answered"] + out["n_no_answer"] + out["n_truncated"] + out["n_failed"]:
        raise AssertionError(f"chains do not add up: {out}")
    return out
