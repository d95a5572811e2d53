"""Set what was drawn beside what was planned."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from flopstat import tables
from flopstat.columns import TABLES
from flopstat.reality import compare, read_run

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main(
    study: str,
    arms: list[str],
    budget: int,
    path_to_plan: Path,
    paths_to_views: list[Path],
    paths_to_summaries: list[Path],
    paths_to_pilots: list[Path],
    path_to_actual: Path,
) -> None:
    n = len(paths_to_views) // len(arms)  # shards of an arm, side by side
    runs = {
        arm: read_run(paths_to_views[i * n : (i + 1) * n], paths_to_summaries[i * n : (i + 1) * n], pilot, budget)
        for i, (arm, pilot) in enumerate(zip(arms, paths_to_pilots, strict=True))
    }
    rows = compare(study, tables.read("plan", path_to_plan), runs)
    tables.write(pd.DataFrame(rows, columns=list(TABLES["plan_actual"])), "plan_actual", path_to_actual)


if __name__ == "__main__":
    main(
        study=snakemake.params.study,
        arms=snakemake.params.arms,
        budget=snakemake.params.budget,
        path_to_plan=Path(snakemake.input.plan),
        paths_to_views=[Path(p) for p in snakemake.input.views],
        paths_to_summaries=[Path(p) for p in snakemake.input.summaries],
        paths_to_pilots=[Path(p) for p in snakemake.input.pilots],
        path_to_actual=Path(snakemake.output.actual),
    )
