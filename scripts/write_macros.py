"""Write the paper's numbers as LaTeX macros, with the sources of each."""

from pathlib import Path
from typing import TYPE_CHECKING

from flopstat import paper

if TYPE_CHECKING:
    from snakemake.script import snakemake

if __name__ == "__main__":
    paper.write(
        folder=Path(snakemake.params.folder),
        files=snakemake.params.files,
        config=snakemake.params.config,
        figures=snakemake.params.figures,
    )
