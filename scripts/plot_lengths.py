"""Plot accuracy and states of single chains against their budget."""

from pathlib import Path
from typing import TYPE_CHECKING

from flopstat import tables
from flopstat.length_figure import plot_lengths
from flopstat.style import write_data

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main(
    title: str,
    references: dict[str, str],
    confidence: float,
    path_to_configurations: Path,
    path_to_pdf: Path,
    path_to_png: Path,
    path_to_data: Path,
) -> None:
    configurations = tables.read("configurations", path_to_configurations)
    write_data(plot_lengths(configurations, references, confidence, title, [path_to_pdf, path_to_png]), path_to_data)


if __name__ == "__main__":
    main(
        title=snakemake.params.title,
        references=snakemake.params.references,
        confidence=snakemake.params.confidence,
        path_to_configurations=Path(snakemake.input.configurations),
        path_to_pdf=Path(snakemake.output.pdf),
        path_to_png=Path(snakemake.output.png),
        path_to_data=Path(snakemake.output.data),
    )
