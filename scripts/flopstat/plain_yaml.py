"""YAML that others wrote: values only, of bounded depth and size."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import yaml

from flopstat.errors import InputError

MAX_DEPTH = 100  # mappings and lists in one another; libyaml's own reader overflows the stack at some ten thousand
MAX_VALUES = 100_000  # that aliases may repeat: a short text can say values without end with them
MAX_BYTES = 1 << 20  # of a file that a person keeps

# What PyYAML raises on 2026-99-99, `!!bool x`, `!!int ""` and `!!timestamp x`.
_OF_VALUES = (ValueError, ArithmeticError, LookupError, AttributeError, TypeError)


def parse(text: bytes | str, aliases: bool = True) -> Any:
    """The value of a YAML document without tags that make objects.

    Parameters
    ----------
    aliases : bool
        Take aliases and merge keys, which may repeat MAX_VALUES values in all.

    Raises
    ------
    yaml.YAMLError
        For anything else, one that names an impossible date or number included.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    open_: list[tuple[str | None, int]] = []  # anchor of each mapping and list that is open, and values before it
    sizes: dict[str | None, int] = {}  # values below each anchor, as often as aliases repeat them
    values = repeated = 0
    try:
        for event in yaml.parse(text, Loader=loader):
            values += 1
            if isinstance(event, yaml.CollectionStartEvent):
                open_.append((event.anchor, values))
                if len(open_) > MAX_DEPTH:
                    raise yaml.YAMLError(f"more than {MAX_DEPTH} mappings and lists in one another")
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, before = open_.pop()
                sizes[anchor] = values - before
            elif isinstance(event, yaml.AliasEvent):
                if not aliases:
                    raise yaml.YAMLError(f"an alias (*{event.anchor}); write the value out")
                if event.anchor in [anchor for anchor, _ in open_]:
                    raise yaml.YAMLError(f"*{event.anchor} stands inside of its own value")
                more = sizes.get(event.anchor, 1)  # 1 of a text or number
                values, repeated = values + more, repeated + more
                if repeated > MAX_VALUES:
                    raise yaml.YAMLError(f"aliases repeat more than {MAX_VALUES} values")
        return yaml.load(text, Loader=loader)
    except _OF_VALUES as error:
        raise yaml.YAMLError(f"a value that is none ({type(error).__name__}: {error})") from None


def read(path: Path, kind: str, remedy: str = "") -> Any:
    """The value of a file that a person keeps, such as a price table.

    Raises
    ------
    InputError
        If it is missing, no regular file, longer than MAX_BYTES, not UTF-8 text or not YAML; `remedy` says where a good one is.
    """
    hint = f"; {remedy}" if remedy else ""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError(0, "no regular file")
        with path.open("rb") as stream:
            text = stream.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            raise OSError(0, f"longer than {MAX_BYTES} bytes")
        return parse(text.decode())
    except FileNotFoundError:
        raise InputError(f"{path}: no such {kind}{hint}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    except (OSError, ValueError) as error:  # a folder, a device, a name that can be no file's
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{str(path)[:200]!r}: no {kind} that can be read ({why}){hint}") from None
