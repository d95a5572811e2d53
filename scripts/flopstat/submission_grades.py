"""The grades of a file of samples: complete or refused, written as G.csv, and summed up in a line a person reads."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flopstat.columns import FAILED, STATES
from flopstat.errors import InputError

MOST_REPLICATES, FEWEST_REPLICATES, MOST_WEIGHTS = 2000, 100, 4_000_000  # of the bootstrap, whose weights are one matrix in memory
SEED = 20261121
BLOCK_ROWS = 1_000_000  # written at a time


@dataclass
class Codes:
    """Numbers for texts, in order of appearance; None is -1."""

    of: dict[str, int] = field(default_factory=dict)

    def __call__(self, values: tuple[str | None, ...]) -> NDArray[np.int32]:
        of = self.of
        return np.array([-1 if v is None else of.setdefault(v, len(of)) for v in values], dtype=np.int32)


@dataclass(frozen=True)
class Graded:
    """All graded samples as columns: codes of texts with what they stand for, and numbers (NaN where unknown)."""

    columns: dict[str, NDArray[Any]]
    texts: dict[str, list[str]]
    path: str

    def check_complete(self, golds: dict[str, str]) -> None:
        """Every problem has each sample 0 to K - 1 of each (model, precision) once; greedy for all or none.

        Raises
        ------
        InputError
            Naming the first sample that is missing or stands twice.
        """
        c = self.columns
        problems = list(golds)
        number = {p: i for i, p in enumerate(problems)}
        row = np.array([number[p] for p in self.texts["problem_id"]], dtype=np.int64)[c["problem_id"]]
        for model, precision in self.groups():
            here = (c["model"] == model) & (c["precision"] == precision)
            sample = c["sample"][here].astype(np.int64) + 1
            arm = f"{self.path}: {self.texts['model'][model]}@{self.texts['precision'][precision]}"
            width = int(sample.max()) + 1
            if width > 100 + 10 * len(sample):
                raise InputError(f"{arm}: sample {width - 2} of {len(sample)} in all; number samples from 0 without gaps")
            count = np.bincount(row[here] * width + sample, minlength=len(problems) * width).reshape(len(problems), width)
            if (count > 1).any():
                p, s = (int(x) for x in np.argwhere(count > 1)[0])
                raise InputError(f"{arm}: problem_id {problems[p]!r} has sample {s - 1} {count[p, s]} times; each sample once is wanted")
            wanted = np.ones(width, dtype=bool)
            wanted[0] = count[:, 0].any()
            if (count[:, wanted] == 0).any():
                p, s = (int(x) for x in np.argwhere((count == 0) & wanted)[0])
                lacks = f"{int((count[:, wanted] == 0).sum())} missing in all"
                raise InputError(f"{arm}: problem_id {problems[p]!r} lacks sample {s - 1} ({lacks}); give every sample of every problem")

    def groups(self) -> list[tuple[int, int]]:
        """The (model, precision) codes, in order of appearance."""
        n = len(self.texts["precision"])
        pairs = np.flatnonzero(np.bincount(self.columns["model"].astype(np.int64) * n + self.columns["precision"]))
        return [(int(pair) // n, int(pair) % n) for pair in pairs]

    def write(self, out: Path) -> None:
        """Write the grades, whole or not at all; columns that hold an unknown value are left out."""
        import pyarrow as pa
        from pyarrow import csv
        from pyarrow import parquet as pq

        c = self.columns
        budget = np.zeros(len(c["sample"]), dtype=np.int64)
        for model, precision in self.groups():
            here = (c["model"] == model) & (c["precision"] == precision)
            longest = c["n_tokens"][here].max()
            budget[here] = 0 if np.isnan(longest) else int(longest)

        def text(name: str, rows: slice) -> pa.Array:
            codes = c[name][rows]
            return pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), pa.array(self.texts[name], pa.string())).cast(
                pa.string()
            )

        def block(rows: slice) -> pa.Table:
            columns = {name: text(name, rows) for name in ("problem_id", "model", "precision")}
            columns |= {"sample": pa.array(c["sample"][rows]), "T": pa.array(budget[rows]), "answer": text("answer", rows)}
            columns["state"] = pa.DictionaryArray.from_arrays(pa.array(c["state"][rows]), pa.array(STATES)).cast(pa.string())
            columns |= {"correct": pa.array(c["correct"][rows]), "finish_reason": text("finish_reason", rows)}
            for name in ("n_tokens", "prompt_tokens", "mean_logprob"):
                if not np.isnan(c[name]).any():
                    columns[name] = pa.array(c[name][rows] if name == "mean_logprob" else c[name][rows].astype(np.int64))
            return pa.table(columns)

        blocks = [slice(i, i + BLOCK_ROWS) for i in range(0, len(budget), BLOCK_ROWS)]
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = out.with_name(f".{out.name}.tmp")
        schema = block(slice(0, 0)).schema
        with pq.ParquetWriter(temporary, schema) if out.suffix == ".parquet" else csv.CSVWriter(temporary, schema) as writer:
            for rows in blocks:
                writer.write_table(block(rows))
        os.replace(temporary, out)

    def lines(self, golds: dict[str, str]) -> list[str]:
        """The conservation line of each (model, precision), and the accuracy of its single samples with an interval over problems."""
        from flopstat import bootstrap

        out = []
        c = self.columns
        row = c["problem_id"]
        replicates = max(FEWEST_REPLICATES, min(MOST_REPLICATES, MOST_WEIGHTS // len(golds)))
        w = bootstrap.weights(np.zeros(len(golds), dtype=np.int64), replicates, np.random.default_rng([SEED, 6]))
        for model, precision in self.groups():
            arm = f"{self.texts['model'][model]}@{self.texts['precision'][precision]}"
            for kind, drawn in (("samples", c["sample"] >= 0), ("greedy", c["sample"] < 0)):
                here = (c["model"] == model) & (c["precision"] == precision) & drawn
                if not here.any():
                    continue
                counts = dict(zip(STATES, np.bincount(c["state"][here], minlength=len(STATES)).tolist(), strict=True))
                failed, correct = sum(counts[s] for s in FAILED), int(c["correct"][here].sum())
                asked = int(here.sum())
                assert asked == counts["answered"] + counts["no_answer"] + counts["truncated"] + failed
                total, right = (np.bincount(row[here], weights, len(golds)) for weights in (None, c["correct"][here].astype(float)))
                values = right / total
                limits = bootstrap.proportion_interval(values[:, None], w, 0.95)
                low, high = float(limits.low[0]), float(limits.high[0])
                out += [
                    f"{arm}, {kind}: asked {asked} = answered {counts['answered']} + no_answer {counts['no_answer']} "
                    f"+ truncated {counts['truncated']} + failed {failed} ({', '.join(f'{s} {counts[s]}' for s in FAILED)}); "
                    f"answered = correct {correct} + wrong {counts['answered'] - correct}",
                    f"{arm}, {kind}: accuracy {values.mean():.4f} [{low:.4f}, {high:.4f}], 95% over {bootstrap.ESTIMAND}, n = {len(values)}"
                    + (f"; with failed ones right at most {(correct + failed) / asked:.4f}" if failed else ""),
                ]
        return out
