"""Speed of the estimators: `python benchmarks/bench_estimators.py`. Prints a table; docs/evidence.md holds the last numbers.

Threads, samples and processor are printed with the numbers. Each figure is the median of five alternating runs with its range.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")

import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flopstat import bootstrap
from flopstat.estimators import NO_ANSWER, majority_at_all_k
from flopstat.evaluation import evaluate_grades
from flopstat.strategies import SCORES, Pool, evaluate, permutations_for, strategy

REPEATS = 5
K = 64
POWERS = [1, 2, 4, 8, 16, 32, 64]
BUDGETS = 4


def pool_of(n: int, rng: np.random.Generator) -> Pool:
    """A synthetic pool: answers of problem i follow a Dirichlet(0.3) over eleven answers and none."""
    share = rng.dirichlet(np.full(12, 0.3), n).cumsum(axis=1)
    codes = (rng.random((n, K, 1)) > share[:, None, :]).sum(axis=2)
    return Pool(np.where(codes == 11, NO_ANSWER, codes), {name: rng.normal(size=(n, K)) + (codes == 0) for name in SCORES})


def with_intervals(pools: list[Pool], rules: list[tuple[str, list[int], int]], repeats: int) -> list[bootstrap.Interval]:
    """Accuracy, sampling error and interval of each (strategy, all its k, B) on each pool; the pools are those of the same problems."""
    w = bootstrap.weights(np.zeros(len(pools[0].codes), dtype=np.int64), 1000, np.random.default_rng(1))
    permutations = permutations_for(K, repeats, 1)
    out = []
    for pool in pools:
        for name, ks, branches in rules:
            for outcome in evaluate(strategy(name, branches), pool, ks, permutations):
                interval = bootstrap.proportion_interval(outcome.accuracy[:, None], w, 0.95)
                bootstrap.split_variance(float(interval.se[0]), outcome.sampling_variance)
                out.append(interval)
    return out


def timed(calls: dict[str, Callable[[], object]], repeats: int = REPEATS) -> dict[str, list[float]]:
    """Seconds of each call, the calls alternating."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - begun)
    return seconds


def line(name: str, seconds: list[float]) -> str:
    return f"{name:<66}{np.median(seconds):9.2f} s [{min(seconds):.2f}, {max(seconds):.2f}]"


def write_grades(path: Path, n: int, rng: np.random.Generator) -> None:
    """Grades of n problems × 64 samples as parquet, a million rows at most at a time."""
    block = max(1, 1_000_000 // K)
    writer = None
    for start in range(0, n, block):
        rows = min(block, n - start)
        pool = pool_of(rows, rng)
        codes = pool.codes.ravel()
        answers = pa.DictionaryArray.from_arrays(
            pa.array(np.where(codes == NO_ANSWER, None, codes), pa.int32()), [str(c) for c in range(11)]
        )
        states = pa.DictionaryArray.from_arrays(pa.array((codes == NO_ANSWER).astype(np.int32)), ["answered", "truncated"])
        constant = {"model": "m", "precision": "fp32"}
        table = pa.table(
            {
                "problem_id": pa.array(np.repeat(np.arange(start, start + rows), K)).cast(pa.string()),
                **{name: pa.array([value] * len(codes)) for name, value in constant.items()},
                "T": pa.array(np.full(len(codes), 64, dtype=np.int32)),
                "sample": pa.array(np.tile(np.arange(K, dtype=np.int32), rows)),
                "answer": answers.cast(pa.string()),
                "state": states.cast(pa.string()),
                "correct": pa.array(codes == 0),
                "mean_logprob": pa.array(pool.scores["mean_logprob"].ravel().astype(np.float32)),
            }
        )
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def main() -> None:
    rng = np.random.default_rng(0)
    processor = next(
        (x.split(":")[1].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")),
        platform.processor(),
    )
    print(f"{processor}, {os.environ['OMP_NUM_THREADS']} threads, float64; median of {REPEATS} alternating runs [range]")
    n = 15_625
    budgets = [pool_of(n, rng) for _ in range(BUDGETS)]
    closed = [("single", [1], 1), *((name, POWERS, 1) for name in ("majority", "best_of_mean_logprob", "oracle"))]
    composites = [("majority_of_best_of", [p * b for p in (2, 4, 8, 16)], b) for b in (2, 4)]
    seconds = timed(
        {
            f"closed forms, {n * K:,} samples, {BUDGETS} T x 7 P": lambda: with_intervals(budgets, closed, 8),
            f"P x B composites, {n * K:,} samples, {BUDGETS} T, 8 permutations": lambda: with_intervals(budgets, composites, 8),
        }
    )
    for name, values in seconds.items():
        print(line(name, values))
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB", flush=True)

    small = Pool(budgets[0].codes[:1000])
    draws = np.array([rng.permutation(K)[:8] for _ in range(1000)])

    def monte_carlo() -> None:
        rule = strategy("majority")
        for row in small.codes:
            rule.choose(row[draws], {})

    seconds = timed({"exact": lambda: majority_at_all_k(small.codes, small.gold, 8), "1,000 Monte Carlo draws": monte_carlo})
    for name, values in seconds.items():
        print(line(f"majority@8 of 64, 1,000 problems, {name}", values))
    ratio = np.array(seconds["1,000 Monte Carlo draws"]) / np.array(seconds["exact"])
    print(f"ratio {np.median(ratio):.1f} [{ratio.min():.1f}, {ratio.max():.1f}]", flush=True)

    share = rng.dirichlet(np.full(6, 0.5), 50)
    exact, first = [], []
    for _ in range(400):  # new pools of the same 50 problems: what is left is the sampling variance
        codes = (rng.random((50, K, 1)) > share.cumsum(axis=1)[:, None, :]).sum(axis=2)
        gold = np.zeros(50, dtype=np.int64)
        exact.append(majority_at_all_k(codes, gold, 8)[:, 7].mean())
        first.append(majority_at_all_k(codes[:, :8], gold, 8)[:, 7].mean())
    variance = np.var(first, ddof=1) / np.var(exact, ddof=1)
    spread = np.exp(np.array([-1.96, 1.96]) * np.sqrt(4 / 399))  # both variances, each known to a factor
    low, high = variance * spread
    print(f"sampling variance of 'first 8' over that of all subsets of 64: {variance:.1f} [{low:.1f}, {high:.1f}]")

    if "--large" in sys.argv:
        with tempfile.TemporaryDirectory() as folder:
            for samples in (10**5, 10**6, 10**7):
                path = Path(folder) / f"{samples}.parquet"
                write_grades(path, samples // K, rng)
                begun = time.perf_counter()
                evaluate_grades(path, POWERS, ["single", "majority", "best_of_mean_logprob", "oracle"])
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
                print(f"flopstat evaluate, {samples:,} samples: {time.perf_counter() - begun:.1f} s, peak memory {peak:.2f} GB", flush=True)


if __name__ == "__main__":
    main()
