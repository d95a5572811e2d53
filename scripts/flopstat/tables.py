"""Tables on disk: validated when written and when read, against the columns of `columns.py`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from flopstat import stored
from flopstat.columns import OPEN, TABLES, Column
from flopstat.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

_PANDAS = {"str": pd.StringDtype(na_value=math.nan)} | {
    dtype: pd.api.types.pandas_dtype(name) for dtype, name in (("int", "int64"), ("float", "float64"), ("bool", "bool"))
}
_NULLABLE = _PANDAS | {"int": pd.Int64Dtype()}
_SLACK = 1e-12  # of a range, for rounding


def validate(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Check a table against its columns and give it their dtypes and order.

    Columns that the specification does not name are kept for `samples` and `imported` (arrays per token) and refused elsewhere.

    Raises
    ------
    pandera.errors.SchemaError, pandera.errors.SchemaErrors
        For a missing or unknown column, a wrong type, a missing value or a value out of range.
    """
    fine = _as_specified(table, name)
    return _explained(table, name) if fine is None else fine


def accept(table: pd.DataFrame, name: str, where: str) -> pd.DataFrame:
    """`validate` for a table that came from outside.

    Raises
    ------
    InputError
        Where `validate` refuses it; `where` names its source.
    """
    fine = _as_specified(table, name)
    if fine is not None:
        return fine
    from pandera.errors import SchemaError, SchemaErrors

    try:
        return _explained(table, name)
    except (SchemaError, SchemaErrors) as error:
        raise InputError(f"{where}: not a table of {name} ({' '.join(str(error).split())[:200]}); make it again") from None


def _dtypes(name: str) -> dict[str, Any]:
    return {key: (_NULLABLE if column.nullable else _PANDAS)[column.dtype] for key, column in TABLES[name].items()}


def _as_specified(table: pd.DataFrame, name: str) -> pd.DataFrame | None:
    """The table in the dtypes and order of its columns, None if anything is wrong with it.

    What pandera checks, some ten times faster on a table of few rows; pandera says what is wrong.
    """
    columns = TABLES[name]
    extra = [key for key in table.columns if key not in columns]
    if not table.columns.is_unique or not columns.keys() <= set(table.columns) or (extra and name not in OPEN):
        return None
    parts = {}
    for key, dtype in _dtypes(name).items():
        column, values = columns[key], table[key]
        if column.dtype == "int" and not _whole(values, column):
            return None
        if values.dtype != dtype:
            try:
                values = values.astype(dtype)
            except Exception:  # whatever a value of any type raises: pandera tries the same and says it
                return None
        if not column.nullable and values.hasnans:
            return None
        if column.low is not None and (values < column.low - _SLACK).any():
            return None
        if column.high is not None and (values > column.high + _SLACK).any():
            return None
        parts[key] = values
    return pd.DataFrame(parts | {key: table[key] for key in extra}, index=table.index)


def _whole(values: pd.Series, column: Column) -> bool:
    """Whether numbers that are to become integers are whole; missing ones are as the column says."""
    if not pd.api.types.is_float_dtype(values):
        return True
    if column.nullable:
        values = values.dropna()
    return bool((values == values.round()).all())


def _explained(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """`validate` by pandera, whose errors say which values are wrong."""
    import pandera.pandas as pa

    if not table.columns.is_unique:
        raise pa.errors.SchemaError(None, table, f"{name}: a column stands twice")
    columns = {}
    for key, column in TABLES[name].items():
        if column.dtype == "int" and key in table and not _whole(table[key], column):
            wrong = table[key][table[key] != table[key].round()].iloc[0]
            raise pa.errors.SchemaError(None, table, f"{name}.{key}: whole numbers are wanted, found {wrong}")
        checks = []
        if column.low is not None:
            checks.append(pa.Check.ge(column.low - _SLACK))
        if column.high is not None:
            checks.append(pa.Check.le(column.high + _SLACK))
        columns[key] = pa.Column(_dtypes(name)[key], checks, nullable=column.nullable, coerce=True)
    checked: pd.DataFrame = pa.DataFrameSchema(columns, strict=name not in OPEN).validate(table)
    extra = [c for c in checked.columns if c not in TABLES[name]]
    return checked[[*TABLES[name], *extra]]


def write(table: pd.DataFrame, name: str, path: Path) -> None:
    """Validate and write a table, CSV or parquet by the file's suffix, whole or not at all."""
    checked = validate(table, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    if path.suffix == ".parquet":
        checked.to_parquet(temporary, index=False)
    else:
        checked.to_csv(temporary, index=False, float_format="%.10g", lineterminator="\n")
    stored.place(temporary, path)


def read(name: str, path: Path) -> pd.DataFrame:
    """Read and validate a table.

    Raises
    ------
    InputError
        If the file is missing, damaged, no table, or one that `validate` refuses.
    """
    import pyarrow.parquet as pq

    stored.check(path)
    strings = {k: "string" for k, c in TABLES[name].items() if c.dtype == "str"}
    try:
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as file:  # as pd.read_parquet does it, which looks for folders of files first
                table = file.read().to_pandas()
        else:
            table = pd.read_csv(path, dtype=strings, keep_default_na=False, na_values=[""])
    except (ValueError, OSError) as error:  # pyarrow's ArrowInvalid and damaged pages; pandas' parser, and bytes that are no text
        kind = "parquet" if path.suffix == ".parquet" else "CSV"
        raise InputError(f"{path}: not a {kind} file ({' '.join(str(error).split())[:200]}); delete it and run again") from None
    return accept(table, name, str(path))


def read_view(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Chains of a shard, a view of a pool with its arrays per token, not validated column by column.

    Raises
    ------
    InputError
        If the file is missing, damaged, or no parquet file.
    """
    import pyarrow.parquet as pq

    stored.check(path, "view of samples")
    try:
        return pq.read_table(path, columns=columns)
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: not a parquet file ({' '.join(str(error).split())[:200]}); delete it and run again") from None
