"""Cells of all arms of a study, an arm a process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd

from flopstat import tables
from flopstat.cells import estimate_arm, skipped
from flopstat.columns import TABLES
from flopstat.facts import read_facts
from flopstat.models import ImportedCard, read_card
from flopstat.prices import Prices
from flopstat.spending import unknown_costs

MADE = ("configurations", "configurations_skipped", "cells", "unknown_costs")


@dataclass(frozen=True)
class ArmFiles:
    """Where the grades, the card and, if the arm was sampled here, the calibration of an arm lie."""

    arm: str
    grades: Path
    card: Path
    measured: Path | None


def estimate_study(
    arms: list[ArmFiles], path_to_problems: Path, path_to_prices: Path | None, config: dict[str, Any], jobs: int = 1
) -> dict[str, pd.DataFrame]:
    """The tables of MADE over all arms, in the order of `arms`, whatever the number of processes.

    Parameters
    ----------
    config : mapping
        What `cells.estimate_arm` and `facts.read_facts` read of the study's.
    jobs : int
        Processes at once; each has one thread of linear algebra, so that sums have the same order with one and with many.
    """
    one = partial(_estimate_one, path_to_problems, path_to_prices, config)
    parts = list(map(one, arms) if jobs == 1 else _in_processes(one, arms, min(jobs, len(arms))))
    found = dict(zip(MADE, zip(*parts, strict=True), strict=True))
    return {name: pd.concat(each, ignore_index=True) for name, each in found.items()}


def _in_processes(one: Any, arms: list[ArmFiles], jobs: int) -> Iterator[tuple[pd.DataFrame, ...]]:
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        yield from pool.map(one, arms)


def _estimate_one(path_to_problems: Path, path_to_prices: Path | None, config: dict[str, Any], files: ArmFiles) -> tuple[pd.DataFrame, ...]:
    card = read_card(files.card)
    prices = Prices.read(path_to_prices) if path_to_prices else None
    facts = read_facts(card, files.arm.split("@")[1], files.measured, prices, config)
    grades = tables.read("grades", files.grades)
    own = config | {"samples": int(grades["sample"].max()) + 1}  # an imported pool is as large as it is
    if isinstance(card, ImportedCard):
        own["budgets"] = config["budgets"] | {"T": sorted(grades["T"].unique().tolist())}
    configurations, per_problem = estimate_arm(grades, tables.read("problems", path_to_problems), facts, own)
    left_out = pd.DataFrame(skipped(facts, own, grades), columns=list(TABLES["configurations_skipped"]))
    unknown = pd.DataFrame(unknown_costs(facts, configurations), columns=list(TABLES["unknown_costs"]))
    return configurations, left_out, per_problem, unknown
