"""Speed of the graders: `python benchmarks/bench_graders.py [--lm-eval PYTHON] [--samples N]`. docs/evidence.md holds the last numbers.

One million generated solutions of a few lines, each with a numeric answer, through `flopstat grade` on two processes, as users run it; then
the rate of single graders on one thread against math-verify (parse of gold and prediction, and verify, in this process) and against
lm-evaluation-harness's own gsm8k filters and metric, run by an interpreter that has lm-eval 0.4.9 (--lm-eval; without it that ratio is
left out). Runs alternate; medians with ranges.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import importlib.metadata
import json
import logging
import platform
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from flopstat.graders import GRADERS
from flopstat.submissions import grade_file

ROOT = Path(__file__).resolve().parents[1]
REPEATS = 5
JOBS = 2
N_RATE, N_MATH = 20_000, 1_000  # texts of one timed run


def solution(i: int, rng: np.random.Generator) -> tuple[str, str]:
    """Gold number and a text: two worked lines and an answer in one of the forms that models use."""
    a, b, c = (int(x) for x in rng.integers(2, 5000, 3))
    gold = a * b + c
    value = gold if rng.random() < 0.6 else gold + int(rng.integers(1, 50))
    form = ("#### {:,}", "#### {}", "#### ${}.00", "The answer is {}.", "A: {}", "so \\boxed{{{}}}", "That makes {:,} in all.")[i % 7]
    steps = f"First {a} * {b} = <<{a}*{b}={a * b}>>{a * b} eggs are sold on {i % 30 + 1} days.\nThen {c} more, {a * b} + {c}, are sold.\n"
    return str(gold), steps + form.format(value)


def write_files(folder: Path, n: int, rng: np.random.Generator) -> None:
    """Problems and samples, ten to a problem, for `flopstat grade`."""
    with (folder / "problems.jsonl").open("w") as problems, (folder / "samples.jsonl").open("w") as samples:
        for i in range(n):
            gold, text = solution(i, rng)
            if i % 10 == 0:
                problems.write(json.dumps({"question": "How many?", "answer": f"#### {gold}"}) + "\n")
            row = {"problem_id": str(i // 10), "model": "m", "n_params": 1, "precision": "fp32", "sample": i % 10, "text": text}
            samples.write(json.dumps(row) + "\n")


def ours(names: list[str], rows: list[tuple[str, str]]) -> float:
    """Seconds per text of some of our graders."""
    begun = time.perf_counter()
    for name in names:
        one = GRADERS[name]
        for gold, text in rows:
            one.grade(text, True, one.gold(gold))
    return (time.perf_counter() - begun) / len(rows)


def math_verify(rows: list[tuple[str, str]]) -> float:
    """Seconds per text of math-verify, without the processes that guard it."""
    from math_verify import parse, verify

    begun = time.perf_counter()
    for gold, text in rows:
        verify(parse(f"${gold}$", parsing_timeout=None), parse(text, parsing_timeout=None), timeout_seconds=None)
    return (time.perf_counter() - begun) / len(rows)


def lm_eval(python: str, rows: list[tuple[str, str]]) -> float:
    """Seconds per text of lm-eval's two filters and its metric, its start-up left out."""
    lines = "".join(json.dumps([f"#### {gold}", text]) + "\n" for gold, text in rows)
    runner = str(ROOT / "tests" / "golden" / "run_lm_eval.py")
    done = subprocess.run([python, runner], input=lines, capture_output=True, text=True, check=True, env={"OMP_NUM_THREADS": "1"})
    return float(done.stderr.split()[-1]) / len(rows)


def shown(name: str, values: list[float], unit: str) -> str:
    return f"{name:<78}{np.median(values):10.2f} {unit} [{min(values):.2f}, {max(values):.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lm-eval", help="interpreter that has lm-eval 0.4.9")
    parser.add_argument("--samples", type=int, default=1_000_000)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    processor = next((x.split(":")[1].strip() for x in cpuinfo if x.startswith("model name")), platform.processor())
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("math-verify", "sympy"))
    print(f"{processor}, Python {platform.python_version()}, {versions}; median of {REPEATS} alternating runs [range]", flush=True)
    rng = np.random.default_rng(0)

    seconds: dict[str, list[float]] = {key: [] for key in ("gsm8k", "harness", "math", "lm_eval")}
    for _ in range(REPEATS):
        rows = [solution(i, rng) for i in range(N_RATE)]  # new texts each time: no cache has seen them
        seconds["gsm8k"].append(ours(["gsm8k"], rows))
        seconds["harness"].append(ours(["gsm8k-strict", "gsm8k-flexible"], rows))
        seconds["math"].append(math_verify(rows[:N_MATH]))
        if options.lm_eval:
            seconds["lm_eval"].append(lm_eval(options.lm_eval, rows))
    micro = {key: [1e6 * v for v in values] for key, values in seconds.items()}
    print(shown("gsm8k, one thread", micro["gsm8k"], "us/text"))
    print(shown("gsm8k-strict and gsm8k-flexible, one thread", micro["harness"], "us/text"))
    print(shown("math-verify, parse and verify, one thread", micro["math"], "us/text"))
    ratios = {"gsm8k's rate over math-verify's": np.array(micro["math"]) / np.array(micro["gsm8k"])}
    if options.lm_eval:
        print(shown("lm-eval 0.4.9, strict-match and flexible-extract, one thread", micro["lm_eval"], "us/text"))
        ratios["our two harness graders' rate over lm-eval's"] = np.array(micro["lm_eval"]) / np.array(micro["harness"])
        ratios["gsm8k's rate over that of lm-eval's two filters"] = np.array(micro["lm_eval"]) / np.array(micro["gsm8k"])
    else:
        print("lm-eval: no interpreter given (--lm-eval), its ratio is left out")
    for name, ratio in ratios.items():
        print(shown(name, ratio.tolist(), "times"), flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder, options.samples, rng)
        times = []
        for _ in range(REPEATS):
            begun = time.perf_counter()
            grade_file(folder / "problems.jsonl", folder / "samples.jsonl", "gsm8k", folder / "grades.csv", JOBS)
            times.append(time.perf_counter() - begun)
        print(shown(f"flopstat grade, {options.samples:,} samples, {JOBS} processes of one thread, to CSV", times, "s"))


if __name__ == "__main__":
    main()
