"""The default grader's reading of a text: which number it gives as its answer, and whether it gives one at all.

An explicit marker goes before everything else: the first ####, else the last box, else the last "the answer is", else the last line that
starts with A:. A finished chain may also say "Answer:", and without any marker its last number counts. A chain that was cut is answered
only by one of the four markers with a complete number behind it. #### is looked for in the whole text, all else in its last LOOK_BACK
characters; what stands behind a marker is read within a window. So time is linear in the length of the text, and its factor small.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Literal

from flopstat.numerals import MAX_DIGITS, canonical, last_number, number_at, to_ascii, without_latex

WINDOW = 400  # characters read behind a marker
MAX_MARKERS = 1000  # markers of one kind that are tried
LOOK_BACK = 200_000  # characters of the text's end in which markers of which the last one counts, and the last number, are looked for

State = Literal["answered", "no_answer", "truncated", "timeout", "invalid", "engine_error"]
Reading = tuple[State, str | None]
NOT_ONE_NUMBER = ""  # what a marker gives whose text is a list, a range, a clock time or a sum that is left to be worked out

_LEAD = re.compile(
    r"[\s:=~*_`\"'(\[{>#]*(?:\$(?!\s?[\d.-])\s?)?"
    r"(?:(?i:(?:the\s)?(?:final\s|correct\s)?answer(?:\sis)?|approximately|approx\.?|about|around|exactly|roughly|equal\sto|a\stotal\sof)(?![a-z]))?"
    r"[\s:=~*_`\"'(\[{>]*(?:[A-Za-z]\s?=\s?)?"
)
_SENTENCE = re.compile(r"(?i:the\s(?:final\s|correct\s)?answer\sis)(?![a-z])")
_LINE = re.compile(r"(?:^|\n)[ \t]{0,4}\*{0,2}A\*{0,2}:")
_SPELLED = re.compile(r"(?:^|\n)[ \t]{0,4}[*#_>]{0,4}\s?(?i:(?:the\s)?(?:final\s)?answer)[*_]{0,2}:")
_ENDS_IN_NUMBER = re.compile(r"[\d.,]{20}\Z")
_INK = re.compile(r"\S")
_BOX = re.compile(r"\\(?:boxed|fbox)\s{0,4}\{")
_OPERATION = re.compile(r"[ ]?(?:[-+*/^]|x(?=[ ]?\$?\d))[ ]?[($]?\d", re.ASCII)
_SECOND = re.compile(r",\d|:(?!00(?!\d))\d|/\d|[xyz](?![A-Za-z])", re.ASCII)
_ARITHMETIC = re.compile(r"[-+*/^().,\d\s$%<>x=]*=\s?\$?", re.ASCII)
_MAY_GO_ON = re.compile(r"[.,:'\xa0]\d*|e[-+]?|[ ]?[-+*/^=][ ]?\(?\$?|[ ]\d+/?\d*|/\d*", re.ASCII)
_MAGNITUDE_BEGUN = re.compile(
    r"[ ](?:h(?:u(?:n(?:d(?:re?)?)?)?)?|t(?:h(?:o(?:u(?:s(?:an?)?)?)?)?|r(?:i(?:l(?:l(?:io?)?)?)?)?)?|[mb](?:i(?:l(?:l(?:io?)?)?)?)?)"
)


def _one_number(window: str, lead: int, is_end: bool) -> str | None:
    """The number that begins a window: its canonical form, NOT_ONE_NUMBER, or None if none begins there.

    `is_end` says that the window's end is where the chain was cut: a number that could go on behind it counts for none.
    """
    found = number_at(window, lead)
    if found is None:
        return None
    rest = window[found.end() :]
    if is_end and ((not rest and not found[0].endswith("%")) or _MAY_GO_ON.fullmatch(rest) or _MAGNITUDE_BEGUN.fullmatch(rest)):
        return None
    line = rest.split("\n", 1)[0]
    worked = _ARITHMETIC.match(line)
    if worked is not None and (_OPERATION.match(line) or line.lstrip().startswith("=")):
        result = number_at(line, worked.end())
        if result is None:
            return NOT_ONE_NUMBER
        return _one_number(line[worked.end() :] + rest[len(line) :], 0, is_end)
    if _OPERATION.match(line) or _SECOND.match(line):
        return NOT_ONE_NUMBER
    return canonical(found) or "invalid"


def _windows(text: str, ends: Iterable[int]) -> Iterator[tuple[str, bool]]:
    """What stands behind each marker, white space skipped, and whether the text ends with it."""
    for end in ends:
        window = text[end : end + WINDOW].lstrip()
        if window:
            yield window, end + WINDOW >= len(text)
        elif found := _INK.search(text, end):
            yield text[found.start() : found.start() + WINDOW], found.start() + WINDOW >= len(text)


def _behind(window: str, is_end: bool) -> str | None:
    """The answer behind #### and "the answer is"."""
    plain = without_latex(window)
    lead = _LEAD.match(plain)
    return _one_number(plain, lead.end() if lead else 0, is_end)


