"""Plot which axis buys most accuracy per doubling of cost."""

from pathlib import Path
from typing import TYPE_CHECKING

from flopstat import tables
from flopstat.frontier_figures import plot_dominance
from flopstat.style import write_data

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main(title: str, path_to_dominance: Path, path_to_pdf: Path, path_to_png: Path, path_to_data: Path) -> None:
    data = plot_dominance(tables.read("dominance", path_to_dominance), title, [path_to_pdf, path_to_png])
    write_data(data, path_to_data)


if __name__ == "__main__":
    main(
        title=snakemake.params.title,
        path_to_dominance=Path(snakemake.input.dominance),
        path_to_pdf=Path(snakemake.output.pdf),
        path_to_png=Path(snakemake.output.png),
        path_to_data=Path(snakemake.output.data),
    )
