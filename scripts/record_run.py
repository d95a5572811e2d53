"""Record what a run was made from."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flopstat import stored
from flopstat.provenance import record

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main(config: dict[str, Any], paths_to_tables: list[Path], paths_to_measured: list[Path], path_to_record: Path) -> None:
    measured = [stored.read_json(path, "calibration") for path in paths_to_measured]
    stored.write_text(path_to_record, record(config, {path.name: path for path in paths_to_tables}, measured))


if __name__ == "__main__":
    main(
        config=snakemake.params.config,
        paths_to_tables=[Path(p) for p in snakemake.input.tables],
        paths_to_measured=[Path(p) for p in snakemake.input.measured],
        path_to_record=Path(snakemake.output.record),
    )
