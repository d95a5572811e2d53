"""Gather the measurements of all arms in one table, with what each precision's speed is to its model's reference precision."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from flopstat import tables
from flopstat.columns import TABLES
from flopstat.stored import read_json
from flopstat.verdicts import verdict_rows

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main(arms: list[str], references: dict[str, str], paths_to_measured: list[Path], path_to_table: Path) -> None:
    measured = {arm: read_json(path) for arm, path in zip(arms, paths_to_measured, strict=True)}
    rows = []
    for arm, one in measured.items():
        model = arm.split("@")[0]
        reference = f"{model}@{references[model]}"
        compared = verdict_rows(one, measured[reference]) if reference != arm else []
        where = {"arm": arm, "verdict": None, "fingerprint": one["device"]["fingerprint"]}
        rows += [where | {key: value for key, value in row.items() if key != "rounds"} for row in one["rows"] + compared]
    tables.write(pd.DataFrame(rows, columns=list(TABLES["calibration"])), "calibration", path_to_table)


if __name__ == "__main__":
    main(
        arms=snakemake.params.arms,
        references=snakemake.params.references,
        paths_to_measured=[Path(p) for p in snakemake.input.measured],
        path_to_table=Path(snakemake.output.table),
    )
