"""Graders as data: name, version, options, what they do. `GRADERS` is the list that configs and the command line choose from.

A grader of kind `reading` reads an answer from a text alone and compares it with the gold answer in the same canonical form; one of kind
`verdict` needs both to judge. `foreign` ones repeat another tool's verdict, with whatever that does to a chain that was cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from flopstat import graders_math, harness, readings
from flopstat.errors import InputError
from flopstat.numerals import MAX_DIGITS, normalize
from flopstat.readings import Reading, State, read_answer

Kind = Literal["reading", "verdict"]


class Verdict(NamedTuple):
    """State, answer (None unless answered; the canonical gold answer if correct) and whether it is right."""

    state: State
    answer: str | None
    correct: bool


@dataclass(frozen=True)
class Grader:
    """One way to grade. Raise `version` whenever a verdict can change."""

    name: str
    version: int
    kind: Kind
    meaning: str
    gold: Callable[[str], str]
    read: Callable[[str, bool], Reading] | None = None
    judge: Callable[[str, bool, str], tuple[State, str | None, bool]] | None = None
    foreign: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def grade(self, text: str, finished: bool, gold: str) -> Verdict:
        """Grade one text.

        Parameters
        ----------
        text : str
            What the model wrote.
        finished : bool
            Whether it ended by itself; if not, it was cut.
        gold : str
            The problem's answer in this grader's canonical form, as `gold` gives it.
        """
        if self.judge is not None:
            return Verdict(*self.judge(text, finished, gold))
        assert self.read is not None
        state, answer = self.read(text, finished)
        return Verdict(state, answer, state == "answered" and answer == gold)


def _number_of(answer: str) -> str:
    return normalize(answer.rpartition("####")[2].strip())


def _text_of(answer: str) -> str:
    return answer.rpartition("####")[2].strip()


def _extracted(extract: Callable[[str], str]) -> Callable[[str, bool], Reading]:
    def read(text: str, finished: bool) -> Reading:
        found = extract(text)
        form = harness.exact_match_form(found)
        return ("no_answer", None) if found == harness.NOTHING or not form else ("answered", form)

    return read


def _read_exact(text: str, finished: bool) -> Reading:
    """The text itself, or what stands on the line behind the last ####; complete in a cut chain only if that line ended."""
    _, marker, behind = text.rpartition("####")
    if not finished:
        line, ended, _ = behind.lstrip().partition("\n")
        return ("answered", line.strip()) if marker and ended and line.strip() else ("truncated", None)
    answer = behind.strip().partition("\n")[0].strip() if marker else behind.strip()
    if len(answer) > readings.WINDOW:
        return "invalid", None
    return ("answered", answer) if answer else ("no_answer", None)


_HARNESS = {"task": "gsm8k", "task_version": 3.0, "lm_eval": "0.4.9", "regexes_to_ignore": harness.IGNORED, "ignore_case": True}

GRADERS: dict[str, Grader] = {
    grader.name: grader
    for grader in (
        Grader(
            "gsm8k",
            2,
            "reading",
            "the number behind ####, in a box, behind 'the answer is' or A:, else the last number of a finished chain",
            _number_of,
            read_answer,
            options={"max_digits": MAX_DIGITS, "window": readings.WINDOW, "look_back": readings.LOOK_BACK},
        ),
        Grader(
            "gsm8k-strict",
            1,
            "reading",
            "lm-evaluation-harness's strict-match: the first '#### ' with a number, compared as text",
            harness.exact_match_form,
            _extracted(harness.extract_strict),
            foreign=True,
            options={**_HARNESS, "regex_pattern": harness.STRICT, "group_select": 0},
        ),
        Grader(
            "gsm8k-flexible",
            1,
            "reading",
            "lm-evaluation-harness's flexible-extract: the last number, finished or cut, compared as text",
            harness.exact_match_form,
            _extracted(harness.extract_flexible),
            foreign=True,
            options={**_HARNESS, "regex_pattern": harness.FLEXIBLE, "group_select": -1},
        ),
        Grader(
            "math",
            1,
            "verdict",
            "math-verify's verdict on whatever expression it finds in the text, in a process that is killed when it takes too long",
            graders_math.gold_expression,
            judge=graders_math.judge,
            options={"timeout_s": graders_math.TIMEOUT_S, "max_text": graders_math.MAX_TEXT, "max_depth": graders_math.MAX_DEPTH},
        ),
        Grader(
            "exact",
            1,
            "reading",
            "the text, or its line behind the last ####, equals the gold answer character for character",
            _text_of,
            _read_exact,
        ),
    )
}


def grader(name: str) -> Grader:
    """A grader by its name.

    Raises
    ------
    InputError
        For a name that is not in the list.
    """
    if name not in GRADERS:
        raise InputError(f"grader {name!r}: unknown; choose one of {', '.join(GRADERS)}")
    return GRADERS[name]


@lru_cache(maxsize=100_000)
def gold_of(name: str, answer: str, where: str) -> str:
    """A problem's answer in a grader's canonical form.

    Raises
    ------
    InputError
        If the grader can make nothing of it, naming the problem.
    """
    try:
        gold = grader(name).gold(answer)
    except ValueError as error:
        raise InputError(f"{where}: the gold answer {error}; correct it, or grade with --grader math or exact") from None
    if not gold:
        raise InputError(f"{where}: its gold answer is empty; an answer that ends in #### x is wanted")
    return gold


def names_of(value: str | Sequence[str]) -> list[str]:
    """The graders of a config's key `grader`: the one that decides first."""
    return [value] if isinstance(value, str) else list(value)
