"""Speed of the law engine against plain scipy: `python benchmarks/bench_laws.py [--all] [--runs 3] [--data FILE]`.

Chinchilla's 240 points (svg_extracted_data.csv of Besiroglu et al. 2024, which is not shipped), Huber loss in log space with delta 1e-3,
4,500 starts (Hoffmann et al.'s grid) and 4,000 bootstrap refits from the optimum, the same for both; one thread. scipy takes a share of the
starts and of the refits, drawn at random, times the whole (--all: all of them). Seconds are of the processor, which other programs on the
machine lengthen less than those of the clock.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import platform
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from flopstat.lawbook import catalogue
from flopstat.lawbook.fitting import Settings, compiled_for, optimum, problem_for, starts_for
from flopstat.lawbook.objectives import objective
from flopstat.lawbook.observations import Observations, read
from flopstat.lawbook.optimiser import minimise

Floats = NDArray[np.float64]

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data" / "chinchilla" / "svg_extracted_data.csv"
MAP = ["N=Model Size", "D=Training FLOP/(6*Model Size)", "L=loss"]
STARTS, REFITS = 4500, 4000
DELTA = 1e-3


def scipy_loss(theta: Floats, log_n: Floats, log_d: Floats, y: Floats, weights: Floats) -> float:
    """The loss as one would write it for scipy: gradient by differences."""
    e, a, b, alpha, beta = theta
    r = np.abs(np.logaddexp(np.logaddexp(a - alpha * log_n, b - beta * log_d), e) - y)
    return float((weights * np.where(r <= DELTA, 0.5 * r * r, DELTA * (r - 0.5 * DELTA))).sum())


def by_scipy(starts: Floats, weights: Floats, data: Observations) -> tuple[float, Floats]:
    """Processor seconds, and the loss that each start ends at."""
    columns = (np.log(data.variables["N"]), np.log(data.variables["D"]), np.log(data.y))
    begun = time.process_time()
    with np.errstate(all="ignore"):
        values = [minimize(scipy_loss, s, args=(*columns, w), method="L-BFGS-B").fun for s, w in zip(starts, weights, strict=True)]
    return time.process_time() - begun, np.array(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="scipy takes every start and refit (minutes)")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--data", type=Path, default=DATA)
    asked = parser.parse_args()
    if not asked.data.is_file():
        print(f"{asked.data}: no such file; the law engine is not measured, --data FILE names Chinchilla's points")
        return
    law = catalogue.find("hoffmann")
    data = read(asked.data, law, MAP, "loss:5")
    begun = time.process_time()
    compiled_for(law, "log", {}).value_and_gradient(np.ones((1, 5)), [np.ones(1), np.ones(1)])
    compiling = time.process_time() - begun
    problem = problem_for(law, data, objective("huber-log", DELTA, data.y), {})
    starts = starts_for(law, data, {}, Settings())
    assert len(starts) == STARTS
    _, _, best = optimum(law, data, {}, Settings())
    rng = np.random.default_rng(0)
    weights = rng.multinomial(len(data), np.full(len(data), 1 / len(data)), REFITS).astype(np.float64)
    share = 1.0 if asked.all else 0.04
    some, few = (rng.permutation(total)[: round(share * total)] for total in (STARTS, REFITS))
    once = np.ones((len(some), len(data)))
    seconds: dict[str, list[float]] = {"grid": [], "grid, scipy": [], "refits": [], "refits, scipy": []}
    for _ in range(asked.runs):
        begun = time.process_time()
        ours = minimise(problem, starts)
        seconds["grid"].append(time.process_time() - begun)
        taken, theirs = by_scipy(starts[some], once, data)
        seconds["grid, scipy"].append(taken / share)
        begun = time.process_time()
        refits = minimise(problem, np.tile(best, (REFITS, 1)), weights, near=True)
        seconds["refits"].append(time.process_time() - begun)
        taken, scipy_refits = by_scipy(np.tile(best, (len(few), 1)), weights[few], data)
        seconds["refits, scipy"].append(taken / share)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    processor = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), platform.processor())
    print(
        f"{processor}, one thread; medians of {asked.runs} alternating runs [range]; scipy on {share:.0%} of the work, times {1 / share:g}"
    )
    for name, values in seconds.items():
        print(f"{name:<16}{np.median(values):9.2f} s [{min(values):.2f}, {max(values):.2f}]")
    for name in ("grid", "refits"):
        ratios = np.array(seconds[f"{name}, scipy"]) / np.array(seconds[name])
        print(f"{name}: {np.median(ratios):.1f} times faster [{ratios.min():.1f}, {ratios.max():.1f}]")
    total = {k: np.array(v) for k, v in seconds.items()}
    both = (total["grid, scipy"] + total["refits, scipy"]) / (total["grid"] + total["refits"])
    print(f"together: {np.median(both):.1f} times faster [{both.min():.1f}, {both.max():.1f}]; compiling once takes {compiling:.2f} s more")
    least = min(float(ours.value.min()), float(theirs.min()))
    print(f"objective {ours.value.min():.6e}")
    for tolerance in (1e-4, 1e-2):
        reached = [np.mean(v <= least * (1 + tolerance)) for v in (ours.value, theirs)]
        print(f"within {tolerance:.2%} of it: {reached[0]:.1%} of starts, scipy {reached[1]:.1%}")
    gap = scipy_refits / refits.value[few] - 1
    print(f"refits: scipy's loss is over 1% higher in {np.mean(gap > 0.01):.1%}, over 1% lower in {np.mean(gap < -0.01):.1%}")


if __name__ == "__main__":
    main()
