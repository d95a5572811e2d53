"""What sampling really took, beside its plan."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flopstat.columns import PLANNED
from flopstat.errors import InputError
from flopstat.pilot import Pilot
from flopstat.stored import read_json
from flopstat.tables import read_view

TOTAL = "total"
RECORDED = ("new_tokens", "job_seconds", "peak_memory_bytes")  # in a shard's summary
COMPARED = ("tokens", "seconds", "memory_bytes")
MEASURED, EARLIER, PARTLY, UNPLANNED = "measured", "drawn earlier", "partly drawn earlier", "not planned"
# Of the tokens that a study's jobs should have drawn, the share that they may miss or exceed and still count as having drawn them: tokens
# that were lost with a full memory, or a job that was killed in its last second.
TOLERANCE = 0.02


@dataclass(frozen=True)
class Run:
    """What one arm's sampling took.

    tokens : of its chains, cut at the largest T, and forced answers, whenever they were drawn; the pilot's are among them.
    seconds : of the jobs that drew them, start-up included; NaN if others drew them.
    memory_bytes : peak of these jobs.
    drawn : share of the tokens, the pilot's left out, that these jobs drew.
    """

    tokens: int
    seconds: float
    memory_bytes: float
    drawn: float

    @property
    def status(self) -> str:
        if self.drawn <= TOLERANCE:
            return EARLIER
        return MEASURED if abs(self.drawn - 1) <= TOLERANCE else PARTLY


def read_jobs(paths_to_summaries: list[Path]) -> dict[str, float]:
    """What the jobs of some shards took together: tokens, seconds, and the largest peak of memory.

    Raises
    ------
    InputError
        If a summary is missing, or holds no such numbers.
    """
    jobs = []
    for path in paths_to_summaries:
        summary = read_json(path, "summary of a sampling job")
        try:
            job = summary["recorded"]
            if not all(type(job[key]) in (int, float) and 0 <= job[key] < math.inf for key in RECORDED):
                raise ValueError("a number that is none")
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{path}: no summary of a sampling job; run the study again (`make run`)") from None
        jobs.append(job)
    *sums, peak = RECORDED
    return {key: sum(job[key] for job in jobs) for key in sums} | {peak: max(job[peak] for job in jobs)}


def read_run(paths_to_views: list[Path], paths_to_summaries: list[Path], path_to_pilot: Path, budget: int) -> Run:
    """What an arm's shards hold and took; a rerun that drew nothing still has what earlier jobs noted."""
    tokens = 0
    for path in paths_to_views:
        view = read_view(path, ["n_tokens"]).column("n_tokens").to_numpy()
        tokens += int(np.minimum(view, budget).sum())
    jobs = read_jobs(paths_to_summaries)
    pilot = Pilot.read(path_to_pilot)
    rest = tokens - int(np.minimum(pilot.length, budget).sum() + pilot.answer_tokens.sum())
    drawn = jobs["new_tokens"] / rest if rest > 0 else 0.0
    return Run(tokens, jobs["job_seconds"], jobs["peak_memory_bytes"], drawn)


def compare(study: str, plan: pd.DataFrame, runs: dict[str, Run]) -> list[dict[str, Any]]:
    """Rows of plan_actual.csv: per arm and in total what was planned, what it took, and their ratio.

    Time and memory stand there only for chains that the study's own jobs drew: a pool that was full has none.
    """
    planned = plan.set_index(["arm", "quantity"])
    actual: dict[tuple[str, str], float] = {}
    for arm, run in runs.items():
        actual |= {(arm, "tokens"): run.tokens, (arm, "seconds"): run.seconds, (arm, "memory_bytes"): run.memory_bytes}
    actual[TOTAL, "tokens"] = sum(run.tokens for run in runs.values())
    actual[TOTAL, "seconds"] = sum(run.seconds for run in runs.values())
    actual[TOTAL, "memory_bytes"] = max(run.memory_bytes for run in runs.values())
    status = {arm: run.status for arm, run in runs.items()}
    kinds = set(status.values())
    status[TOTAL] = kinds.pop() if len(kinds) == 1 else PARTLY
    rows = []
    for arm in [*runs, TOTAL]:
        for quantity in COMPARED:
            there = (arm, quantity) in planned.index
            value, low, high = planned.loc[(arm, quantity), ["value", "low", "high"]].to_numpy(float) if there else [np.nan] * 3
            has = quantity == "tokens" or status[arm] == MEASURED
            found = actual[arm, quantity] if has else np.nan
            rows.append(
                {
                    "study": study,
                    "arm": arm,
                    "quantity": quantity,
                    "unit": PLANNED[quantity],
                    "planned": value,
                    "low": low,
                    "high": high,
                    "actual": found,
                    "ratio": found / value if value > 0 else np.nan,
                    "status": (MEASURED if has else status[arm]) if there else UNPLANNED,
                }
            )
    return rows
