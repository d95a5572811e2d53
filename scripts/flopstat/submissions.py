"""`flopstat grade`: outputs from anywhere, streamed through a grader by several processes.

Texts are read in blocks and dropped once graded; what stays of a sample are a few numbers, its answer as a code. The file of grades is
written at the end, whole or not at all, when every problem is known to have every sample.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flopstat.columns import STATES
from flopstat.engine import ENDINGS
from flopstat.errors import InputError
from flopstat.graders import GRADERS, gold_of, grader
from flopstat.submission_grades import Codes, Graded

NEEDED: dict[str, tuple[type, ...]] = {"problem_id": (str, int), "model": (str,), "precision": (str,), "sample": (int,), "text": (str,)}
KNOWN: dict[str, tuple[type, ...]] = {
    "n_params": (int,),
    "n_tokens": (int,),
    "token_ids": (list,),
    "prompt_tokens": (int,),
    "mean_logprob": (float, int),
    "finish_reason": (str,),
}
BLOCK_BYTES = 1_000_000
BLOCK_ROWS = 1_000

Block = tuple[str, int, list[bytes] | list[dict[str, Any]]]
# model, precision, problem_id, sample, state, answer, correct, finish_reason, n_tokens, prompt_tokens, mean_logprob
Row = tuple[str, str, str, int, int, str | None, bool, str | None, int | None, int | None, float | None]


def read_golds(path: Path, name: str) -> dict[str, str]:
    """Gold answers in a grader's canonical form, by problem_id.

    Raises
    ------
    InputError
        For a file that is not GSM8K's JSONL form, or a gold answer that the grader can make nothing of.
    """
    from flopstat.problems import read_jsonl

    golds = {row["problem_id"]: gold_of(name, row["answer"], f"{path}: problem {row['problem_id']}") for row in read_jsonl(path)}
    for problem in golds:
        if not problem.isprintable():
            raise InputError(f"{path}: problem_id {problem[:60]!r} holds a character that can't be printed; rename it")
    if not golds:
        raise InputError(f"{path}: holds no problems; one JSON object a line with question and answer is wanted")
    return golds


def _blocks(path: Path) -> Iterator[Block]:
    """The samples file in blocks, each with the number of its first line or row."""
    if path.suffix == ".parquet":
        yield from _parquet_blocks(path)
        return
    if path.suffix != ".jsonl":
        raise InputError(f"{path}: not .jsonl or .parquet; convert it, or see `flopstat import`")
    try:
        with path.open("rb") as file:
            first = 1
            while lines := file.readlines(BLOCK_BYTES):
                yield str(path), first, lines
                first += len(lines)
    except OSError as error:
        raise InputError(f"{path}: not readable ({error.strerror}); give a file of samples") from None


def _parquet_blocks(path: Path) -> Iterator[Block]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        missing = [name for name in NEEDED if name not in file.schema_arrow.names]
        if missing:
            raise InputError(f"{path}: lacks the column {missing[0]}; samples need {', '.join(NEEDED)}")
        columns = [name for name in file.schema_arrow.names if name in NEEDED or (name in KNOWN and name != "token_ids")]
        first = 1
        for batch in file.iter_batches(BLOCK_ROWS, columns=columns):
            yield str(path), first, batch.to_pylist()
            first += batch.num_rows
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as parquet ({str(error).splitlines()[0]}); give a file of samples") from None


def _checked(row: Any, strict: bool) -> dict[str, Any]:
    """A sample whose fields have their types; unknown ones are refused in JSONL. Null stands for a known field that is absent.

    Raises
    ------
    ValueError
        Saying what is wrong with it.
    """
    if not isinstance(row, dict):
        raise ValueError("not a JSON object; one sample a line is wanted")
    for name, types in NEEDED.items():
        if type(row.get(name)) not in types:
            found = "missing" if row.get(name) is None else f"{str(row[name])[:40]!r} is no {types[0].__name__}"
            raise ValueError(f"{name} {found}; samples need {', '.join(NEEDED)}")
    if strict and "n_params" not in row:
        raise ValueError("n_params missing; give the number of parameters, or null if it is unknown")
    if not strict:  # a table holds whole numbers with gaps as floats
        row = {k: _whole(v) if int in KNOWN.get(k, ()) else v for k, v in row.items()}
    for name, value in row.items():
        if name in NEEDED or value is None:
            continue
        if name not in KNOWN:
            raise ValueError(f"unknown field {name[:40]!r}; known are {', '.join([*NEEDED, *KNOWN])}")
        if type(value) not in KNOWN[name] or (type(value) is float and not math.isfinite(value)):
            raise ValueError(f"{name} {str(value)[:40]!r} is no {KNOWN[name][0].__name__}; correct it or leave it out")
        if type(value) is int and value < 0:
            raise ValueError(f"{name} {value} is negative; correct it or leave it out")
    if not (row["model"].isprintable() and row["precision"].isprintable()):
        raise ValueError("model or precision holds a character that can't be printed; rename it")
    if row["sample"] < -1:
        raise ValueError(f"sample {row['sample']}; samples are numbered from 0, and -1 is greedy")
    return row


def _whole(value: Any) -> Any:
    if isinstance(value, float):
        return None if math.isnan(value) else int(value) if value.is_integer() and value >= 0 else value
    return value


_golds: dict[str, str] = {}
_name = "gsm8k"


def _start(problems: Path, name: str) -> None:
    """Give a process the gold answers and its grader.

    Each reads the problems itself: what is sent to a starting process must fit into a pipe, or its death would never be noticed.
    """
    global _golds, _name
    _golds, _name = read_golds(problems, name), name


def _grade_block(block: Block) -> list[Row]:
    path, first, lines = block
    out: list[Row] = []
    for number, line in enumerate(lines, first):
        if isinstance(line, bytes) and not line.strip():
            continue
        try:
            row = _checked(json.loads(line) if isinstance(line, bytes) else line, isinstance(line, bytes))
            out.append(_grade_row(row))
        except json.JSONDecodeError as error:
            raise InputError(f"{path}:{number}: not JSON ({error}); one object a line is wanted") from None
        except RecursionError:
            raise InputError(f"{path}:{number}: not JSON (nested too deep); one object a line is wanted") from None
        except UnicodeDecodeError as error:
            raise InputError(f"{path}:{number}: not UTF-8 ({error.reason} at byte {error.start}); write the file as UTF-8") from None
        except ValueError as error:
            raise InputError(f"{path}:{number}: {error}") from None
    return out


def _grade_row(row: dict[str, Any]) -> Row:
    problem = str(row["problem_id"])
    gold = _golds.get(problem)
    if gold is None:
        raise ValueError(f"problem_id {problem[:60]!r} is not in the problems file; grade with the problems that were asked")
    finish = row.get("finish_reason")
    answer: str | None
    ending = ENDINGS.get(finish, finish) if finish is not None else None
    if ending == "engine_error":
        state, answer, correct = "engine_error", None, False
    else:
        # ASSUME a sample whose finish reason is unknown ended by itself
        state, answer, correct = GRADERS[_name].grade(row["text"], ending != "length", gold)
    if answer is not None and not answer.isascii():
        answer = answer.encode("utf-8", "backslashreplace").decode()  # a lone surrogate can't be written
    tokens = row.get("n_tokens")
    if tokens is None and row.get("token_ids") is not None:
        tokens = len(row["token_ids"])
    return (
        *(row["model"], row["precision"], problem, row["sample"], STATES.index(state), answer, correct),
        *(finish, tokens, row.get("prompt_tokens"), row.get("mean_logprob")),
    )


def _graded(path: Path, problems: Path, name: str, jobs: int) -> Iterator[list[Row]]:
    """Blocks of graded samples in the file's order; at most four blocks a process are held."""
    if jobs == 1:
        _start(problems, name)
        yield from map(_grade_block, _blocks(path))
        return
    waiting: deque[Future[list[Row]]] = deque()
    with ProcessPoolExecutor(jobs, get_context("spawn"), _start, (problems, name)) as pool:
        try:
            for block in _blocks(path):
                waiting.append(pool.submit(_grade_block, block))
                if len(waiting) >= 4 * jobs:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise InputError(f"{path}: a grading process died, out of memory perhaps; try --jobs 1") from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def grade_file(problems: Path, samples: Path, name: str, out: Path, jobs: int) -> list[str]:
    """Grade a file of samples and write G.csv (or .parquet); returns the lines to print.

    Parameters
    ----------
    problems : Path
        JSONL in GSM8K's form.
    samples : Path
        Strict JSONL, or parquet with the same columns and any others, which are passed over.
    name : str
        The grader.
    out : Path
        Ends in .csv or .parquet.
    jobs : int
        Processes.

    Raises
    ------
    InputError
        For anything wrong in the files; nothing is written then.
    """
    if out.suffix not in (".csv", ".parquet"):
        raise InputError(f"--out {out}: not .csv or .parquet; choose one of them")
    chosen = grader(name)
    golds = read_golds(problems, name)
    texts = {key: Codes() for key in ("model", "precision", "problem_id", "answer", "finish_reason")}
    names = (
        "model",
        "precision",
        "problem_id",
        "sample",
        "state",
        "answer",
        "correct",
        "finish_reason",
        "n_tokens",
        "prompt_tokens",
        "mean_logprob",
    )
    dtypes: dict[str, type] = {"sample": np.int32, "state": np.int8, "correct": np.bool_}
    parts: dict[str, list[NDArray[Any]]] = {key: [] for key in names}
    for rows in _graded(samples, problems, name, jobs):
        if not rows:
            continue
        for key, values in zip(names, zip(*rows, strict=True), strict=True):
            parts[key].append(texts[key](values) if key in texts else np.array(values, dtype=dtypes.get(key, np.float64)))
    if not parts["sample"]:
        raise InputError(f"{samples}: holds no samples; one JSON object a line with {', '.join(NEEDED)} is wanted")
    columns = {key: np.concatenate(values) for key, values in parts.items()}
    graded = Graded(columns, {key: list(codes.of) for key, codes in texts.items()}, str(samples))
    graded.check_complete(golds)
    graded.write(out)
    flag = ", another tool's verdict that ignores whether a chain was cut" if chosen.foreign else ""
    return [f"{out}: {len(columns['sample'])} samples by {name} version {chosen.version}{flag}", *graded.lines(golds)]
