"""Reading files that others wrote, within limits: each error names the file, the line where there is one, and the remedy."""

from __future__ import annotations

import json
import math
import os
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import yaml

from flopstat import plain_yaml
from flopstat.errors import InputError

MAX_LINE = 1 << 26  # bytes of one JSON line: a problem with thousands of repeats fits
MAX_DOCUMENT = 1 << 28  # bytes of one JSON or YAML document, or of one member of an archive
MAX_HEADER = 1 << 24  # bytes of a file read for a few facts
MAX_TEXT = 1 << 24  # characters of one text
MAX_NAME = 1000  # characters of a problem_id, a model or a precision
MAX_MEMBERS = 1_000_000  # files in an archive
MAX_RATIO = 1000  # bytes that one compressed byte of an archive may become
ZSTANDARD = 93  # compression method of a zip archive's entry
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, ZSTANDARD)  # that are read; LZMA's header asks for memory before any data
LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of name and extra field
MAX_INTEGER = (1 << 63) - 1


@dataclass
class Account:
    """What an import left out or changed, by name."""

    dropped: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)

    def drop(self, names: Iterable[str], known: Iterable[str], prefix: str = "") -> None:
        """Count the fields that are not among the known ones."""
        self.dropped.update(prefix + name[:MAX_NAME] for name in names if name not in known)


@dataclass
class Item:
    """One problem's or line's part of a log: rows in the Sample form, and the problem where the log holds it."""

    where: str
    rows: list[dict[str, Any]]
    problem: dict[str, str] | None = None  # problem_id, question, answer


def existing(path: Path, what: str) -> Path:
    """The path, if there is a file or folder."""
    if not os.path.exists(path):
        raise InputError(f"{path}: no such file; give {what}")
    return path


def parse_json(data: bytes | str, where: str) -> Any:
    """A JSON value, bounded in depth and size of its numbers by Python's own limits."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON ({str(error)[:100]}); copy the file again or mend the line") from None


def parse_object(data: bytes | str, where: str) -> dict[str, Any]:
    """A JSON object."""
    value = parse_json(data, where)
    if not isinstance(value, dict):
        raise InputError(f"{where}: a JSON object is wanted, found {type(value).__name__}; is it the kind of log that was named?")
    return value


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Objects of a JSONL file, each with `file:line`."""
    with path.open("rb") as stream:
        number = 0
        while line := stream.readline(MAX_LINE + 1):
            number += 1
            where = f"{path}:{number}"
            if len(line) > MAX_LINE:
                raise InputError(f"{where}: more than {MAX_LINE} bytes; one object a line is wanted, split it")
            if line.strip():
                yield where, parse_object(line, where)


def document(path: Path, limit: int = MAX_DOCUMENT) -> bytes:
    """All bytes of a file of limited size."""
    with path.open("rb") as stream:
        return bounded(stream, str(path), limit)


