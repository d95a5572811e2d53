"""Record what a run was made from."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flopstat.provenance import record

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main(config: dict[str, Any], paths_to_tables: list[Path], paths_to_measured: list[Path], path_to_record: Path) -> None:
    measured = [json.loads(path.read_text(encoding="utf-8")) for path in paths_to_measured]
    path_to_record.write_text(record(config, {path.name: path for path in paths_to_tables}, measured), encoding="utf-8")


if __name__ == "__main__":
    main(
        config=snakemake.params.config,
        paths_to_tables=[Path(p) for p in snakemake.input.tables],
        paths_to_measured=[Path(p) for p in snakemake.input.measured],
        path_to_record=Path(snakemake.output.record),
    )
