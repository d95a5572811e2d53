"""Choose the study's problems and count the refusals by reason."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flopstat import tables
from flopstat.problems import prompts_of, select_problems

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main(
    dataset: dict[str, Any],
    prompt: dict[str, str],
    variants: list[dict[str, Any]],
    seed: int,
    path_to_problems: Path,
    path_to_refusals: Path,
) -> None:
    selection = select_problems(dataset, prompts_of(prompt, variants), seed)
    tables.write(selection.problems, "problems", path_to_problems)
    tables.write(selection.refusals, "refusals", path_to_refusals)


if __name__ == "__main__":
    main(
        dataset=snakemake.params.dataset,
        prompt=snakemake.params.prompt,
        variants=snakemake.params.variants,
        seed=snakemake.params.seed,
        path_to_problems=Path(snakemake.output.problems),
        path_to_refusals=Path(snakemake.output.refusals),
    )
