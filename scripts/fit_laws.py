"""Fit the laws of a study on its calibration problems, and those of the ladder's training."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flopstat import stored, tables
from flopstat.models import read_card
from flopstat.study_laws import fit_laws

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main(
    arms: list[str],
    references: dict[str, str],
    config: dict[str, Any],
    paths_to_grades: list[Path],
    paths_to_cards: list[Path],
    path_to_problems: Path,
    path_to_configurations: Path,
    path_to_cells: Path,
    paths_to_training_logs: list[Path],
    paths_to_tables: dict[str, Path],
    path_to_details: Path,
) -> None:
    found = fit_laws(
        {arm: tables.read("grades", path) for arm, path in zip(arms, paths_to_grades, strict=True)},
        {card.name: card for card in map(read_card, paths_to_cards)},
        references,
        tables.read("problems", path_to_problems),
        tables.read("configurations", path_to_configurations),
        tables.read("cells", path_to_cells),
        paths_to_training_logs,
        config,
    )
    for name, path in paths_to_tables.items():
        tables.write(found.tables[name], name, path)
    path_to_details.mkdir(parents=True, exist_ok=True)  # an output also where no law was fitted
    for law, text in found.details.items():
        stored.write_text(path_to_details / f"{law}.json", text)


if __name__ == "__main__":
    main(
        arms=snakemake.params.arms,
        references=snakemake.params.references,
        config=snakemake.params.config,
        paths_to_grades=[Path(p) for p in snakemake.input.grades],
        paths_to_cards=[Path(p) for p in snakemake.input.cards],
        path_to_problems=Path(snakemake.input.problems),
        path_to_configurations=Path(snakemake.input.configurations),
        path_to_cells=Path(snakemake.input.per_problem),
        paths_to_training_logs=[Path(p) for p in snakemake.input.training_logs],
        paths_to_tables={
            "laws": Path(snakemake.output.laws),
            "vote_gains": Path(snakemake.output.vote_gains),
            "local_kappa": Path(snakemake.output.local_kappa),
            "coverage": Path(snakemake.output.coverage),
            "weight_bits": Path(snakemake.output.weight_bits),
            "surface": Path(snakemake.output.surface),
            "surface_gradients": Path(snakemake.output.surface_gradients),
            "exponents": Path(snakemake.output.exponents),
            "law_sensitivity": Path(snakemake.output.law_sensitivity),
        },
        path_to_details=Path(snakemake.output.details),
    )
