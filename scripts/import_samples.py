"""Import the samples of one model that another tool drew."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flopstat import stored
from flopstat.imports import import_arm

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main(entry: dict[str, Any], path_to_samples: Path, path_to_card: Path) -> None:
    stored.write_text(path_to_card, import_arm(entry, path_to_samples).to_json())
    stored.seal(path_to_samples)


if __name__ == "__main__":
    main(
        entry=snakemake.params.entry,
        path_to_samples=Path(snakemake.output.samples),
        path_to_card=Path(snakemake.output.card),
    )