def bounded(stream: IO[bytes], where: str, limit: int = MAX_DOCUMENT) -> bytes:
    """All bytes of a stream, refused beyond a limit whatever size it claims to have."""
    data = stream.read(limit + 1)
    if len(data) > limit:
        raise InputError(f"{where}: more than {limit} bytes; split the log")
    return data


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the JSON files in a zip archive: header first, others as they stand. Nothing is unpacked to disk.

    Raises
    ------
    InputError
        For a broken archive, one with too many files, or a file that unpacks beyond the limits.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [e for e in archive.infolist() if e.filename.endswith(".json") and not e.filename.startswith("_journal/")]
            if len(entries) > MAX_MEMBERS:
                raise InputError(f"{path}: {len(entries)} files in the archive, more than {MAX_MEMBERS}; split the log")
            for entry in sorted(entries, key=lambda e: e.filename != "header.json"):
                where = f"{path}!{entry.filename[:MAX_NAME]}"
                if entry.compress_type not in METHODS:
                    raise InputError(f"{where}: compressed by method {entry.compress_type}; pack it again stored, by deflate or Zstandard")
                limit = min(MAX_DOCUMENT, max(MAX_HEADER, entry.compress_size * MAX_RATIO))
                with _member(archive, entry) as stream:
                    yield entry.filename, bounded(stream, where, limit)
    except InputError:
        raise
    # ValueError is zipfile's of names that are no text, and of places beyond a file's largest offset.
    except (zipfile.BadZipFile, NotImplementedError, OSError, EOFError, RuntimeError, ValueError, struct.error, zlib.error) as error:
        raise InputError(f"{path}: not readable as an archive ({str(error)[:100]}); copy it again") from None


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> IO[bytes]:
    """A file of an archive as a stream. inspect_ai compresses with Zstandard, which Python's zipfile can't read before 3.14."""
    if entry.compress_type != ZSTANDARD:
        return archive.open(entry)
    import pyarrow as pa

    raw = archive.fp
    assert raw is not None
    raw.seek(entry.header_offset)
    header = raw.read(LOCAL_HEADER.size)
    signature, name_length, extra_length = LOCAL_HEADER.unpack(header)
    if signature != b"PK\x03\x04" or entry.compress_size > MAX_DOCUMENT:
        raise zipfile.BadZipFile(f"{entry.filename[:MAX_NAME]}: bad header or size")
    raw.seek(name_length + extra_length, os.SEEK_CUR)
    stream: IO[bytes] = pa.CompressedInputStream(pa.BufferReader(raw.read(entry.compress_size)), "zstd")
    return stream


def yaml_object(path: Path) -> dict[str, Any]:
    """A YAML mapping without tags that make objects, without aliases and merge keys, which let a small file grow without end."""
    try:
        value = plain_yaml.parse(document(path), aliases=False)
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not plain YAML ({' '.join(str(error).split())[:150]}); mend the file") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: a YAML mapping is wanted, found {type(value).__name__}; is it the kind of log that was named?")
    return value


def need(record: Mapping[str, Any], name: str, kind: type | tuple[type, ...], where: str, remedy: str) -> Any:
    """A field that the import can't do without, of the type wanted."""
    value = record.get(name)
    if isinstance(value, kind) and not isinstance(value, bool):
        return value
    found = "is missing" if name not in record else f"is {type(value).__name__}"
    wanted = " or ".join("text" if k is str else k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
    raise InputError(f"{where}: {name} {found}, {wanted} is wanted; {remedy}")


def identifier(value: Any, where: str, name: str = "problem_id") -> str:
    """A short text or a whole number as text."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if abs(value) <= MAX_INTEGER else ""
    return label(value, where, name)


def label(value: Any, where: str, name: str) -> str:
    """A short text."""
    if not isinstance(value, str) or not value or len(value) > MAX_NAME:
        raise InputError(f"{where}: {name} is not a text of 1 to {MAX_NAME} characters; give it a short one")
    return value


def integer(value: Any, where: str, name: str) -> int | None:
    """A whole number from 0 on, None where unknown."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_INTEGER:
        raise InputError(f"{where}: {name} is {str(value)[:50]!r}, a whole number from 0 on is wanted; correct it or leave it out")
    return value


def number(value: Any, where: str, name: str) -> float | None:
    """A finite number, None where unknown."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MAX_INTEGER:
        raise InputError(f"{where}: {name} is {str(value)[:50]!r}, a finite number is wanted; correct it or leave it out")
    return float(value)


def encodable(text: str) -> str:
    """Text with lone surrogates, which no file in UTF-8 can hold, replaced by U+FFFD."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def gold_answer(gold: str) -> str:
    """A gold answer in GSM8K's form, ending in `#### x`. An ending `A: x`, as OpenAI's released solutions have it, is rewritten."""
    if "####" in gold:
        return gold
    steps, _, last = gold.rstrip().rpartition("\n")
    if last.startswith("A: "):
        return f"{steps}\n#### {last.removeprefix('A: ')}"
    return f"#### {' '.join(gold.split())}"
