"""Estimate accuracy and cost of every cell of a study."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from flopstat import tables
from flopstat.cells import ArmFacts, estimate_arm, skipped
from flopstat.models import ModelCard

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main(
    arms: list[str],
    config: dict[str, Any],
    paths_to_grades: list[Path],
    paths_to_cards: list[Path],
    paths_to_measured: list[Path],
    path_to_problems: Path,
    path_to_configurations: Path,
    path_to_skipped: Path,
    path_to_per_problem: Path,
) -> None:
    problems = tables.read("problems", path_to_problems)
    cards = {card.name: card for card in map(ModelCard.read, paths_to_cards)}
    rows, long, left_out = [], [], []
    for arm, path, measured in zip(arms, paths_to_grades, paths_to_measured, strict=True):
        model, precision = arm.split("@")
        result = json.loads(measured.read_text(encoding="utf-8"))
        prefill = {row["metric"]: row for row in result["rows"] if row["phase"] == "prefill"}
        effective = prefill["c_effective"]
        facts = ArmFacts(
            cards[model],
            precision,
            result["bits_effective"],
            prefill["c_counted"]["value"],
            (effective["value"], effective["low"], effective["high"]),
        )
        configurations, per_problem = estimate_arm(tables.read("grades", path), problems, facts, config)
        rows.append(configurations)
        long.append(per_problem)
        left_out += skipped(facts, config)
    tables.write(pd.concat(rows, ignore_index=True), "configurations", path_to_configurations)
    tables.write(pd.DataFrame(left_out, columns=list(tables.TABLES["configurations_skipped"])), "configurations_skipped", path_to_skipped)
    tables.write(pd.concat(long, ignore_index=True), "cells", path_to_per_problem)


if __name__ == "__main__":
    main(
        arms=snakemake.params.arms,
        config=snakemake.params.config,
        paths_to_grades=[Path(p) for p in snakemake.input.grades],
        paths_to_cards=[Path(p) for p in snakemake.input.cards],
        paths_to_measured=[Path(p) for p in snakemake.input.measured],
        path_to_problems=Path(snakemake.input.problems),
        path_to_configurations=Path(snakemake.output.configurations),
        path_to_skipped=Path(snakemake.output.skipped),
        path_to_per_problem=Path(snakemake.output.per_problem),
    )
