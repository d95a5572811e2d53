"""Plot how far graders move accuracy, and which chains they judge differently."""

from pathlib import Path
from typing import TYPE_CHECKING

from flopstat import tables
from flopstat.grader_figure import plot_graders
from flopstat.style import write_data

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main(
    title: str,
    confidence: float,
    path_to_shift: Path,
    path_to_disagreements: Path,
    path_to_problems: Path,
    path_to_pdf: Path,
    path_to_png: Path,
    path_to_data: Path,
) -> None:
    shift, disagreements = tables.read("grader_shift", path_to_shift), tables.read("grader_disagreements", path_to_disagreements)
    problems = tables.read("problems", path_to_problems)
    study = problems.loc[problems["split"] == "study", "problem_id"]
    write_data(plot_graders(shift, disagreements, study, confidence, title, [path_to_pdf, path_to_png]), path_to_data)


if __name__ == "__main__":
    main(
        title=snakemake.params.title,
        confidence=snakemake.params.confidence,
        path_to_shift=Path(snakemake.input.shift),
        path_to_disagreements=Path(snakemake.input.disagreements),
        path_to_problems=Path(snakemake.input.problems),
        path_to_pdf=Path(snakemake.output.pdf),
        path_to_png=Path(snakemake.output.png),
        path_to_data=Path(snakemake.output.data),
    )
