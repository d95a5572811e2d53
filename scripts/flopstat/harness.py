"""The two verdicts of lm-evaluation-harness's gsm8k task, filter and metric, as that tool gives them.

Source: lm_eval/tasks/gsm8k/gsm8k.yaml, version 3.0, with the regex and take_first filters and the exact_match metric of lm-eval 0.4.9.
Both ignore whether a chain was cut.
"""

from __future__ import annotations

import re
from functools import lru_cache

NOTHING = "[invalid]"  # what the regex filter gives where its pattern does not match
STRICT = r"#### (\-?[0-9\.\,]+)"
FLEXIBLE = r"(-?[$0-9.,]{2,})|(-?[0-9]+)"
IGNORED = (",", r"\$", r"(?s).*#### ", r"\.$")

_STRICT = re.compile(STRICT)
# FLEXIBLE's last match, found from the text's end. Its matches are the maximal runs of [$0-9.,] that are longer than one character or one
# digit, with a minus sign if one stands before; the first such run of the reversed text is the last one of the text.
_FLEXIBLE_REVERSED = re.compile(r"(?:[$0-9.,]{2,}|[0-9])-?")
_TAIL = 200


def extract_strict(text: str) -> str:
    """What strict-match takes out of a text: the first ####, one space, and the characters of a number."""
    found = _STRICT.search(text)
    return found[1] if found else NOTHING


def extract_flexible(text: str) -> str:
    """What flexible-extract takes out of a text: its last run of the characters of a number."""
    found = _FLEXIBLE_REVERSED.search(text[: -_TAIL - 1 : -1])
    if found is None or found.end() == _TAIL:  # nothing in the tail, or a run that began before it
        found = _FLEXIBLE_REVERSED.search(text[::-1])
    return found[0][::-1] if found else NOTHING


@lru_cache(maxsize=100_000)
def exact_match_form(text: str) -> str:
    """What exact_match compares: without commas, $, everything up to the last "#### " and one full stop at the end; in lower case.

    The third pattern, applied by `re.sub` to a text without "#### ", takes quadratic time; here it is a search for the last one.
    """
    return re.sub(r"\.$", "", text.replace(",", "").replace("$", "").rpartition("#### ")[2]).lower()
