"""Any sample log to one parquet file in the Sample form, and the problems beside it: `flopstat import`.

Each kind is a generator of `Item`s, one per problem or line of the log, so that a log of any length streams through. `reading` holds the
limits that hostile files meet. Nothing in a log is evaluated, and no name in it becomes a path.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flopstat.columns import TABLES
from flopstat.engine import ENDINGS
from flopstat.errors import InputError
from flopstat.importers.logs import read_inspect, read_lighteval, read_lm_eval
from flopstat.importers.plain import read_csv, read_jsonl, read_parquet
from flopstat.importers.pools import read_kinetics, read_monkeys, read_solutions
from flopstat.importers.reading import MAX_TEXT, Account, Item, encodable, existing, identifier, integer, json_lines, label, need, number

KINDS: dict[str, tuple[Callable[[Path, Account], Iterator[Item]], str]] = {
    "lm-eval": (read_lm_eval, "samples_<task>_<date>.jsonl of lm-evaluation-harness, or its folder"),
    "inspect": (read_inspect, "an .eval or .json log of inspect_ai"),
    "lighteval": (read_lighteval, "details_<task>_<date>.parquet of lighteval"),
    "monkeys": (read_monkeys, "a YAML file of Large Language Monkeys, or a folder of them"),
    "kinetics": (read_kinetics, "a results JSONL of Kinetics"),
    "gsm8k-solutions": (read_solutions, "GSM8K's example_model_solutions.jsonl"),
    "jsonl": (read_jsonl, "JSONL in the Sample form"),
    "csv": (read_csv, "CSV in the Sample form"),
    "parquet": (read_parquet, "parquet in the Sample form, such as `flopstat import` writes"),
}
FOLDERS = ("lm-eval", "monkeys")  # kinds whose log may be a folder
BATCH_CHARACTERS = 1 << 26  # of text that is held before it is written
BATCH_ROWS = 50_000
_ARROW = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}
SCHEMA = pa.schema([(name, _ARROW[c.dtype]) for name, c in TABLES["imported"].items()] + [("token_ids", pa.list_(pa.int64()))])


@dataclass(frozen=True)
class Declared:
    """What the caller knows and the log need not hold; it fills gaps and never overrides the log."""

    model: str | None = None
    n_params: int | None = None
    precision: str | None = None


@dataclass(frozen=True)
class Imported:
    """What an import did."""

    n_samples: int
    n_problems: int
    n_gold: int
    models: tuple[str, ...]
    unknown: dict[str, int]  # fields that are null, with the number of samples
    dropped: dict[str, int]  # fields of the log that were left out, with counts
    notes: dict[str, int]

    def described(self) -> str:
        """The account in a few lines."""
        lines = [f"{self.n_samples} samples of {self.n_problems} problems by {', '.join(self.models)}; gold answers of {self.n_gold}"]
        for title, counts in (("unknown (null)", self.unknown), ("dropped", self.dropped), ("note", self.notes)):
            if counts:
                lines.append(f"{title}: " + ", ".join(f"{name} ({n})" for name, n in counts.items()))
        return "\n".join(lines)


def items(kind: str, path: Path, account: Account) -> Iterator[Item]:
    """Parts of a log of a known kind.

    Raises
    ------
    InputError
        For an unknown kind, a missing file, or a log that lacks a needed field.
    """
    if kind not in KINDS:
        raise InputError(f"import kind {kind!r}: unknown; choose one of {', '.join(KINDS)}")
    reader, what = KINDS[kind]
    if existing(path, what).is_dir() and kind not in FOLDERS:
        raise InputError(f"{path}: a folder; give {what}")
    yield from reader(path, account)


def read_problems(kind: str, path: Path) -> list[dict[str, str]]:
    """The problems that a log holds: problem_id, question and answer ending in `#### x`.

    Raises
    ------
    InputError
        If the log holds none.
    """
    found = {item.problem["problem_id"]: item.problem for item in items(kind, path, Account()) if item.problem is not None}
    beside = problems_beside(path)
    if not found and kind == "parquet" and beside.is_file():
        for where, record in json_lines(beside):
            problem = {key: need(record, key, str, where, "import the log again") for key in ("problem_id", "question", "answer")}
            found[problem["problem_id"]] = problem
    if not found:
        raise InputError(f"{path}: holds no questions with gold answers; give the problems as a file of their own")
    return [{name: encodable(value) for name, value in p.items()} for p in found.values()]


def problems_beside(path: Path) -> Path:
    """Where the problems of an imported file lie: S.problems.jsonl for S.parquet."""
    return path.with_suffix(".problems.jsonl")


def import_samples(kind: str, path: Path, out: Path, declared: Declared | None = None, only: str | None = None) -> Imported:
    """Read a log and write `out`, a parquet file in the Sample form, and the problems beside it as JSONL where the log holds them.

    Unknown values are null. Samples without a number are numbered by problem, in the order of the log. Both files appear whole or not at
    all.

    Parameters
    ----------
    kind : str
        One of KINDS.
    declared : Declared, optional
        Model, parameters and precision where the log does not say; the model's last resort is the file's name.
    only : str, optional
        Keep this model's samples only.

    Raises
    ------
    InputError
        For a broken log, a missing field that is needed, a sample that stands twice, or nothing to import.
    """
    declared = declared or Declared()
    account = Account()
    writer = _Writer(out, path, declared, account, only)
    try:
        for item in items(kind, path, account):
            writer.add(item)
        return writer.finish()
    finally:
        writer.clean()


class _Writer:
    """Rows to parquet in batches, with the checks that hold for every kind."""

    def __init__(self, out: Path, path: Path, declared: Declared, account: Account, only: str | None) -> None:
        if out.suffix != ".parquet":
            raise InputError(f"--out {out}: a name that ends in .parquet is wanted")
        self.out, self.path, self.declared, self.account, self.only = out, path, declared, account, only
        out.parent.mkdir(parents=True, exist_ok=True)
        self.temporary = out.with_name(f".{out.name}.tmp")
        self.parquet: pq.ParquetWriter | None = None  # opened for the first rows: of a refused log nothing is written
        self.batch: list[dict[str, Any]] = []
        self.characters = self.written = 0
        self.seen: set[tuple[str, str, str | None, int]] = set()
        self.next: dict[tuple[str, str, str | None], int] = {}
        self.filled: dict[str, int] = dict.fromkeys(SCHEMA.names, 0)
        self.problems: dict[str, dict[str, str]] = {}
        self.ids: set[str] = set()
        self.models: dict[str, None] = {}

    def add(self, item: Item) -> None:
        kept = False
        for raw in item.rows:
            row = self.checked(raw, item.where)
            if row is None:
                continue
            kept = True
            self.batch.append(row)
            self.characters += len(row["text"])
            for name, value in row.items():
                self.filled[name] += value is not None
            if len(self.batch) >= BATCH_ROWS or self.characters >= BATCH_CHARACTERS:
                self.flush()
        if item.problem is not None and (kept or not item.rows):
            self.problems.setdefault(item.problem["problem_id"], {k: self.encodable(v) for k, v in item.problem.items()})

    def checked(self, raw: dict[str, Any], where: str) -> dict[str, Any] | None:
        """One row with every field of the form, or None if it is not asked for."""
        text = raw["text"]
        if len(text) > MAX_TEXT:
            raise InputError(f"{where}: a text of {len(text)} characters, more than {MAX_TEXT}; cut it or leave the sample out")
        problem_id = self.encodable(identifier(raw["problem_id"], where))
        model = self.encodable(label(raw.get("model") or self.declared.model or self.path.stem, where, "model"))
        precision = raw.get("precision") or self.declared.precision
        if precision is not None:
            precision = self.encodable(label(precision, where, "precision"))
        if self.only is not None and model != self.only:
            self.models.setdefault(model)
            return None
        n_params = integer(raw.get("n_params"), where, "n_params")
        key = problem_id, model, precision
        sample = raw.get("sample")
        if sample is None:
            sample = self.next.get(key, 0)
            self.next[key] = sample + 1
        elif sample != -1:  # the greedy chain
            sample = integer(sample, where, "sample")
            if sample is None:
                raise InputError(f"{where}: sample is not a number; number the samples of each problem from 0")
        if (*key, sample) in self.seen:
            raise InputError(f"{where}: sample {sample} of problem {problem_id[:50]!r} by {model[:50]} stands twice; number them from 0")
        self.seen.add((*key, sample))
        self.ids.add(problem_id)
        self.models.setdefault(model)
        finish = raw.get("finish_reason")
        return {
            "problem_id": problem_id,
            "model": model,
            "n_params": self.declared.n_params if n_params is None else n_params,
            "precision": precision,
            "sample": sample,
            "text": self.encodable(text),
            "n_tokens": integer(raw.get("n_tokens"), where, "n_tokens"),
            "prompt_tokens": integer(raw.get("prompt_tokens"), where, "prompt_tokens"),
            "mean_logprob": number(raw.get("mean_logprob"), where, "mean_logprob"),
            "finish_reason": None if finish is None else self.finish_reason(label(finish, where, "finish_reason")),
            "T": integer(raw.get("T"), where, "T"),
            "token_ids": self.token_ids(raw.get("token_ids"), where),
        }

    def finish_reason(self, word: str) -> str:
        return ENDINGS.get(word, self.encodable(word))

    def token_ids(self, value: Any, where: str) -> list[int] | None:
        if value is None:
            return None
        if not isinstance(value, list) or not all(type(i) is int and 0 <= i <= 1 << 31 for i in value):
            raise InputError(f"{where}: token_ids is no list of whole numbers from 0 on; correct it or leave it out")
        return value

    def encodable(self, text: str) -> str:
        """Text that a file can hold; what was replaced is noted."""
        held = encodable(text)
        if held != text:
            self.account.notes["texts with lone surrogates, replaced by U+FFFD"] += 1
        return held

    def flush(self) -> None:
        if self.parquet is None:
            self.parquet = pq.ParquetWriter(self.temporary, SCHEMA)
        self.parquet.write_table(pa.Table.from_pylist(self.batch, schema=SCHEMA))
        self.written += len(self.batch)
        self.batch, self.characters = [], 0

    def finish(self) -> Imported:
        if self.batch:
            self.flush()
        if self.parquet is None:
            there = f"; its models are {', '.join(list(self.models)[:10])}" if self.only is not None and self.models else ""
            raise InputError(f"{self.path}: holds no samples{f' of {self.only}' if self.only else ''}{there}; give another log")
        self.parquet.close()
        models = (self.only,) if self.only is not None else tuple(self.models)
        beside = problems_beside(self.out)
        if self.problems:
            temporary = beside.with_name(f".{beside.name}.tmp")
            lines = (json.dumps(problem, ensure_ascii=False) + "\n" for problem in self.problems.values())
            with temporary.open("w", encoding="utf-8", newline="\n") as stream:
                stream.writelines(lines)
            os.replace(temporary, beside)
        else:
            beside.unlink(missing_ok=True)  # of an earlier import under this name
        os.replace(self.temporary, self.out)
        unknown = {name: self.written - n for name, n in self.filled.items() if n < self.written}
        account = self.account
        return Imported(
            self.written, len(self.ids), len(self.problems), models, unknown, dict(account.dropped.most_common()), dict(account.notes)
        )

    def clean(self) -> None:
        if self.parquet is not None:
            self.parquet.close()
        self.temporary.unlink(missing_ok=True)
