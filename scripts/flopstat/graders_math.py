"""The `math` grader: math-verify in worker processes that can be killed.

Sympy can take hours or all memory on a short text. So each verdict is asked of a child process (`python -m flopstat.graders_math`) that
answers one line per line; a child that does not answer in time is killed and replaced, and the chain's state is `timeout`. A child that
dies makes the chain `invalid`. What can only harm is refused before it is asked.

The order of `verify(gold, prediction)` matters: an inequality as gold admits an interval as answer, not the reverse.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import re
import select
import subprocess
import sys
import time
from functools import lru_cache
from pathlib import Path

from flopstat.numerals import MAX_DIGITS, normalize
from flopstat.readings import State, read_answer

TIMEOUT_S = 5.0
START_S = 120.0  # until a child has imported sympy
MEMORY_BYTES = 4 * 2**30
MAX_TEXT = 5_000  # characters of a text's end that are parsed
MAX_EXPRESSION = 2_000  # characters of a boxed expression
MAX_DEPTH = 50  # of nested brackets
MAX_RUN = 500  # digits in a row

Answer = tuple[State, str | None, bool]

_BOX = re.compile(r"\\boxed\s{0,4}\{")
_DIGITS = re.compile(rf"\d{{{MAX_RUN}}}")


class _Child:
    """One worker process; `ask` restarts it where it was killed or died."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def _started(self) -> subprocess.Popen[bytes]:
        if self.process is None or self.process.poll() is not None:
            self.stop()
            path = os.pathsep.join([str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")])
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flopstat.graders_math"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,
            )
            if self._line(self.process, START_S) is None:
                raise RuntimeError("the grader math does not start; is math-verify installed? pip install 'math-verify[antlr4_13_2]'")
        return self.process

    def _line(self, process: subprocess.Popen[bytes], seconds: float) -> bytes | None:
        """One line of the child; b"" if it died, None if it took too long."""
        assert process.stdout is not None
        line, until = b"", time.monotonic() + seconds
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                return None
            part = os.read(process.stdout.fileno(), 65_536)
            if not part:
                return b""
            line += part
        return line

    def ask(self, gold: str, prediction: str, seconds: float) -> Answer:
        process = self._started()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps([gold, prediction]).encode() + b"\n")
            process.stdin.flush()
            line = self._line(process, seconds)
        except BrokenPipeError:
            line = b""
        if not line:
            self.stop()
            return ("timeout" if line is None else "invalid"), None, False
        state, answer, correct = json.loads(line)
        return state, answer, correct

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for stream in (self.process.stdin, self.process.stdout):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):  # a question that it did not read any more
                        stream.close()
            self.process = None


_child = _Child()
atexit.register(_child.stop)


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


def main() -> None:
    """Answer each line [gold, prediction] with [state, answer, correct] until the input ends."""
    import logging
    import resource

    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not become an answer
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    _verdict("1", "$1$")
    logging.disable(logging.CRITICAL)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        gold, prediction = json.loads(line)
        try:
            verdict = _verdict(gold, prediction)
        except (Exception, RecursionError):  # of a text that math-verify cannot stand, and that is the verdict
            verdict = ("invalid", None, False)
        print(json.dumps(verdict), file=answers, flush=True)


if __name__ == "__main__":
    main()
