"""Measure per pair of arms what common random numbers gain for their difference."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from flopstat import tables
from flopstat.columns import TABLES
from flopstat.models import ModelCard
from flopstat.pairing import measure_variance_ratios

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main(
    arms: list[str],
    config: dict[str, Any],
    paths_to_grades: list[Path],
    paths_to_cards: list[Path],
    path_to_problems: Path,
    path_to_ratios: Path,
) -> None:
    grades = {arm: tables.read("grades", path) for arm, path in zip(arms, paths_to_grades, strict=True)}
    cards = {card.name: card for card in map(ModelCard.read, paths_to_cards)}
    rows = measure_variance_ratios(grades, cards, tables.read("problems", path_to_problems), config)
    tables.write(pd.DataFrame(rows, columns=list(TABLES["variance_ratio"])), "variance_ratio", path_to_ratios)


if __name__ == "__main__":
    main(
        arms=snakemake.params.arms,
        config=snakemake.params.config,
        paths_to_grades=[Path(p) for p in snakemake.input.grades],
        paths_to_cards=[Path(p) for p in snakemake.input.cards],
        path_to_problems=Path(snakemake.input.problems),
        path_to_ratios=Path(snakemake.output.ratios),
    )
