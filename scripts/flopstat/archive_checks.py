"""What an archive holds has the form that the rules trust in: read by the rules' own readers, before any of it is placed.

Whoever made the archive chose its content, the hashes that fit it, and the config that says how much of it there should be. So parquet
files are bounded by their own size as well, before they are read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flopstat import bundle, tables
from flopstat.columns import TABLES
from flopstat.config import Config
from flopstat.costs import DTYPE_BITS
from flopstat.crate import METADATA
from flopstat.errors import InputError
from flopstat.facts import read_facts
from flopstat.models import ImportedCard, ModelCard, read_card
from flopstat.pilot import Pilot
from flopstat.problems import messages_of
from flopstat.reality import read_jobs
from flopstat.scores import PER_TOKEN
from flopstat.stored import read_json
from flopstat.strategies import SCORES
from flopstat.verdicts import verdict_rows

# Values of a parquet file, beyond a first allowance, for each of its bytes: the ladder's samples have below 2, chains that repeat one
# token to their end up to a hundred.
MAX_PER_BYTE = 250
ALLOWANCE = 1 << 22
MAX_ROUNDS = 1000  # repeats of one point of a calibration: speeds are compared pair by pair
_AGAIN = "archive the study again"
# What a reader may fall over in a file that was written to make it fall.
_NONSENSE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


@contextmanager
def _refused(what: str) -> Iterator[None]:
    """Any failure of a reader as one line that says what the file is not."""
    try:
        yield
    except _NONSENSE:
        raise InputError(f"{what}; {_AGAIN}") from None


def check_content(folder: Path, manifest: Mapping[str, Any], archived: Config, chosen: Config, path: Path) -> None:
    """Refuse an unpacked archive if a file that is to be placed is not what its name says.

    Parameters
    ----------
    folder, manifest, path : the unpacked files, what they should be, and the archive they came from
    archived : the config that the archive was made with
    chosen : the config whose models are to be placed

    Raises
    ------
    InputError
        One line that names the archive and the file.
    """
    n_problems = archived["dataset"]["n_study"] + archived["dataset"]["n_calibration"]
    keys = _check_problems(folder, n_problems, path)
    for model in chosen["models"]:
        _check_model(folder, model, archived, keys, path)
    with _refused(f"{path}: its {METADATA} does not describe its files"):
        graph = {entity["@id"]: entity for entity in read_json(folder / METADATA)["@graph"]}
        if sorted([METADATA, *(part["@id"] for part in graph["./"]["hasPart"])]) != sorted(manifest["files"]):
            raise ValueError("other files")


def _check_problems(folder: Path, n_problems: int, path: Path) -> set[str]:
    """Problems and refusals; returns the problems' keys."""
    with _refused(f"{path}: problems.parquet is not the {n_problems} problems of its config"):
        found = tables.accept(_read(folder / "problems.parquet", n_problems * len(TABLES["problems"])).to_pandas(), "problems", "")
        keys = set(found["problem_key"])
        if not len(found) == len(keys) == n_problems or not found["split"].isin(["study", "calibration"]).all():
            raise ValueError("other problems")
        for gold, messages in zip(found["gold"], found["messages"], strict=True):
            int(gold)
            if not all(type(m["content"]) is str for several in messages_of(messages) for m in several):
                raise ValueError("a message without text")
    with _refused(f"{path}: refusals.csv is no table of refusals"):
        tables.read("refusals", folder / "refusals.csv")
    return keys


def _check_model(folder: Path, model: dict[str, Any], archived: Config, keys: set[str], path: Path) -> None:
    """A model's card, tokenizer, samples and calibrations."""
    name = model["name"]
    with _refused(f"{path}: models/{name}.json is no model card"):
        card = read_card(folder / "models" / f"{name}.json")
    if card.name != name or isinstance(card, ImportedCard) != (model["source"] == "import"):
        raise InputError(f"{path}: models/{name}.json is the card of another model; {_AGAIN}")
    if isinstance(card, ImportedCard):
        tables.accept(_read(folder / "imported" / f"{name}.parquet").to_pandas(), "imported", f"{path}: imported/{name}.parquet")
        return
    _check_tokenizer(folder / "tokenizers" / f"{name}.json", path)
    for arm in (f"{name}@{precision}" for precision in model["precisions"]):
        with _refused(f"{path}: calibration/{arm}.json is no calibration"):
            _check_calibration(folder / "calibration" / f"{arm}.json", arm, card)
        with _refused(f"{path}: pilot/{arm}.json is no pilot"):
            if not isinstance(Pilot.read(folder / "pilot" / f"{arm}.json").rate, dict):
                raise TypeError("no rate")
        with _refused(f"{path}: samples/{arm}.json does not say what drawing took"):
            read_jobs([folder / "samples" / f"{arm}.json"])
        check_samples(folder / "samples" / f"{arm}.parquet", card, archived, keys)


def _check_tokenizer(file: Path, path: Path) -> None:
    from tokenizers import Tokenizer

    try:
        Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises no other type
        why = " ".join(str(error).split())[:100]
        raise InputError(f"{path}: tokenizers/{file.name} is no tokenizer ({why}); {_AGAIN}") from None


