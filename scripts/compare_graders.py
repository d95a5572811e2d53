"""Tabulate where graders disagree and how far each moves the accuracy of an arm."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flopstat import tables
from flopstat.agreement import disagreements, grader_shift

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main(
    arms: list[str],
    graders: list[str],
    config: dict[str, Any],
    paths_to_verdicts: list[Path],
    path_to_problems: Path,
    path_to_disagreements: Path,
    path_to_shift: Path,
) -> None:
    verdicts = {arm: tables.read("verdicts", path) for arm, path in zip(arms, paths_to_verdicts, strict=True)}
    tables.write(disagreements(verdicts, graders), "grader_disagreements", path_to_disagreements)
    tables.write(grader_shift(verdicts, graders, tables.read("problems", path_to_problems), config), "grader_shift", path_to_shift)


if __name__ == "__main__":
    main(
        arms=snakemake.params.arms,
        graders=snakemake.params.graders,
        config=snakemake.params.config,
        paths_to_verdicts=[Path(p) for p in snakemake.input.verdicts],
        path_to_problems=Path(snakemake.input.problems),
        path_to_disagreements=Path(snakemake.output.disagreements),
        path_to_shift=Path(snakemake.output.shift),
    )
