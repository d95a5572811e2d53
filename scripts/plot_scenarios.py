"""Plot the frontiers of what-if scenarios beside the study's."""

from pathlib import Path
from typing import TYPE_CHECKING

from flopstat import tables
from flopstat.devices import mixed_devices
from flopstat.scenario_figure import plot_scenarios
from flopstat.style import write_data

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main(
    title: str,
    path_to_scenarios: Path,
    path_to_scenario_crossovers: Path,
    path_to_crossovers: Path,
    path_to_calibration: Path,
    path_to_pdf: Path,
    path_to_png: Path,
    path_to_data: Path,
) -> None:
    data = plot_scenarios(
        tables.read("scenarios", path_to_scenarios),
        tables.read("scenario_crossovers", path_to_scenario_crossovers),
        tables.read("crossovers", path_to_crossovers),
        title,
        mixed_devices(tables.read("calibration", path_to_calibration)),
        [path_to_pdf, path_to_png],
    )
    write_data(data, path_to_data)


if __name__ == "__main__":
    main(
        title=snakemake.params.title,
        path_to_scenarios=Path(snakemake.input.scenarios),
        path_to_scenario_crossovers=Path(snakemake.input.scenario_crossovers),
        path_to_crossovers=Path(snakemake.input.crossovers),
        path_to_calibration=Path(snakemake.input.calibration),
        path_to_pdf=Path(snakemake.output.pdf),
        path_to_png=Path(snakemake.output.png),
        path_to_data=Path(snakemake.output.data),
    )
