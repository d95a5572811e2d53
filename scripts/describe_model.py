"""Resolve a model and record its size, shape and hashes."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flopstat import stored
from flopstat.models import describe

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main(entry: dict[str, Any], path_to_store: Path, path_to_card: Path) -> None:
    stored.write_text(path_to_card, describe(entry, path_to_store).to_json())


if __name__ == "__main__":
    main(
        entry=snakemake.params.entry,
        path_to_store=Path(snakemake.params.store),
        path_to_card=Path(snakemake.output.card),
    )
