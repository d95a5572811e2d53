"""Generate chosen cells one by one and compare them with the pool's estimates."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flopstat import tables
from flopstat.models import ModelCard
from flopstat.validation import ids_agree, summary, validate_study

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main(
    arms: list[str],
    config: dict[str, Any],
    paths_to_grades: list[Path],
    paths_to_cards: list[Path],
    path_to_problems: Path,
    path_to_per_problem: Path,
    path_to_store: Path,
    path_to_table: Path,
    path_to_ids: Path,
    path_to_log: Path,
) -> None:
    cards = {card.name: card for card in map(ModelCard.read, paths_to_cards)}
    grades = {arm: tables.read("grades", path) for arm, path in zip(arms, paths_to_grades, strict=True)}
    per_problem = tables.read("cells", path_to_per_problem)
    table, ids = validate_study(config, tables.read("problems", path_to_problems), per_problem, cards, grades, path_to_store)
    said = summary(table, ids)
    path_to_log.write_text(said + "\n", encoding="utf-8")
    print(said, file=sys.stderr)
    if not ids_agree(ids):
        raise AssertionError(f"the plain loop and the engine draw different tokens:\n{said}")
    tables.write(table, "validation", path_to_table)
    path_to_ids.write_text(json.dumps(ids, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(
        arms=snakemake.params.arms,
        config=snakemake.params.config,
        paths_to_grades=[Path(p) for p in snakemake.input.grades],
        paths_to_cards=[Path(p) for p in snakemake.input.cards],
        path_to_problems=Path(snakemake.input.problems),
        path_to_per_problem=Path(snakemake.input.per_problem),
        path_to_store=Path(snakemake.params.store),
        path_to_table=Path(snakemake.output.table),
        path_to_ids=Path(snakemake.output.ids),
        path_to_log=Path(str(snakemake.log)),
    )
