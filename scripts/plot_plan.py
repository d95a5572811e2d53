"""Plot tokens, time and memory over what was planned."""

from pathlib import Path
from typing import TYPE_CHECKING

from flopstat import tables
from flopstat.plan_figure import plot_plan
from flopstat.style import write_data

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main(title: str, path_to_actual: Path, path_to_pdf: Path, path_to_png: Path, path_to_data: Path) -> None:
    data = plot_plan(tables.read("plan_actual", path_to_actual), title, [path_to_pdf, path_to_png])
    write_data(data, path_to_data)


if __name__ == "__main__":
    main(
        title=snakemake.params.title,
        path_to_actual=Path(snakemake.input.actual),
        path_to_pdf=Path(snakemake.output.pdf),
        path_to_png=Path(snakemake.output.png),
        path_to_data=Path(snakemake.output.data),
    )
