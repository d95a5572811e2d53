"""Speed of the pool store: `python benchmarks/bench_pool.py [CHAINS] [TOKENS] [CHAINS_PER_APPEND]`. Prints one line per operation.

One thread, files in the page cache. Each figure is the median of three with its range; appending is timed once, on a new store.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa

from flopstat.pool import PER_TOKEN, Pool

REPEATS = 3
K = 64


def chains_of(n: int, tokens: int) -> list[Any]:
    """Chains of n / 64 problems in the order in which an engine might finish them."""
    rng = np.random.default_rng(1)
    # Chains finish near the others of their problem, but not in order.
    order = np.argsort(np.arange(n) + rng.integers(0, 1000, n))
    shared = {"budget": 0, "variant": 0, "prompt_tokens": 40, "finish_reason": "eos", "near_ties": 0, "inserted": 0}
    return [
        SimpleNamespace(
            problem_key=f"{i // K:020x}",
            sample=i % K,
            **shared,
            **{name: rng.integers(2, 68, tokens).astype(t) if t is np.int32 else rng.random(tokens, t) for name, t in PER_TOKEN.items()},
        )
        for i in order.tolist()
    ]


def timed(call: Callable[[], object], repeats: int = REPEATS) -> str:
    """Median and range of the seconds of a call."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return f"{np.median(seconds):.3f} s ({min(seconds):.3f} to {max(seconds):.3f})"


def main(n: int = 100_000, tokens: int = 50, per_append: int = 20) -> None:
    """Append, index, ask and read, each timed."""
    pa.set_cpu_count(1)
    chains = chains_of(n, tokens)
    problems = sorted({c.problem_key for c in chains})
    wanted = [(p, i, 0) for p in problems for i in range(K)][:100_000]
    print(f"{n:,} chains of {tokens} tokens, {per_append} to an append")
    with tempfile.TemporaryDirectory() as folder:
        pool = Pool(Path(folder), {"bench": 1})

        def append() -> None:
            with pool.writing() as writer:
                for start in range(0, n, per_append):
                    writer.append(chains[start : start + per_append])

        print("append, new store   ", timed(append, 1))
        size = sum(path.stat().st_size for path in pool.folder.glob("*.log"))
        print(f"bytes per chain      {size / n:,.0f} ({20 * tokens:,} of them arrays)")
        print("index, new object   ", timed(lambda: Pool(Path(folder), {"bench": 1}).missing([], 1)))
        pool.missing([], 1)
        print(f"missing of {len(wanted):,}  ", timed(lambda: pool.missing(wanted, tokens)))
        print("rows, all           ", timed(lambda: pool.rows(problems, tokens)))
        print("rows, three columns ", timed(lambda: pool.rows(problems, tokens, ["problem_key", "sample", "n_tokens"])))
        print("rows, 64 problems   ", timed(lambda: pool.rows(problems[:64], tokens)))
        print("blocks, all         ", timed(lambda: sum(table.num_rows for table in pool.blocks(problems, tokens))))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
