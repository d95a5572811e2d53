"""The Sample form itself: JSONL, CSV and parquet. Fields that it does not name are dropped, those it needs are problem_id and text."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flopstat.errors import InputError
from flopstat.importers.logs import parquet_rows
from flopstat.importers.reading import MAX_LINE, Account, Item, gold_answer, identifier, json_lines, need, parse_json

INTEGERS = ("n_params", "sample", "n_tokens", "prompt_tokens", "T")
FIELDS = ("problem_id", "model", "precision", "text", "finish_reason", "mean_logprob", "token_ids", *INTEGERS)
PROBLEM = ("question", "gold")
NEEDED = "the Sample form needs problem_id and text"


def _item(record: Mapping[str, Any], where: str, account: Account) -> Item:
    problem_id = identifier(need(record, "problem_id", (str, int), where, NEEDED), where)
    need(record, "text", str, where, NEEDED)
    account.drop(record, (*FIELDS, *PROBLEM))
    row = {name: value for name in FIELDS if (value := record.get(name)) is not None}
    question, gold = record.get("question"), record.get("gold")
    problem = None
    if isinstance(question, str) and isinstance(gold, str | int) and not isinstance(gold, bool):
        problem = {"problem_id": problem_id, "question": question, "answer": gold_answer(str(gold))}
    return Item(where, [row | {"problem_id": problem_id}], problem)


def read_jsonl(path: Path, account: Account) -> Iterator[Item]:
    """A sample a line."""
    for where, record in json_lines(path):
        yield _item(record, where, account)


def read_parquet(path: Path, account: Account) -> Iterator[Item]:
    """A sample a row."""
    for where, record in parquet_rows(path):
        yield _item(record, where, account)


def read_csv(path: Path, account: Account) -> Iterator[Item]:
    """A sample a row; an empty cell is unknown, an empty text is a text. `token_ids` is a JSON list."""
    old = csv.field_size_limit(MAX_LINE)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            missing = [name for name in ("problem_id", "text") if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f"{path}:1: lacks the column {missing[0]}; {NEEDED}")
            for cells in reader:
                where = f"{path}:{reader.line_num}"
                if None in cells or None in cells.values():
                    raise InputError(f"{where}: more or fewer cells than the header has; quote texts that hold commas or line breaks")
                yield _item(_typed(cells, where), where, account)
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as CSV in UTF-8 ({str(error)[:100]}); export it again") from None
    finally:
        csv.field_size_limit(old)


def _typed(cells: dict[str, str], where: str) -> dict[str, Any]:
    """Cells as values of their types; the writer checks the ranges."""
    row: dict[str, Any] = {name: cell for name, cell in cells.items() if cell or name == "text"}
    for name in INTEGERS:
        if name in row:
            row[name] = _whole(row[name], where, name)
    if "mean_logprob" in row:
        try:
            row["mean_logprob"] = float(row["mean_logprob"])
        except ValueError:
            raise InputError(f"{where}: mean_logprob is {row['mean_logprob'][:50]!r}; write a number or leave it empty") from None
    if "token_ids" in row:
        row["token_ids"] = parse_json(row["token_ids"], f"{where}, token_ids")
    return row


def _whole(cell: str, where: str, name: str) -> int | float:
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        value = None
    if type(value) not in (int, float):
        raise InputError(f"{where}: {name} is {cell[:50]!r}; write a whole number or leave it empty")
    return value
