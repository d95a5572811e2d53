"""Plot accuracy against a cost."""

from pathlib import Path
from typing import TYPE_CHECKING

from flopstat import tables
from flopstat.devices import mixed_devices
from flopstat.figures import plot_accuracy
from flopstat.style import write_data

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main(
    title: str,
    references: dict[str, str],
    cost: str | None,
    path_to_configurations: Path,
    path_to_frontier: Path,
    path_to_crossovers: Path,
    path_to_calibration: Path,
    path_to_pdf: Path,
    path_to_png: Path,
    path_to_data: Path,
) -> None:
    data = plot_accuracy(
        tables.read("configurations", path_to_configurations),
        tables.read("frontier", path_to_frontier),
        tables.read("crossovers", path_to_crossovers),
        references,
        title,
        [path_to_pdf, path_to_png],
        cost,
        mixed_devices(tables.read("calibration", path_to_calibration)),
    )
    write_data(data, path_to_data)


if __name__ == "__main__":
    main(
        title=snakemake.params.title,
        references=snakemake.params.references,
        cost=snakemake.params.cost,
        path_to_configurations=Path(snakemake.input.configurations),
        path_to_frontier=Path(snakemake.input.frontier),
        path_to_crossovers=Path(snakemake.input.crossovers),
        path_to_calibration=Path(snakemake.input.calibration),
        path_to_pdf=Path(snakemake.output.pdf),
        path_to_png=Path(snakemake.output.png),
        path_to_data=Path(snakemake.output.data),
    )
