"""Forecast what a study takes."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from flopstat import tables
from flopstat.columns import TABLES
from flopstat.plan_inputs import read_inputs
from flopstat.plan_text import make_plan, show, table_rows

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main(config: dict[str, Any], results: Path, cores: int, path_to_plan: Path, path_to_log: Path) -> None:
    plan = make_plan(read_inputs(config, results, anywhere=True), config["plan"]["resolve_points"], cores)
    tables.write(pd.DataFrame(table_rows(plan), columns=list(TABLES["plan"])), "plan", path_to_plan)
    with path_to_log.open("w", encoding="utf-8") as stream:
        show(plan, stream)


if __name__ == "__main__":
    main(
        config=snakemake.params.config,
        results=Path(snakemake.params.results),
        cores=snakemake.params.cores,
        path_to_plan=Path(snakemake.output.plan),
        path_to_log=Path(snakemake.log[0]),
    )
