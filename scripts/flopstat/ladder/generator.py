"""Generated grade-school word problems: the data that the ladder models are trained and judged on.

Specification
-------------
A problem is a chain of `steps` (1 to 6; up to 8 on request) facts. The first fact states a base count, every further fact
relates one person's count to the previous person's by one operation:

========  =====================================  ==============================================
symbol    text                                   range (v is the count before, w the count after)
========  =====================================  ==============================================
``+``     A has k more X than B.                 1 <= k <= 30, w <= 99
``-``     A has k fewer X than B.                1 <= k <= 30, w >= 1
``*``     A has k times as many X as B.          2 <= k <= 5, w <= 99
``/``     A has half (a third) as many X as B.   k = 2 (k = 3), k divides v
========  =====================================  ==============================================

The base count is 2 to 40; all counts stay between 1 and 99. The operation is uniform over those possible at v, then its
operand uniform over its range. Facts are shuffled, names are drawn without replacement, one object serves the whole
problem. The question asks for the last person's count. `distractors` adds facts about further persons that hang off
the chain and are never needed.

The gold answer has one line a step in GSM8K's form with a calculator annotation, then ``#### x``::

    Mia 7+3=<<7+3=10>>10
    #### 10

Splits never overlap: the split of a problem is a function of the BLAKE2b hash of its canonical form (base count and
operations, without names, object, order and distractors), so no chain of numbers is ever in two splits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from flopstat.errors import InputError

Split = Literal["training", "heldout", "verifier", "calibration", "study", "fresh"]

NAMES = tuple("Ada Ben Cleo Dan Eve Finn Gus Hana Ivan Jade Kai Lena Mia Noah Olga Paul Quinn Rosa Sam Tom Uma Vera Will Zoe".split())
OBJECTS = tuple("apples books coins eggs marbles pencils shells stamps".split())
MAX_COUNT = 99
MAX_BASE = 40
MAX_OPERAND = 30
MAX_STEPS = 8

# Share of the hash space that each split owns, of 64 buckets.
_BUCKETS: dict[Split, range] = {
    "training": range(0, 44),
    "heldout": range(44, 48),
    "verifier": range(48, 52),
    "calibration": range(52, 56),
    "study": range(56, 60),
    "fresh": range(60, 64),
}
_SPLIT_OF_BUCKET = {bucket: split for split, buckets in _BUCKETS.items() for bucket in buckets}
_DRAWS = 96  # uniforms reserved for one problem


@dataclass(frozen=True, slots=True)
class Problem:
    """One generated problem; `difficulty` is its number of steps."""

    question: str
    answer: str
    solution: str  # the answer as a model writes it: without calculator annotations
    gold: int
    difficulty: int
    canonical: str


def split_of(canonical: str) -> Split:
    """Split that owns a canonical form."""
    digest = hashlib.blake2b(canonical.encode(), digest_size=8).digest()
    return _SPLIT_OF_BUCKET[digest[0] % 64]


def _choices(v: int) -> list[tuple[str, int, int]]:
    """Operations possible at count v as (symbol, lowest operand, highest operand)."""
    out: list[tuple[str, int, int]] = []
    if v < MAX_COUNT:
        out.append(("+", 1, min(MAX_OPERAND, MAX_COUNT - v)))
    if v > 1:
        out.append(("-", 1, min(MAX_OPERAND, v - 1)))
    if 2 * v <= MAX_COUNT:
        out.append(("*", 2, min(5, MAX_COUNT // v)))
    if v % 2 == 0:
        out.append(("/", 2, 2))
    if v % 3 == 0:
        out.append(("/", 3, 3))
    return out


_CHOICES = [_choices(v) if v else [] for v in range(MAX_COUNT + 1)]


def _apply(v: int, op: str, k: int) -> int:
    return v + k if op == "+" else v - k if op == "-" else v * k if op == "*" else v // k


def _fact(who: str, op: str, k: int, thing: str, other: str) -> str:
    if op == "+":
        return f"{who} has {k} more {thing} than {other}."
    if op == "-":
        return f"{who} has {k} fewer {thing} than {other}."
    if op == "*":
        return f"{who} has {k} times as many {thing} as {other}."
    return f"{who} has {'half' if k == 2 else 'a third'} as many {thing} as {other}."


def _build(u: list[float], steps: int, distractors: int) -> Problem:
    """One problem from a list of uniforms, consumed in order."""
    names = list(NAMES)
    people = steps + 1 + distractors
    for i in range(people):  # partial Fisher-Yates
        j = i + int(u[i] * (len(names) - i))
        names[i], names[j] = names[j], names[i]
    at = people
    thing = OBJECTS[int(u[at] * len(OBJECTS))]
    v = 2 + int(u[at + 1] * (MAX_BASE - 1))
    at += 2
    counts = [v]
    facts = [f"{names[0]} has {v} {thing}."]
    lines: list[str] = []
    canonical = [str(v)]
    for step in range(1, people):
        is_distractor = step > steps
        parent = int(u[at + 2] * (step if is_distractor else 1)) if is_distractor else step - 1
        v = counts[parent]
        options = _CHOICES[v]
        op, low, high = options[int(u[at] * len(options))]
        k = low + int(u[at + 1] * (high - low + 1))
        at += 3
        w = _apply(v, op, k)
        counts.append(w)
        facts.append(_fact(names[step], op, k, thing, names[parent]))
        if not is_distractor:
            lines.append(f"{names[step]} {v}{op}{k}=<<{v}{op}{k}={w}>>{w}")
            canonical.append(f"{op}{k}")
    for i in range(people - 1, 0, -1):  # Fisher-Yates
        j = int(u[at] * (i + 1))
        at += 1
        facts[i], facts[j] = facts[j], facts[i]
    gold = counts[steps]
    facts.append(f"How many {thing} does {names[steps]} have?")
    answer = "\n".join(lines) + f"\n#### {gold}"
    solution = "\n".join(line[: line.index("<<")] + line[line.index(">>") + 2 :] for line in lines) + f"\n#### {gold}"
    return Problem(" ".join(facts), answer, solution, gold, steps, "|".join(canonical))


def generate(
    rng: np.random.Generator,
    split: Split,
    *,
    max_steps: int = 6,
    distractors: int = 0,
    steps: int | None = None,
    block: int = 64,
) -> Iterator[Problem]:
    """Endless stream of problems of one split.

    Parameters
    ----------
    rng : numpy.random.Generator
        The only source of randomness; the stream is a function of its state.
    split : str
        Chains of other splits are passed over.
    max_steps : int
        Number of steps is uniform on 1..max_steps (at most 8).
    distractors : int
        Facts about persons that the question does not need (at most 4).
    steps : int, optional
        Fix the number of steps instead.
    block : int
        Uniforms are drawn for that many problems at a time: speed only.

    Raises
    ------
    InputError
        For a number of steps or distractors outside its range, or an unknown split.
    """
    if split not in get_args(Split):
        raise InputError(f"split {split!r}: unknown; choose one of {', '.join(get_args(Split))}")
    if not 1 <= max_steps <= MAX_STEPS or (steps is not None and not 1 <= steps <= MAX_STEPS):
        raise InputError(f"number of steps {steps or max_steps}: must lie between 1 and {MAX_STEPS}")
    if not 0 <= distractors <= 4:
        raise InputError(f"distractors {distractors}: must lie between 0 and 4")
    while True:
        for u in rng.random((block, _DRAWS)).tolist():
            problem = _build(u[1:], steps or 1 + int(u[0] * max_steps), distractors)
            if split_of(problem.canonical) == split:
                yield problem
