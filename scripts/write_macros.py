"""Write the paper's numbers as LaTeX macros."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flopstat import tables
from flopstat.models import read_card
from flopstat.paper import macros

if TYPE_CHECKING:
    from snakemake.script import snakemake

NAMES = ("problems", "refusals", "configurations", "configurations_skipped", "calibration", "laws", "frontier", "crossovers")


def main(
    config: dict[str, Any],
    paths_to_tables: dict[str, Path],
    paths_to_cards: list[Path],
    paths_to_measured: list[Path],
    path_to_macros: Path,
) -> None:
    loaded = {name: tables.read(name, path) for name, path in paths_to_tables.items()}
    cards = [read_card(path) for path in paths_to_cards]
    measured = [json.loads(path.read_text(encoding="utf-8")) for path in paths_to_measured]
    path_to_macros.write_text(macros(config, loaded, cards, measured), encoding="utf-8")


if __name__ == "__main__":
    main(
        config=snakemake.params.config,
        paths_to_tables={name: Path(snakemake.input[name.replace("configurations_skipped", "skipped")]) for name in NAMES},
        paths_to_cards=[Path(p) for p in snakemake.input.cards],
        paths_to_measured=[Path(p) for p in snakemake.input.measured],
        path_to_macros=Path(snakemake.output.macros),
    )
