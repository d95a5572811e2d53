"""YAML that others wrote: values only, of bounded depth."""

from __future__ import annotations

from typing import Any

import yaml

MAX_DEPTH = 100  # mappings and lists in one another; libyaml's own reader overflows the stack at some ten thousand

# What PyYAML raises on 2026-99-99, `!!bool x`, `!!int ""` and `!!timestamp x`.
_OF_VALUES = (ValueError, ArithmeticError, LookupError, AttributeError, TypeError)


def parse(text: bytes | str, aliases: bool = True) -> Any:
    """The value of a YAML document without tags that make objects.

    Parameters
    ----------
    aliases : bool
        Take aliases and merge keys, with which a small text can say a value without end.

    Raises
    ------
    yaml.YAMLError
        For anything else, one that names an impossible date or number included.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    try:
        for event in yaml.parse(text, Loader=loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise yaml.YAMLError(f"more than {MAX_DEPTH} mappings and lists in one another")
            if isinstance(event, yaml.AliasEvent) and not aliases:
                raise yaml.YAMLError(f"an alias (*{event.anchor}); write the value out")
        return yaml.load(text, Loader=loader)
    except _OF_VALUES as error:
        raise yaml.YAMLError(f"a value that is none ({type(error).__name__}: {error})") from None
