"""Plot the accuracy of the shipped ladder by number of steps."""

from pathlib import Path
from typing import TYPE_CHECKING

from flopstat.ladder_figures import plot_ladder, read_quality
from flopstat.style import write_data

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main(title: str, path_to_quality: Path, path_to_pdf: Path, path_to_png: Path, path_to_data: Path) -> None:
    write_data(plot_ladder(read_quality(path_to_quality), title, [path_to_pdf, path_to_png]), path_to_data)


if __name__ == "__main__":
    main(
        title=snakemake.params.title,
        path_to_quality=Path(snakemake.input.quality),
        path_to_pdf=Path(snakemake.output.pdf),
        path_to_png=Path(snakemake.output.png),
        path_to_data=Path(snakemake.output.data),
    )
