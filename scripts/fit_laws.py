"""Fit κ and α(q) of a study on its calibration problems."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from flopstat import tables
from flopstat.laws import fit_study_laws
from flopstat.models import read_card

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main(
    arms: list[str],
    references: dict[str, str],
    config: dict[str, Any],
    paths_to_grades: list[Path],
    paths_to_cards: list[Path],
    path_to_problems: Path,
    path_to_laws: Path,
) -> None:
    cards = {card.name: card for card in map(read_card, paths_to_cards)}
    grades = {arm: tables.read("grades", path) for arm, path in zip(arms, paths_to_grades, strict=True)}
    rows = fit_study_laws(grades, cards, references, tables.read("problems", path_to_problems), config)
    tables.write(pd.DataFrame(rows, columns=list(tables.TABLES["laws"])), "laws", path_to_laws)


if __name__ == "__main__":
    main(
        arms=snakemake.params.arms,
        references=snakemake.params.references,
        config=snakemake.params.config,
        paths_to_grades=[Path(p) for p in snakemake.input.grades],
        paths_to_cards=[Path(p) for p in snakemake.input.cards],
        path_to_problems=Path(snakemake.input.problems),
        path_to_laws=Path(snakemake.output.laws),
    )
