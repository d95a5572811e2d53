"""Errors that a user can mend, and how they are said."""

from __future__ import annotations

import errno
import os
import re
import sys
from types import TracebackType


class InputError(ValueError):
    """Wrong input: one line that says what, where and the remedy. The command line turns it into exit code 2."""


class PoolError(RuntimeError):
    """The store can't be used now: one line that says which folder, why, and the remedy."""


class TrialError(RuntimeError):
    """A rehearsal that failed: one line that says what, and names the log that says why."""


LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # half of a pair: text in Python, and in no file


def printable(text: str) -> str:
    """Text, maybe of several lines, with whatever else can't be printed escaped: nothing in a file or a name steers a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY", "ANTHROPIC_API_KEY")  # secrets in the environment, by name
_LOGIN = re.compile(
    r"""(?<=//)\S*@|(?<=['"])(?!\w+://)[^\s'"]*@"""
)  # user and password of an address; also of a part of one that a library quotes
_QUERY = re.compile(r"(/[^\s?#]*)[?#]\S*")


def without_secrets(text: str) -> str:
    """What a library says of the network, without user, password and query of addresses, and without tokens of the environment."""
    for value in filter(None, map(os.environ.get, TOKENS)):
        text = text.replace(value, "...")
    return _QUERY.sub(r"\1", _LOGIN.sub("", text))


def check_hub_address() -> None:
    """Refuse an HF_ENDPOINT with a password: the hub's own library writes the whole address into logs when it asks again."""
    if {"@", "?"} & set(os.environ.get("HF_ENDPOINT", "")):
        raise InputError("HF_ENDPOINT: holds a user, a password or a query, which logs would show; leave that out and set HF_TOKEN")


# As torch's allocators, the loader of libraries, the system and C++ say it.
_NO_MEMORY = ("can't allocate memory", "out of memory", "failed to map segment", "cannot allocate memory", "bad_alloc", "start new thread")
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def line_of(error: BaseException) -> str | None:
    """The one line that a user is told of an error; None for one that is a defect, of which a traceback tells more.

    Of a disk that is full and memory that ran out as well: what was finished is kept, and a rerun goes on.
    """
    text = printable(" ".join(str(error).split()))
    if isinstance(error, InputError | PoolError | TrialError):
        return text
    if isinstance(error, OSError) and (error.errno in _NO_SPACE or "No space left on device" in text):
        return f"{text}; free some space or raise the quota, and run again: what is finished is kept"
    if isinstance(error, MemoryError) or any(sign in text.lower() for sign in _NO_MEMORY):
        remedy = "give the job more, or run fewer at once (CORES=1), and run again: what is finished is kept"
        return f"out of memory ({text[:200] or 'MemoryError'}); {remedy}"
    return None


def _say(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    line = line_of(error)
    if line is None:
        sys.__excepthook__(kind, error, trace)
    else:
        print(f"flopstat: {line}", file=sys.stderr)


def say_in_one_line() -> None:
    """From now on this process says an error that nobody catches as `line_of` does, if it has a line, on standard error."""
    sys.excepthook = _say


# A rule's script has no entry point of its own to catch errors in: Snakemake runs it from its first line, with `snakemake` among its names.
# There the library speaks for all of them; no other process that imports it finds its hook changed.
if hasattr(sys.modules["__main__"], "snakemake"):
    say_in_one_line()
