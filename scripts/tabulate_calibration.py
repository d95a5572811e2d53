"""Gather the measurements of all arms in one table."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from flopstat import tables

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main(arms: list[str], paths_to_measured: list[Path], path_to_table: Path) -> None:
    rows = [
        {"arm": arm} | row
        for arm, path in zip(arms, paths_to_measured, strict=True)
        for row in json.loads(path.read_text(encoding="utf-8"))["rows"]
    ]
    tables.write(pd.DataFrame(rows, columns=list(tables.TABLES["calibration"])), "calibration", path_to_table)


if __name__ == "__main__":
    main(
        arms=snakemake.params.arms,
        paths_to_measured=[Path(p) for p in snakemake.input.measured],
        path_to_table=Path(snakemake.output.table),
    )
