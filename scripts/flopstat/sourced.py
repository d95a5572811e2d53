"""Numbers with sources: each is an operation over named cells of a study's files, so that anyone can work it out again.

A cell is a file, a row and a column. The row is given by the values of some of its columns; `column ~` asks for a part of the text and
`data row` for its number. Several rows may answer, where the operation counts or adds them. A JSON file is a table of `key`
(the path, joined by dots) and `value`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from flopstat.errors import InputError
from flopstat.latex import escape, number

KEYS = {  # columns that name a row; in other tables its number does
    "calibration.csv": ("arm", "phase", "batch", "context", "metric"),
    "configurations.csv": ("arm", "T", "P", "B", "strategy", "split"),
    "cost_per_correct.csv": ("arm", "T"),
    "crossovers.csv": ("cost", "small", "large", "kind"),
    "exponents.csv": ("law", "exponent", "source"),
    "frontier.csv": ("cost", "arm", "T", "P", "B", "strategy"),
    "latency_by_streams.csv": ("arm", "T", "metric", "P"),
    "law_sensitivity.csv": ("law", "arm", "T", "parameter", "variant"),
    "laws.csv": ("law", "arm", "T", "parameter"),
    "paper/assumptions.csv": ("file", "line"),
    "paper/settings.csv": ("key",),
    "plan_actual.csv": ("arm", "quantity"),
    "refusals.csv": ("reason",),
    "surface_gradients.csv": ("type", "N", "T", "P", "B", "q", "axis"),
    "variance_ratio.csv": ("arm_a", "arm_b", "T"),
    "weight_bits.csv": ("arm", "T"),
}


@dataclass(frozen=True)
class Cell:
    """Where a value stands; column "" asks for rows only."""

    file: str
    row: tuple[tuple[str, str], ...]
    column: str

    @property
    def row_text(self) -> str:
        return json.dumps(dict(self.row), ensure_ascii=False)


@dataclass(frozen=True)
class Row:
    """One row of a file, its values as they are written there."""

    file: str
    key: tuple[tuple[str, str], ...]
    values: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.values[column]

    def value(self, column: str) -> float:
        """The number in a column, NaN where it is missing."""
        return to_float(self.values[column])

    def cell(self, column: str) -> Cell:
        return Cell(self.file, self.key, column)


def to_float(text: str) -> float:
    return float(text) if text else math.nan


def _only(cells: list[list[str]]) -> str:
    """The value of the one cell that an operation stands on."""
    if len(cells) != 1 or len(cells[0]) != 1:
        raise ValueError(f"one cell is wanted, found {[len(c) for c in cells]}")
    return cells[0][0]


def _of_number(show: Callable[[float], str]) -> Callable[[list[list[str]]], str]:
    def text(cells: list[list[str]]) -> str:
        value = to_float(_only(cells))
        shown = show(value) if math.isfinite(value) else "--"
        if not shown.startswith("-") or shown == "--":
            return shown
        return f"$-${shown[1:]}" if shown.strip("-0.") else shown[1:]  # no sign before a zero

    return text


def _total(values: Iterable[str]) -> float:
    return sum(to_float(v) for v in values)


# How cells become the text that is printed. Names stand in numbers.csv.
OPERATIONS: dict[str, Callable[[list[list[str]]], str]] = {
    "text": lambda cells: escape(_only(cells)),
    "integer": _of_number(lambda v: f"{v:.0f}"),
    "significant, 3 digits": _of_number(number),
    "general": _of_number(lambda v: f"{v:g}"),
    "2 decimals": _of_number(lambda v: f"{v:.2f}"),
    "times 100, 1 decimal": _of_number(lambda v: f"{100 * v:.1f}"),
    "times 100, 2 decimals": _of_number(lambda v: f"{100 * v:.2f}"),
    "times 100, whole": _of_number(lambda v: f"{100 * v:.0f}"),
    "times 100 ln 2, 2 decimals": _of_number(lambda v: f"{100 * math.log(2) * v:.2f}"),
    "times 1000, significant, 3 digits": _of_number(lambda v: number(1000 * v)),
    "number of rows": lambda cells: str(len(cells[0])),
    "number of distinct values": lambda cells: str(len(set(cells[0]))),
    "number below 1": lambda cells: str(sum(to_float(v) < 1 for v in cells[0])),
    "sum": lambda cells: f"{_total(cells[0]):.0f}",
    "first less the others": lambda cells: f"{_total(cells[0]) - _total(v for c in cells[1:] for v in c):.0f}",
    "100 times sum over sum, 1 decimal": lambda cells: f"{100 * _total(cells[0]) / _total(cells[1]):.1f}",
}


def _strings(path: Path) -> pd.DataFrame:
    """A file as a table of the texts that stand in it."""
    if path.suffix == ".parquet":
        return pd.read_parquet(path).astype(str)
    if path.suffix == ".json":
        flat = dict(_flat(json.loads(path.read_text(encoding="utf-8")), ""))
        return pd.DataFrame({"key": list(flat), "value": list(flat.values())}, dtype=str)
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def _flat(value: Any, where: str) -> Iterable[tuple[str, str]]:
    children: Iterable[tuple[Any, Any]] | None = None
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list):
        children = enumerate(value)
    if children is None:
        yield where, "" if value is None else value if isinstance(value, str) else json.dumps(value)
        return
    for key, child in children:
        yield from _flat(child, f"{where}.{key}" if where else str(key))


class Sources:
    """The files below a study's folder that its paper may quote."""

    def __init__(self, folder: Path, files: Iterable[str]) -> None:
        self.folder = folder
        self.files = frozenset(files)
        self._tables: dict[str, pd.DataFrame] = {}
        self._records: dict[str, list[dict[str, str]]] = {}
        self._index: dict[tuple[str, tuple[str, ...]], dict[tuple[str, ...], list[int]]] = {}

    def table(self, file: str) -> pd.DataFrame:
        if file not in self.files:
            raise InputError(f"{file}: not among the files that the paper is made of")
        if file not in self._tables:
            try:
                self._tables[file] = _strings(self.folder / file)
            except (OSError, ValueError) as error:
                raise InputError(f"{self.folder / file}: can't be read ({error}); make it again") from None
        return self._tables[file]

    def rows(self, file: str, **where: str) -> list[Row]:
        """Rows whose columns hold these texts, in the file's order."""
        table = self.table(file)
        keys = [key for key in KEYS.get(file, ("key",) if file.endswith(".json") else ()) if key in table]
        if file not in self._records:
            self._records[file] = [{str(k): str(v) for k, v in record.items()} for record in table.to_dict("records")]
        out = []
        for i in self._matching(file, tuple(where.items())):
            values = self._records[file][i]
            key = tuple((k, values[k]) for k in keys)
            if not key or len(self._matching(file, key)) != 1:
                key = (*key, ("data row", str(i + 1)))
            out.append(Row(file, key, values))
        return out

    def one(self, file: str, **where: str) -> Row:
        found = self.rows(file, **where)
        if len(found) != 1:
            raise InputError(f"{file}: {len(found)} rows with {where}, one is wanted; make it again")
        return found[0]

    def _matching(self, file: str, row: tuple[tuple[str, str], ...]) -> list[int]:
        """Positions of the rows that a selector names."""
        table = self.table(file)
        exact = tuple(key for key, _ in row if key != "data row" and not key.endswith(" ~"))
        if (file, exact) not in self._index:
            columns = [table[key].tolist() for key in exact]
            index: dict[tuple[str, ...], list[int]] = {}
            for i in range(len(table)):
                index.setdefault(tuple(c[i] for c in columns), []).append(i)
            self._index[file, exact] = index
        wanted = tuple(value for key, value in row if key in exact)
        found = self._index[file, exact].get(wanted, [])
        for key, value in row:
            if key == "data row":
                found = [i for i in found if i == int(value) - 1]
            elif key.endswith(" ~"):
                texts = table[key.removesuffix(" ~")]
                found = [i for i in found if value in texts.iloc[i]]
        return found

    def select(self, cell: Cell) -> list[str]:
        """The texts of a cell's column in all rows that it names; of column "", one empty text for each."""
        found = self._matching(cell.file, cell.row)
        if not cell.column:
            return [""] * len(found)
        column = self.table(cell.file)[cell.column]
        return [column.iloc[i] for i in found]


