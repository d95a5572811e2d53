"""Plot where the larger model's single pass overtakes."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flopstat import tables
from flopstat.finished import deployable
from flopstat.frontier import judge
from flopstat.frontier_figures import plot_crossovers
from flopstat.style import write_data

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main(
    title: str,
    config: dict[str, Any],
    path_to_configurations: Path,
    path_to_per_problem: Path,
    path_to_crossovers: Path,
    path_to_pdf: Path,
    path_to_png: Path,
    path_to_data: Path,
) -> None:
    judged = judge(tables.read("configurations", path_to_configurations), tables.read("cells", path_to_per_problem), config)
    data = plot_crossovers(deployable(judged), tables.read("crossovers", path_to_crossovers), title, [path_to_pdf, path_to_png])
    write_data(data, path_to_data)


if __name__ == "__main__":
    main(
        title=snakemake.params.title,
        config=snakemake.params.config,
        path_to_configurations=Path(snakemake.input.configurations),
        path_to_per_problem=Path(snakemake.input.per_problem),
        path_to_crossovers=Path(snakemake.input.crossovers),
        path_to_pdf=Path(snakemake.output.pdf),
        path_to_png=Path(snakemake.output.png),
        path_to_data=Path(snakemake.output.data),
    )
