"""Plot accuracy against costs, a figure each."""

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
    costs: list[str | None],
    path_to_configurations: Path,
    path_to_frontier: Path,
    path_to_crossovers: Path,
    path_to_calibration: Path,
    paths_to_pdfs: list[Path],
    paths_to_pngs: list[Path],
    paths_to_data: list[Path],
) -> None:
    configurations = tables.read("configurations", path_to_configurations)
    frontier = tables.read("frontier", path_to_frontier)
    crossovers = tables.read("crossovers", path_to_crossovers)
    note = mixed_devices(tables.read("calibration", path_to_calibration))
    for cost, pdf, png, path_to_data in zip(costs, paths_to_pdfs, paths_to_pngs, paths_to_data, strict=True):
        data = plot_accuracy(configurations, frontier, crossovers, references, title, [pdf, png], cost, note)
        write_data(data, path_to_data)


if __name__ == "__main__":
    main(
        title=snakemake.params.title,
        references=snakemake.params.references,
        costs=snakemake.params.costs,
        path_to_configurations=Path(snakemake.input.configurations),
        path_to_frontier=Path(snakemake.input.frontier),
        path_to_crossovers=Path(snakemake.input.crossovers),
        path_to_calibration=Path(snakemake.input.calibration),
        paths_to_pdfs=[Path(p) for p in snakemake.output.pdf],
        paths_to_pngs=[Path(p) for p in snakemake.output.png],
        paths_to_data=[Path(p) for p in snakemake.output.data],
    )
