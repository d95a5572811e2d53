"""Worker processes for what others wrote and we evaluate: each answers one JSON line per JSON line, and can be killed."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

START_S = 120.0  # until a child has imported what it needs


class Child:
    """One worker process, `python -m MODULE`; a question restarts it where it was killed or died."""

    def __init__(self, module: str, missing: str) -> None:
        self.module, self.missing = module, missing  # what to say where it does not start
        self.process: subprocess.Popen[bytes] | None = None
        atexit.register(self.stop)

    def _started(self) -> subprocess.Popen[bytes]:
        if self.process is None or self.process.poll() is not None:
            self.stop()
            path = os.pathsep.join([str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")])
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,
            )
            if not self._line(self.process, START_S):
                raise RuntimeError(self.missing)
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

    def put(self, question: Any, seconds: float) -> bytes | None:
        """The child's answer, a line of JSON; b"" if it died, None if it took too long and was killed."""
        process = self._started()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.flush()
            line = self._line(process, seconds)
        except BrokenPipeError:
            line = b""
        if not line:
            self.stop()
        return line

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for stream in (self.process.stdin, self.process.stdout):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):  # a question that it did not read any more
                        stream.close()
            self.process = None


def serve(answer: Callable[[Any], Any], memory_bytes: int) -> None:
    """In the child: answer each line until the input ends. `answer` has imported what it needs."""
    import logging
    import resource

    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not become an answer
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    logging.disable(logging.CRITICAL)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers, flush=True)
