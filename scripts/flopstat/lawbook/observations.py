"""Observations to fit a law to: read from a table by --map, checked, hashed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from flopstat.errors import InputError
from flopstat.lawbook.catalogue import Law
from flopstat.lawbook.formula import evaluate, parse

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Observations:
    """Data of one fit.

    Attributes
    ----------
    variables : name to (n,) values in the law's units
    y : (n,) response
    trials : (n,) numbers of trials behind a share, or None; the likelihoods need them
    """

    variables: dict[str, Floats]
    y: Floats
    trials: Floats | None = None

    def __len__(self) -> int:
        return len(self.y)

    def rows(self, chosen: NDArray[np.intp] | NDArray[np.bool_]) -> Observations:
        """Some of the observations."""
        trials = None if self.trials is None else self.trials[chosen]
        return Observations({name: x[chosen] for name, x in self.variables.items()}, self.y[chosen], trials)

    @property
    def hash(self) -> str:
        """sha256 over names and float64 values."""
        digest = hashlib.sha256()
        parts = {**self.variables, "y": self.y} | ({} if self.trials is None else {"trials": self.trials})
        for name in sorted(parts):
            digest.update(name.encode() + b"\0" + np.ascontiguousarray(parts[name], dtype="<f8").tobytes())
        return digest.hexdigest()


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"--data {path}: no such file")
    try:
        return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (ValueError, OSError) as error:  # pandas' parser errors are ValueErrors
        raise InputError(f"--data {path}: not a table ({' '.join(str(error).split())[:160]})") from None


def parse_map(pairs: Sequence[str], wanted: Sequence[str]) -> dict[str, str]:
    """VAR=ARITHMETIC pairs as a mapping; every name in `wanted` must come once."""
    out: dict[str, str] = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not sign or not text.strip():
            raise InputError(f"--map {pair!r}: write VAR=COLUMN_OR_ARITHMETIC")
        if name.strip() not in (*wanted, "trials"):
            raise InputError(f"--map {pair!r}: the law has no {name.strip()!r}; it has {', '.join(wanted)}, and trials for likelihoods")
        if name.strip() in out:
            raise InputError(f"--map {pair!r}: {name.strip()} stands twice; drop one")
        out[name.strip()] = text.strip()
    return out


def _column(table: pd.DataFrame, text: str, where: str) -> Floats:
    """One arithmetic expression over columns; only columns that it names have to be numbers."""
    tree = parse(text, [str(c) for c in table.columns], where)
    values: dict[str, Floats] = {}
    for name in table.columns:
        numbers = pd.to_numeric(table[name], errors="coerce")
        values[str(name)] = numbers.to_numpy(dtype=np.float64)
    return np.broadcast_to(np.asarray(evaluate(tree, values), dtype=np.float64), (len(table),)).copy()


def read(path: Path, law: Law, mapping: Sequence[str], drop_highest: str | None = None) -> Observations:
    """Observations of a law from a .csv or .parquet file.

    Parameters
    ----------
    mapping : VAR=ARITHMETIC pairs over column names (which may hold blanks); a name that is also a column needs none
    drop_highest : COLUMN:n leaves out the n rows with the highest value, as published fits do

    Raises
    ------
    InputError
        For a file or column that is not there, arithmetic that does not parse, or values that are not finite numbers.
    """
    table = _read(path)
    wanted = [*law.variable_names, law.response.name]
    given = parse_map(mapping, wanted)
    columns = [str(c) for c in table.columns]
    if missing := [name for name in wanted if name not in given and name not in columns]:
        raise InputError(
            f"--map: {', '.join(missing)} of law {law.id} is not given and no column of {path}; columns are {', '.join(columns)}"
        )
    if drop_highest is not None:
        column, sign, count = drop_highest.rpartition(":")
        if not sign or column not in columns or not re.fullmatch("[0-9]{1,9}", count):
            raise InputError(f"--drop-highest {drop_highest!r}: write COLUMN:n with a column of {path} and a whole number")
        keep = np.argsort(_column(table, column, "--drop-highest"), kind="stable")[: max(0, len(table) - int(count))]
        table = table.iloc[np.sort(keep)]
    values = {name: _column(table, given.get(name, name), f"--map {name}") for name in wanted}
    trials = _column(table, given["trials"], "--map trials") if "trials" in given else None
    return Observations({n: values[n] for n in law.variable_names}, values[law.response.name], trials)


def check(law: Law, data: Observations, objective: str, inputs: Sequence[str], free: int, keep_duplicates: bool = False) -> None:
    """Refuse what can't be fitted, with one line that says what and what to do.

    Parameters
    ----------
    inputs : variables that matter once held parameters are put in
    free : number of parameters to fit
    """
    named = {name: data.variables[name] for name in law.variable_names if name in inputs} | {law.response.name: data.y}
    for name, values in named.items():
        if (bad := int((~np.isfinite(values)).sum())) > 0:
            raise InputError(f"{name}: {bad} of {len(values)} values are no finite numbers; drop those rows or mend --map")
    if len(data) <= free:
        raise InputError(f"law {law.id}: {len(data)} points for {free} parameters; at least {free + 1} are needed")
    for quantity in law.variables:
        if quantity.name not in inputs:
            continue
        values = data.variables[quantity.name]
        if quantity.positive and (values <= 0).any():
            raise InputError(
                f"{quantity.name}: {int((values <= 0).sum())} values are not above 0, and the law takes its logarithm; drop them"
            )
        if np.ptp(values) == 0:
            raise InputError(
                f"{quantity.name}: is constant ({values[0]:g}), so its parameters can't be told apart; vary it or hold them (--fix)"
            )
    _check_response(law, data, objective)
    if not keep_duplicates:
        rows = np.column_stack([*named.values()] + ([] if data.trials is None else [data.trials]))
        if (twice := len(rows) - len(np.unique(rows, axis=0))) > 0:
            raise InputError(
                f"{law.response.name}: {twice} rows are exact duplicates of others; drop them, or keep them with --keep-duplicates"
            )


def _check_response(law: Law, data: Observations, objective: str) -> None:
    name, y = law.response.name, data.y
    if objective in ("huber-log", "mse-log") and (y <= 0).any():
        raise InputError(
            f"{name}: {int((y <= 0).sum())} values are not above 0, and {objective} takes logarithms; drop them or take --objective mse"
        )
    if objective in ("binomial", "beta-binomial"):
        if data.trials is None:
            raise InputError(f"--objective {objective}: needs the number of trials behind each share; add --map trials=COLUMN")
        if not np.isfinite(data.trials).all() or (data.trials < 1).any():
            raise InputError("trials: every value must be at least 1")
        if (y < 0).any() or (y > 1).any():
            raise InputError(f"{name}: {objective} wants shares between 0 and 1")


def columns_of(values: Mapping[str, object], law: Law) -> tuple[dict[str, Floats], int]:
    """Points at which to predict, as equally long vectors."""
    if missing := [name for name in law.variable_names if name not in values]:
        raise InputError(f"predict: {', '.join(missing)} of law {law.id} is missing")
    arrays = np.broadcast_arrays(*(np.atleast_1d(np.asarray(values[name], dtype=np.float64)) for name in law.variable_names))
    return dict(zip(law.variable_names, arrays, strict=True)), len(arrays[0])