def _check_calibration(file: Path, arm: str, card: ModelCard) -> None:
    """What costs, tables, figures and run.json read of it."""
    measured = read_json(file)
    if not all(len(row.get("rounds", [])) <= MAX_ROUNDS for row in measured["rows"]):
        raise ValueError("more rounds than anybody measures")
    facts = read_facts(card, arm.split("@")[1], file, None, {"kv_bits": 16})
    held_out = pd.DataFrame(measured["held_out"])[["batch", "context", "measured", "predicted"]].astype(float)
    numbers = [facts.bits_effective, facts.c_counted, *held_out.to_numpy().ravel()]
    if not all(isinstance(n, int | float) and 0 < n < math.inf for n in numbers):
        raise ValueError("a number that is none")
    where = {"arm": arm, "verdict": None, "fingerprint": measured["device"]["fingerprint"]}
    rows = pd.DataFrame([where | row for row in measured["rows"] + verdict_rows(measured, measured)])
    tables.accept(rows[list(TABLES["calibration"])], "calibration", file.name)
    dict(measured["identity"]["fingerprint"])
    if measured["identity"]["compute_dtype"] not in DTYPE_BITS or type(measured["emulated"]) is not bool:
        raise ValueError("no number format")


def _read(path: Path, most: float = math.inf) -> pa.Table:
    """An archived parquet file of at most `most` values, and no more values and text than a file of its size can be worth.

    Values are counted by the footer: pages that hold more than it says are Arrow's to refuse.

    Raises
    ------
    InputError
        If it is none, or says that it holds more: before much memory is spent on it.
    """
    where, size = f"{path.parent.name}/{path.name}", path.stat().st_size
    try:
        with pq.ParquetFile(path) as file:
            footer, schema = file.metadata, file.schema_arrow
        groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
        values = max(footer.num_rows, sum(group.column(i).num_values for group in groups for i in range(footer.num_columns)))
        if values > min(most, ALLOWANCE + MAX_PER_BYTE * size):
            raise InputError(f"{where}: {footer.num_rows} rows with {values} values, more than its study and its size can have; {_AGAIN}")
        texts = [f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
        inner = {f.name: f.type.value_type if pa.types.is_list(f.type) else f.type for f in schema if f.name not in texts}
        for name, dtype in inner.items():
            if not pa.types.is_primitive(dtype) and not pa.types.is_null(dtype):
                raise InputError(f"{where}: column {name} is missing or of another type; {_AGAIN}")
        with pq.ParquetFile(path, read_dictionary=texts) as file:  # each text once, however often it stands there
            table = file.read()
        table.validate(full=True)
        n_bytes = sum(
            pc.sum(pc.binary_length(chunk.dictionary).take(chunk.indices)).as_py() or 0
            for name in texts
            for chunk in table[name].chunks
            if isinstance(chunk, pa.DictionaryArray)
        )
        if n_bytes > bundle.ALLOWANCE + bundle.MAX_RATIO * size:
            raise InputError(f"{where}: {n_bytes} bytes of text, far more than a file of its size should hold; {_AGAIN}")
        return table.cast(schema)
    except (pa.ArrowException, OSError, KeyError, UnicodeDecodeError) as error:  # the last of names of columns
        raise InputError(f"{where}: not a parquet file ({' '.join(str(error).split())[:100]}); {_AGAIN}") from None


def check_samples(path: Path, card: ModelCard, archived: Config, keys: set[str]) -> None:
    """Make sure that archived samples have the columns and values that grading reads.

    Raises
    ------
    InputError
        For another schema, more rows or longer chains than the study can have, problems that are none of `keys`, ids outside the
        vocabulary, or lengths that do not belong together.
    """
    where = f"{path.parent.name}/{path.name}"
    dataset, budgets = archived["dataset"], archived["budgets"]
    rows = (dataset["n_study"] + dataset["n_calibration"]) * (archived["sampling"]["samples"] + 1)  # one is greedy
    if budgets["forcing"] == "force_answer":
        rows *= 1 + len(budgets["T"])
    # A chain may be longer than T, for pools keep what another study drew, and no longer than the model's context.
    columns = len(TABLES["samples"]) + 1 + max(len(PER_TOKEN), len(SCORES))
    table = _read(path, rows * columns * card.context)
    lists = {name: pa.float32() for name in PER_TOKEN} if "logprob" in table.column_names else {name: pa.float64() for name in SCORES}
    lists["ids"] = pa.int32()
    wrong = [name for name, dtype in lists.items() if name not in table.column_names or table.schema.field(name).type != pa.list_(dtype)]
    if wrong:
        raise InputError(f"{where}: column {wrong[0]} is missing or of another type; {_AGAIN}")
    tables.accept(table.select([c for c in TABLES["samples"] if c in table.column_names]).to_pandas(), "samples", where)
    if not keys.issuperset(table["problem_key"].unique().to_pylist()):
        raise InputError(f"{where}: chains of problems that are not the study's; {_AGAIN}")
    ids = table["ids"].combine_chunks()
    if ids.null_count or ids.flatten().null_count or ids.value_lengths().to_numpy().tolist() != table["n_tokens"].to_pylist():
        raise InputError(f"{where}: n_tokens is not the number of ids; {_AGAIN}")
    flat = ids.flatten().to_numpy()
    if len(flat) and (flat.min() < 0 or flat.max() >= card.vocab_size):
        raise InputError(f"{where}: ids outside 0 to {card.vocab_size - 1}; {_AGAIN}")
