"""Compare the pairs of arms that the config names, problem by problem."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flopstat import tables
from flopstat.comparison import compare_pairs
from flopstat.frontier import judge

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main(
    pairs: list[list[str]], config: dict[str, Any], path_to_configurations: Path, path_to_per_problem: Path, path_to_pairs: Path
) -> None:
    judged = judge(tables.read("configurations", path_to_configurations), tables.read("cells", path_to_per_problem), config)
    tables.write(compare_pairs(judged, pairs), "pairs", path_to_pairs)


if __name__ == "__main__":
    main(
        pairs=snakemake.params.pairs,
        config=snakemake.params.config,
        path_to_configurations=Path(snakemake.input.configurations),
        path_to_per_problem=Path(snakemake.input.per_problem),
        path_to_pairs=Path(snakemake.output.pairs),
    )
