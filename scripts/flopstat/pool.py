"""The pool store: every chain ever drawn, kept by what its tokens depend on.

`results/pools/<key>/` holds `key.json` and segments. A segment is one parquet file with page checksums that is written whole and renamed
into place, so a kill loses at most the batch in flight and never leaves half a record. One process writes a pool at a time (file lock).
The key holds all that changes the output; speed settings (batch, shard, threads) are not in it. Growing K draws only what is missing.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock

if TYPE_CHECKING:
    from flopstat.engine import Chain

SCHEMA = pa.schema(
    [
        ("problem_key", pa.string()),
        ("sample", pa.int32()),
        ("prompt_tokens", pa.int32()),
        ("n_tokens", pa.int32()),
        ("finish_reason", pa.string()),
        ("near_ties", pa.int32()),
        ("ids", pa.list_(pa.int32())),
        ("logprob", pa.list_(pa.float32())),
        ("entropy", pa.list_(pa.float32())),
        ("self_certainty", pa.list_(pa.float32())),
        ("confidence", pa.list_(pa.float32())),
    ]
)


class Pool:
    """One pool of chains in a folder named by the hash of its key."""

    def __init__(self, store: Path, key: dict[str, Any]) -> None:
        text = json.dumps(key, sort_keys=True, indent=1)
        self.folder = store / hashlib.sha256(text.encode()).hexdigest()[:20]
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write_once(self.folder / "key.json", text)

    @staticmethod
    def _write_once(path: Path, text: str) -> None:
        if not path.exists():
            temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, path)

    def lock(self, timeout_s: float = -1) -> FileLock:
        """The lock that a writer holds; a second writer waits (for ever by default)."""
        return FileLock(self.folder / "writer.lock", timeout=timeout_s)

    def segments(self) -> list[Path]:
        return sorted(self.folder.glob("segment-*.parquet"))

    def append(self, chains: Sequence[Chain]) -> None:
        """Store chains as one new segment, whole or not at all."""
        if not chains:
            return
        columns = {
            "problem_key": [c.problem_key for c in chains],
            "sample": [c.sample for c in chains],
            "prompt_tokens": [c.prompt_tokens for c in chains],
            "n_tokens": [len(c.ids) for c in chains],
            "finish_reason": [c.finish_reason for c in chains],
            "near_ties": [c.near_ties for c in chains],
            **{name: [getattr(c, name) for c in chains] for name in ("ids", "logprob", "entropy", "self_certainty", "confidence")},
        }
        temporary = self.folder / f".{uuid.uuid4().hex}.tmp"
        pq.write_table(pa.table(columns, schema=SCHEMA), temporary, compression="zstd", write_page_checksum=True)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        number = 1 + max((int(p.stem.split("-")[1]) for p in self.folder.glob("segment-*")), default=-1)
        os.replace(temporary, self.folder / f"segment-{number:06d}.parquet")

    def sweep(self) -> int:
        """Remove what a killed writer left behind and set torn segments aside; call it under the lock. Returns how many were torn."""
        for leftover in self.folder.glob(".*.tmp"):
            leftover.unlink()
        torn = 0
        for path in self.segments():
            try:
                pq.read_table(path, page_checksum_verification=True)
            except (OSError, pa.ArrowException):
                path.rename(path.with_suffix(".torn"))
                torn += 1
        return torn

    def rows(self, problem_keys: Iterable[str], max_tokens: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Stored chains of some problems that serve a budget of `max_tokens`, one row per (problem, sample).

        A chain serves if it ended by itself or is at least that long. Longer chains are returned as they are: whoever reads them cuts.
        """
        wanted = pa.array(sorted(set(problem_keys)), pa.string())
        parts = [
            pq.read_table(path, columns=list(columns) if columns else None, filters=pc.field("problem_key").isin(wanted))
            for path in self.segments()
        ]
        table = pa.concat_tables(parts) if parts else SCHEMA.empty_table()
        serves = pc.or_(pc.equal(table["finish_reason"], "eos"), pc.greater_equal(table["n_tokens"], max_tokens))
        table = table.filter(serves)
        keys = table.select(["problem_key", "sample"]).to_pandas()
        return table.take(pa.array(keys.drop_duplicates().sort_values(["problem_key", "sample"]).index.to_numpy()))

    def missing(self, problem_keys: Sequence[str], samples: Sequence[int], max_tokens: int) -> list[tuple[str, int]]:
        """(problem, sample) pairs that are asked for and not stored."""
        there = self.rows(problem_keys, max_tokens, ["problem_key", "sample", "finish_reason", "n_tokens"])
        have = set(zip(there["problem_key"].to_pylist(), there["sample"].to_pylist(), strict=True))
        return [(p, i) for p in problem_keys for i in samples if (p, i) not in have]
