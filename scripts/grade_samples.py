"""Read the answers of one arm at every budget."""

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from flopstat import tables
from flopstat.grading import grade_side_by_side
from flopstat.models import ModelCard, checkpoint

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main(
    paths_to_views: list[Path],
    path_to_problems: Path,
    path_to_card: Path,
    precision: str,
    budgets: list[int],
    answer_prompt: str | None,
    graders: list[str],
    path_to_grades: Path,
    path_to_verdicts: Path,
) -> None:
    card = ModelCard.read(path_to_card)
    chains = pa.concat_tables(tables.read_view(path) for path in paths_to_views)
    problems, tokenizer = tables.read("problems", path_to_problems), checkpoint(card) / "tokenizer.json"
    grades, verdicts = grade_side_by_side(chains, problems, budgets, tokenizer, answer_prompt, graders)
    tables.write(grades.assign(model=card.name, precision=precision), "grades", path_to_grades)
    tables.write(verdicts.assign(model=card.name, precision=precision), "verdicts", path_to_verdicts)


if __name__ == "__main__":
    main(
        paths_to_views=[Path(p) for p in snakemake.input.views],
        path_to_problems=Path(snakemake.input.problems),
        path_to_card=Path(snakemake.input.card),
        precision=snakemake.wildcards.precision,
        budgets=snakemake.params.budgets,
        answer_prompt=snakemake.params.answer_prompt,
        graders=snakemake.params.graders,
        path_to_grades=Path(snakemake.output.grades),
        path_to_verdicts=Path(snakemake.output.verdicts),
    )
