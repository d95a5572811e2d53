"""Plot FLOP per right answer, latency and throughput against the number of streams."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from flopstat import tables
from flopstat.columns import TABLES
from flopstat.devices import mixed_devices
from flopstat.facts import read_facts
from flopstat.models import read_card
from flopstat.stream_figures import plot_cost, plot_latency
from flopstat.streams import streams_of
from flopstat.style import write_data

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main(
    title: str,
    references: dict[str, str],
    config: dict[str, Any],
    drawn: list[str],
    paths_to_grades: list[Path],
    paths_to_cards: list[Path],
    paths_to_measured: list[Path],
    path_to_problems: Path,
    path_to_calibration: Path,
    path_to_minima: Path,
    path_to_latency: Path,
    cost_figure: dict[str, Path],
    latency_figure: dict[str, Path],
) -> None:
    problems = tables.read("problems", path_to_problems)
    cards = {card.name: card for card in map(read_card, paths_to_cards)}
    found = []
    for arm, path, measured in zip(drawn, paths_to_grades, paths_to_measured, strict=True):
        model, precision = arm.split("@")
        found.append(streams_of(read_facts(cards[model], precision, measured, None, config), tables.read("grades", path), problems, config))
    minima = pd.DataFrame([one.minimum for one in found if one.minimum], columns=list(TABLES["cost_per_correct"]))
    speed = pd.concat([one.speed for one in found], ignore_index=True)
    tables.write(minima, "cost_per_correct", path_to_minima)
    tables.write(speed, "latency_by_streams", path_to_latency)
    curve = pd.concat([one.curve for one in found], ignore_index=True)
    note = mixed_devices(tables.read("calibration", path_to_calibration))
    confidence = config["statistics"]["confidence"]
    drawn_cost = plot_cost(curve, minima, references, confidence, title, [cost_figure["pdf"], cost_figure["png"]])
    drawn_latency = plot_latency(speed, references, confidence, title, note, [latency_figure["pdf"], latency_figure["png"]])
    for data, figure in ((drawn_cost, cost_figure), (drawn_latency, latency_figure)):
        write_data(data, figure["data"])


if __name__ == "__main__":
    main(
        title=snakemake.params.title,
        references=snakemake.params.references,
        config=snakemake.params.config,
        drawn=snakemake.params.drawn,
        paths_to_grades=[Path(p) for p in snakemake.input.grades],
        paths_to_cards=[Path(p) for p in snakemake.input.cards],
        paths_to_measured=[Path(p) for p in snakemake.input.measured],
        path_to_problems=Path(snakemake.input.problems),
        path_to_calibration=Path(snakemake.input.calibration),
        path_to_minima=Path(snakemake.output.minima),
        path_to_latency=Path(snakemake.output.latency),
        cost_figure={kind: Path(snakemake.output[f"cost_{kind}"]) for kind in ("pdf", "png", "data")},
        latency_figure={kind: Path(snakemake.output[f"latency_{kind}"]) for kind in ("pdf", "png", "data")},
    )