@dataclass(frozen=True)
class Number:
    """A printed number: its name, how it follows from which cells, and the text."""

    name: str
    operation: str
    cells: tuple[Cell, ...]
    text: str


class Ledger:
    """All numbers that were shown so far, in order."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self.numbers: dict[str, Number] = {}
        self._known: dict[tuple[str, tuple[Cell, ...]], str] = {}
        self._counts: dict[str, int] = {}

    def show(self, operation: str, *cells: Cell, name: str = "") -> str:
        r"""Enter a number and return the LaTeX that prints it, \FS{name}; without a name one is made from the file's."""
        known = self._known.get((operation, cells))
        if known is not None and not name:
            return rf"\FS{{{known}}}"
        if not name:
            stem = Path(cells[0].file).stem.partition("@")[0]
            self._counts[stem] = self._counts.get(stem, 0) + 1
            name = f"{stem}.{self._counts[stem]}"
        text = OPERATIONS[operation]([self.sources.select(cell) for cell in cells])
        self.numbers[name] = Number(name, operation, cells, text)
        self._known.setdefault((operation, cells), name)
        return rf"\FS{{{name}}}"

    def table(self) -> pd.DataFrame:
        """Rows of paper/numbers.csv: one for each cell of each number."""
        rows = []
        for n in self.numbers.values():
            for cell in n.cells:
                values = self.sources.select(cell)
                value = values[0] if len(values) == 1 and cell.column else f"{len(values)} rows"
                rows.append((n.name, n.text, n.operation, cell.file, cell.row_text, cell.column, value))
        return pd.DataFrame(rows, columns=["number", "shown", "operation", "file", "row", "column", "value"])
