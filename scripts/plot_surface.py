"""Plot the surface, predicted against measured."""

from pathlib import Path
from typing import TYPE_CHECKING

from flopstat import tables
from flopstat.law_figures import plot_surface
from flopstat.style import write_data

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main(
    title: str,
    path_to_surface: Path,
    path_to_laws: Path,
    path_to_pdf: Path,
    path_to_png: Path,
    path_to_data: Path,
) -> None:
    predictions, laws = tables.read("surface", path_to_surface), tables.read("laws", path_to_laws)
    data = plot_surface(predictions, laws, title, [path_to_pdf, path_to_png])
    write_data(data, path_to_data)


if __name__ == "__main__":
    main(
        title=snakemake.params.title,
        path_to_surface=Path(snakemake.input.surface),
        path_to_laws=Path(snakemake.input.laws),
        path_to_pdf=Path(snakemake.output.pdf),
        path_to_png=Path(snakemake.output.png),
        path_to_data=Path(snakemake.output.data),
    )
