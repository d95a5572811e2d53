"""A finished study, read from its results folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from flopstat import tables
from flopstat.errors import InputError
from flopstat.frontier import Judged, judge
from flopstat.stored import read_json
from flopstat.strategies import strategy


def load_judged(study: Path) -> tuple[Judged, dict[str, Any]]:
    """The study split of a results folder, and its config.

    Raises
    ------
    InputError
        If the folder holds no finished study.
    """
    for name in ("configurations.csv", "cells.parquet", "run.json"):
        if not (study / name).is_file():
            raise InputError(f"{study}: no {name}; give the results folder of a finished study (`make run`)")
    try:
        config = read_json(study / "run.json", "record of a run")["config"]
    except KeyError:
        raise InputError(f"{study / 'run.json'}: holds no config; run the study again") from None
    settings = {"seed": config["seed"], "statistics": config["statistics"], "samples": config["sampling"]["samples"]}
    configurations = tables.read("configurations", study / "configurations.csv")
    return judge(configurations, tables.read("cells", study / "cells.parquet"), settings), config


def deployable(judged: Judged) -> Judged:
    """The cells that make one answer without knowing the right one: `oracle` and `round_robin_m` of m > 1 are no way to run a model."""
    names = {name: name == "greedy" or (name != "oracle" and strategy(name).answers == 1) for name in judged.cells["strategy"].unique()}
    kept = judged.cells["strategy"].map(names).to_numpy(dtype=bool)
    return replace(judged, cells=judged.cells[kept].reset_index(drop=True), values=judged.values[:, kept])
