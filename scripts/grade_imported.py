"""Read the answers of imported samples."""

from pathlib import Path
from typing import TYPE_CHECKING

from flopstat import tables
from flopstat.imports import grade_imported

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main(
    model: str,
    precision: str,
    budgets: list[int],
    graders: list[str],
    path_to_samples: Path,
    path_to_problems: Path,
    path_to_grades: Path,
    path_to_verdicts: Path,
) -> None:
    samples, problems = tables.read("imported", path_to_samples), tables.read("problems", path_to_problems)
    grades, verdicts = grade_imported(samples, problems, budgets, f"{model}@{precision}", graders)
    tables.write(grades.assign(model=model, precision=precision), "grades", path_to_grades)
    tables.write(verdicts.assign(model=model, precision=precision), "verdicts", path_to_verdicts)


if __name__ == "__main__":
    main(
        model=snakemake.wildcards.model,
        precision=snakemake.wildcards.precision,
        budgets=snakemake.params.budgets,
        graders=snakemake.params.graders,
        path_to_samples=Path(snakemake.input.samples),
        path_to_problems=Path(snakemake.input.problems),
        path_to_grades=Path(snakemake.output.grades),
        path_to_verdicts=Path(snakemake.output.verdicts),
    )
