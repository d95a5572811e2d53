"""Plot the ladder's training-time laws and their exponents."""

from pathlib import Path
from typing import TYPE_CHECKING

from flopstat import tables
from flopstat.ladder_figures import plot_training_laws
from flopstat.style import write_data

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main(
    title: str,
    confidence: float,
    paths_to_training_logs: list[Path],
    path_to_details: Path,
    path_to_exponents: Path,
    path_to_pdf: Path,
    path_to_png: Path,
    path_to_data: Path,
) -> None:
    exponents = tables.read("exponents", path_to_exponents)
    data = plot_training_laws(paths_to_training_logs, path_to_details, exponents, confidence, title, [path_to_pdf, path_to_png])
    write_data(data, path_to_data)


if __name__ == "__main__":
    main(
        title=snakemake.params.title,
        confidence=snakemake.params.confidence,
        paths_to_training_logs=[Path(p) for p in snakemake.input.training_logs],
        path_to_details=Path(snakemake.input.details),
        path_to_exponents=Path(snakemake.input.exponents),
        path_to_pdf=Path(snakemake.output.pdf),
        path_to_png=Path(snakemake.output.png),
        path_to_data=Path(snakemake.output.data),
    )
