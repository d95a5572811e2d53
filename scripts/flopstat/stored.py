"""Files that a study keeps, each with its SHA-256 beside it: a flipped or lost byte is named, never read as a number.

`configurations.csv` has `.configurations.csv.sha256` beside it, in the form of `sha256sum`. A file without one is read as it is, so
results of older versions and tables from elsewhere stay readable.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from flopstat.errors import InputError

SUFFIX = ".sha256"
DAMAGED = ".damaged"


def seal_of(path: Path) -> Path:
    """Where the SHA-256 of a file stands."""
    return path.with_name(f".{path.name}{SUFFIX}")


def digest(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def seal(path: Path, written: Path | None = None) -> None:
    """Note the SHA-256 of a file; of `written`, if that is to be renamed to `path` next."""
    beside = seal_of(path)
    temporary = beside.with_name(f"{beside.name}.{os.getpid()}.tmp")
    temporary.write_text(f"{digest(written or path)}  {path.name}\n", encoding="ascii")
    os.replace(temporary, beside)


def place(written: Path, path: Path) -> None:
    """Rename a finished file to its own name, its SHA-256 first: a kill in between leaves no file that looks whole and is not."""
    seal(path, written)
    os.replace(written, path)


def is_whole(path: Path) -> bool:
    """Whether a file has the bytes that were written; true if nobody noted which."""
    try:
        noted = seal_of(path).read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return True
    return noted == f"{digest(path)}  {path.name}\n"


def check(path: Path, what: str = "file") -> Path:
    """The path of a file that is there and whole.

    Parameters
    ----------
    what : str
        What the file should be, for messages.

    Raises
    ------
    InputError
        If it is missing, or its bytes are not those that were written.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such {what}; {_again(path)}")
    if not is_whole(path):
        changed = f"if you changed it on purpose, delete {seal_of(path)}"
        raise InputError(f"{path}: damaged, its bytes are not those that were written (SHA-256); {_again(path)}, or {changed}")
    return path


def _again(path: Path) -> str:
    return f"make it again with `make run`, or delete it and `snakemake {path}`"


def write_text(path: Path, text: str) -> None:
    """Write a text with its SHA-256, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    place(temporary, path)


def read_json(path: Path, what: str = "JSON file") -> dict[str, Any]:
    """The object in a JSON file.

    Raises
    ------
    InputError
        If the file is missing, damaged, or holds anything else; it says that this is no such `what`.
    """
    text = check(path, what).read_bytes()
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a {what}; {_again(path)} ({' '.join(str(error).split())[:100]})") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: not a {what}; {_again(path)} (an object is wanted, found {type(value).__name__})")
    return value


def lost(folder: Path) -> list[Path]:
    """Files that were set aside and not made anew since."""
    damaged = (path.with_name(path.name.removesuffix(DAMAGED)) for path in sorted(folder.rglob(f"*{DAMAGED}")))
    return [path for path in damaged if not path.exists()]


def set_aside_damaged(folder: Path) -> list[Path]:
    """Rename the damaged files of a folder, at any depth, to NAME.damaged, and drop their notes; returns what they were called."""
    found = []
    for beside in sorted(folder.rglob(f".*{SUFFIX}")):
        path = beside.with_name(beside.name[1 : -len(SUFFIX)])
        if path.is_file() and not is_whole(path):
            os.replace(path, path.with_name(f"{path.name}{DAMAGED}"))
            beside.unlink()
            found.append(path)
    return found


if __name__ == "__main__":  # for files that other programs write
    for name in sys.argv[1:]:
        seal(Path(name))
