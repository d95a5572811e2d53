"""Estimate accuracy and cost of every cell of a study."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flopstat import tables
from flopstat.study_cells import ArmFiles, estimate_study

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main(
    arms: list[ArmFiles],
    config: dict[str, Any],
    path_to_problems: Path,
    path_to_prices: Path | None,
    paths_to_tables: dict[str, Path],
    jobs: int,
) -> None:
    for name, table in estimate_study(arms, path_to_problems, path_to_prices, config, jobs).items():
        tables.write(table, name, paths_to_tables[name])


if __name__ == "__main__":
    cards = {Path(p).stem: Path(p) for p in snakemake.input.cards}
    measured = {Path(p).stem: Path(p) for p in snakemake.input.measured}
    main(
        arms=[
            ArmFiles(arm, Path(path), cards[arm.split("@")[0]], measured.get(arm))
            for arm, path in zip(snakemake.params.arms, snakemake.input.grades, strict=True)
        ],
        config=snakemake.params.config,
        path_to_problems=Path(snakemake.input.problems),
        path_to_prices=Path(snakemake.input.prices) if snakemake.input.prices else None,
        paths_to_tables={
            "configurations": Path(snakemake.output.configurations),
            "configurations_skipped": Path(snakemake.output.skipped),
            "cells": Path(snakemake.output.per_problem),
            "unknown_costs": Path(snakemake.output.unknown),
        },
        jobs=snakemake.threads,
    )
