"""Plot predicted against measured times, and the roofline."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from flopstat.calibration_figure import plot_calibration, points
from flopstat.models import ModelCard
from flopstat.stored import read_json
from flopstat.style import write_data

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main(
    title: str,
    arms: list[str],
    paths_to_measured: list[Path],
    paths_to_cards: list[Path],
    path_to_pdf: Path,
    path_to_png: Path,
    path_to_data: Path,
) -> None:
    cards = {card.name: card for card in map(ModelCard.read, paths_to_cards)}
    parts = [points(arm, cards[arm.split("@")[0]], read_json(path)) for arm, path in zip(arms, paths_to_measured, strict=True)]
    data = pd.concat(parts, ignore_index=True)
    plot_calibration(data, title, [path_to_pdf, path_to_png])
    write_data(data, path_to_data)


if __name__ == "__main__":
    main(
        title=snakemake.params.title,
        arms=snakemake.params.arms,
        paths_to_measured=[Path(p) for p in snakemake.input.measured],
        paths_to_cards=[Path(p) for p in snakemake.input.cards],
        path_to_pdf=Path(snakemake.output.pdf),
        path_to_png=Path(snakemake.output.png),
        path_to_data=Path(snakemake.output.data),
    )