def _boxed(window: str, is_end: bool) -> str | None:
    """The answer in a box whose brace was opened just before the window."""
    depth, end = 1, None
    for found in re.finditer(r"[{}]", window):
        depth += 1 if found[0] == "{" else -1
        if not depth:
            end = found.start()
            break
    if end is None:
        return _behind(window, is_end)
    content = without_latex(window[:end]).replace("{", " ").replace("}", " ").strip()
    content = content.rpartition("=")[2].strip() or content
    number = _one_number(content, 0, False) if content else None
    if number is None and (last := last_number(content)):
        return canonical(last) or "invalid"
    return number


def _from_the_start(text: str, word: str) -> Iterator[int]:
    at = text.find(word)
    while at >= 0:
        yield at + len(word)
        at = text.find(word, at + len(word))


def _matches(pattern: re.Pattern[str], text: str) -> list[int]:
    """Where a pattern's last matches end, the last one first."""
    return [m.end() for m in pattern.finditer(text)][: -MAX_MARKERS - 1 : -1]


def _marked(text: str, finished: bool) -> str | None:
    """The answer of the first kind of marker that gives one: a number, NOT_ONE_NUMBER, "invalid", or None."""
    for window, is_end in _windows(text, islice(_from_the_start(text, "####"), MAX_MARKERS)):
        answer = _behind(to_ascii(window), is_end and not finished)
        if answer is not None:
            return answer
    tail = to_ascii(text[-LOOK_BACK:])
    kinds: list[tuple[re.Pattern[str], Callable[[str, bool], str | None]]] = []
    if "box" in tail:
        kinds.append((_BOX, _boxed))
    if spelled := "nswer" in tail or "NSWER" in tail:
        kinds.append((_SENTENCE, _behind))
    if "A:" in tail or "A*" in tail:
        kinds.append((_LINE, _behind))
    if finished and spelled:
        kinds.append((_SPELLED, _behind))
    for pattern, read in kinds:
        for window, is_end in _windows(tail, _matches(pattern, tail)):
            answer = read(window, is_end and not finished)
            if answer is not None:
                return answer
    if not finished:
        return None
    end = without_latex(tail[-WINDOW:])
    found = last_number(end) or last_number(tail[:-WINDOW])
    return None if found is None else canonical(found) or "invalid"


def read_answer(text: str, finished: bool) -> Reading:
    """State and canonical answer of one text.

    Parameters
    ----------
    text : str
        Decoded ids of the chain, up to its budget.
    finished : bool
        Whether the chain ended by itself; if not, it was cut.

    Returns
    -------
    state, answer
        ("answered", number), ("no_answer", None) for a finished chain that gives no number or several, ("truncated", None) for a cut chain
        without a complete marked number, ("invalid", None) for a number of more than 40 digits.
    """
    answer = _marked(text, finished)
    if answer == "invalid" and (finished or not _ENDS_IN_NUMBER.search(text, max(0, len(text) - MAX_DIGITS))):
        return "invalid", None
    if not answer or answer == "invalid":
        return ("no_answer" if finished else "truncated"), None
    return "answered", answer
