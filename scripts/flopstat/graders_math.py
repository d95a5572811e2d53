"""The `math` grader: math-verify in worker processes that can be killed.

Sympy can take hours or all memory on a short text. So each verdict is asked of a child process (`python -m flopstat.graders_math`) that
answers one line per line; a child that does not answer in time is killed and replaced, and the chain's state is `timeout`. A child that
dies makes the chain `invalid`. What can only harm is refused before it is asked.

The order of `verify(gold, prediction)` matters: an inequality as gold admits an interval as answer, not the reverse.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache

from flopstat.children import Child, serve
from flopstat.numerals import MAX_DIGITS, normalize
from flopstat.readings import State, read_answer

TIMEOUT_S = 5.0
MEMORY_BYTES = 4 * 2**30
MAX_TEXT = 5_000  # characters of a text's end that are parsed
MAX_EXPRESSION = 2_000  # characters of a boxed expression
MAX_DEPTH = 50  # of nested brackets
MAX_RUN = 500  # digits in a row

Answer = tuple[State, str | None, bool]

_BOX = re.compile(r"\\boxed\s{0,4}\{")
_DIGITS = re.compile(rf"\d{{{MAX_RUN}}}")


class _Child(Child):
    def __init__(self) -> None:
        super().__init__(
            "flopstat.graders_math", "the grader math does not start; is math-verify installed? pip install 'math-verify[antlr4_13_2]'"
        )

    def ask(self, gold: str, prediction: str, seconds: float) -> Answer:
        line = self.put([gold, prediction], seconds)
        if not line:
            return ("timeout" if line is None else "invalid"), None, False
        state, answer, correct = json.loads(line)
        return state, answer, correct


_child = _Child()


def last_box(text: str) -> str | None:
    """Content of the last box that is closed, if it has at most MAX_EXPRESSION characters."""
    for opened in [m.end() for m in _BOX.finditer(text)][:-1001:-1]:
        depth = 1
        for found in re.finditer(r"[{}]", text[opened : opened + MAX_EXPRESSION]):
            depth += 1 if found[0] == "{" else -1
            if not depth:
                return text[opened : opened + found.start()]
    return None


def hostile(text: str) -> bool:
    """Whether a text holds brackets nested deeper, or more digits in a row, than any answer needs."""
    depth = deepest = 0
    for found in re.finditer(r"[({\[]|[)}\]]", text):
        depth = depth + 1 if found[0] in "({[" else max(0, depth - 1)
        deepest = max(deepest, depth)
    return deepest > MAX_DEPTH or _DIGITS.search(text) is not None


def gold_expression(answer: str) -> str:
    """The gold expression of a problem's answer: behind the last ####, in the last box, or the whole text; numbers in canonical form."""
    behind = answer.rpartition("####")[2].strip()
    expression = behind if "####" in answer else last_box(answer) or behind
    try:
        return normalize(expression)
    except ValueError:
        return expression


@lru_cache(maxsize=50_000)
def judge(text: str, finished: bool, gold: str, seconds: float = TIMEOUT_S) -> Answer:
    """State, answer and verdict of one text against a gold expression.

    An answer that is held equal to the gold one is written as the gold one; others are written as sympy prints them.
    """
    text = text[-MAX_TEXT:].replace("\0", " ").encode("utf-8", "replace").decode("utf-8")
    box = last_box(text)
    if not finished:
        state, number = read_answer(text, finished) if box is None else ("answered", None)
        if state != "answered":
            return state, None, False
        text = number if number is not None else f"\\boxed{{{box}}}"
    if hostile(text):
        return "invalid", None, False
    return _child.ask(gold, text, seconds)


def _verdict(gold: str, prediction: str) -> Answer:
    """What math-verify says, in the child."""
    from math_verify import parse, verify

    wanted = parse(gold if "$" in gold else f"${gold}$", parsing_timeout=None)
    if not wanted:
        return "invalid", None, False
    found = parse(prediction, parsing_timeout=None)
    if not found:
        return "no_answer", None, False
    if verify(wanted, found, timeout_seconds=None):
        return "answered", gold, True
    shown = str(found[0])
    if len(shown) > MAX_EXPRESSION or (shown.isdigit() and len(shown) > MAX_DIGITS):
        return "invalid", None, False
    return "answered", shown if shown != gold else f"{shown} (as another kind of object)", False


def _answered(question: list[str]) -> Answer:
    try:
        return _verdict(*question)
    except (Exception, RecursionError):  # of a text that math-verify cannot stand, and that is the verdict
        return "invalid", None, False


if __name__ == "__main__":
    _verdict("1", "$1$")
    serve(_answered, MEMORY_BYTES)
