"""Work every number of the paper out again from the cells it names, and fail where one differs."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flopstat import paper, stored

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main(folder: Path, files: list[str], path_to_source: Path, path_to_report: Path) -> None:
    wrong = paper.check(folder, files, path_to_source.read_text(encoding="utf-8"))
    if wrong:
        sys.exit("\n".join(f"flopstat: {line}" for line in wrong))
    stored.write_text(path_to_report, "Every number of the paper follows from the cells that numbers.csv names.\n")


if __name__ == "__main__":
    main(
        folder=Path(snakemake.params.folder),
        files=snakemake.params.files,
        path_to_source=Path(snakemake.input.source),
        path_to_report=Path(snakemake.output.report),
    )
