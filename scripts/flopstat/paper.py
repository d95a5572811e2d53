"""The paper's macros: every number with its source, every sentence and table body made of such numbers.

Written to results/<study>/paper/: settings.csv (what the paper quotes of config and code), assumptions.csv, macros.tex, and numbers.csv,
which names for each number the file, row and column of the cells that it stands on.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd

from flopstat import assumptions, paper_study, paper_tables, paper_text, stored, tables
from flopstat.cells import PERMUTATIONS
from flopstat.coverage_law import REJECTED
from flopstat.frontier import HALVES
from flopstat.latex import escape as escape
from flopstat.latex import number as number
from flopstat.sourced import OPERATIONS, Cell, Ledger, Sources

SETTINGS, ASSUMPTIONS, NUMBERS, MACROS = (f"paper/{name}" for name in ("settings.csv", "assumptions.csv", "numbers.csv", "macros.tex"))
_NUMBER = re.compile(r"\\FSnumber\{([^{}]+)\}\{(.*)\}\{([^{}]*)\}")
_USE = re.compile(r"\\FS\{([^{}]+)\}")
_TEXT = re.compile(r"\\newcommand\{\\(FS[A-Za-z]+)\}\{%\n(.*?)%\n\}\n", re.DOTALL)


def settings(config: dict[str, Any]) -> pd.DataFrame:
    """What the paper quotes of config and code, as it is printed: lists with commas."""
    dataset, budgets, sampling = config["dataset"], config["budgets"], config["sampling"]
    statistics = config["statistics"]
    quoted = {
        "study": config["study"],
        "title": config["title"] or config["study"],
        "max_steps": dataset["max_steps"],
        "repo": dataset["repo"] or "",
        "revision": (dataset["revision"] or "")[:12],
        "path": Path(dataset["path"] or "").name,
        **{axis: ", ".join(map(str, budgets[axis])) for axis in ("T", "P", "B")},
        "samples": sampling["samples"],
        "temperature": sampling["temperature"],
        "compute_dtype": sampling["compute_dtype"],
        "confidence": statistics["confidence"],
        "replicates": statistics["replicates"],
        "repeats": config["calibration"]["repeats"],
        "seed": config["seed"],
        "halves": HALVES,
        "permutations": PERMUTATIONS,
        "rejected": REJECTED,
    }
    return pd.DataFrame({"key": list(quoted), "value": [str(v) for v in quoted.values()]})


def _name_numbers(ledger: Ledger, measured: str) -> None:
    """The numbers that paper/flopstat.tex uses by name.

    Parameters
    ----------
    measured : the first arm that was drawn here, whose C is quoted
    """
    quoted = {"Title": "title", "Study": "study", "TGrid": "T", "PGrid": "P", "BGrid": "B", "K": "samples", "NHalves": "halves"}
    quoted |= {"NPermutations": "permutations", "Replicates": "replicates", "CRepeats": "repeats", "Dtype": "compute_dtype", "Seed": "seed"}
    for name, key in quoted.items():
        ledger.show("text", paper_text.setting(ledger, key), name=name)
    ledger.show("general", paper_text.setting(ledger, "temperature"), name="Temperature")
    ledger.show("times 100, whole", paper_text.setting(ledger, "confidence"), name="Confidence")

    def rows(file: str, **where: str) -> Cell:
        return Cell(file, tuple(where.items()), "")

    ledger.show("number of rows", rows("problems.parquet", split="study"), name="NStudy")
    ledger.show("number of rows", rows("problems.parquet", split="calibration"), name="NCalibration")
    ledger.show("number of rows", rows("configurations.csv", split="study"), name="NCells")
    ledger.show("number of distinct values", Cell("configurations.csv", (), "arm"), name="NArms")
    asked, selected, rest = (ledger.sources.one("refusals.csv", reason=r).cell("n_problems") for r in ("asked", "selected", "not_selected"))
    ledger.show("integer", asked, name="NAsked")
    ledger.show("integer", selected, name="NSelected")
    ledger.show("first less the others", asked, selected, rest, name="NRefused")

    single = (("strategy", "single"), ("T", paper_text.largest_t(ledger)))
    n_asked = Cell("configurations.csv", single, "n_asked")
    ledger.show("sum", n_asked, name="NChains")
    ledger.show("sum", Cell("configurations.csv", single, "n_failed"), name="NFailed")
    for name in ("answered", "no_answer", "truncated"):
        state = Cell("configurations.csv", single, f"n_{name}")
        ledger.show("100 times sum over sum, 1 decimal", state, n_asked, name="Share" + name.title().replace("_", ""))

    file = f"calibration/{measured}.json"
    ledger.show("text", Cell(file, (("key", "identity.fingerprint.processor"),), "value"), name="Processor")
    ledger.show("integer", Cell(file, (("key", "identity.fingerprint.threads"),), "value"), name="Threads")
    effective, counted = (
        ledger.sources.rows("calibration.csv", arm=measured, phase="prefill", metric=metric)[0] for metric in ("c_effective", "c_counted")
    )
    ledger.show("text", effective.cell("arm"), name="CalibrationArm")
    ledger.show(paper_text.PLAIN, counted.cell("value"), name="CCounted")
    for name, column in {"CEffective": "value", "CEffectiveLow": "low", "CEffectiveHigh": "high"}.items():
        ledger.show(paper_text.PLAIN, effective.cell(column), name=name)


def document(sources: Sources, config: dict[str, Any]) -> tuple[Ledger, dict[str, str]]:
    """The ledger of all numbers, and the texts of the paper by macro."""
    ledger = Ledger(sources)
    names = [model["name"] for model in config["models"]]
    card_source = {name: sources.one(f"models/{name}.json", key="source")["value"] for name in names}
    references = {model["name"]: model["precisions"][0] for model in config["models"]}
    drawn = [f"{m['name']}@{p}" for m in config["models"] if card_source[m["name"]] != "import" for p in m["precisions"]]
    _name_numbers(ledger, drawn[0])
    texts = {
        "ArmList": paper_text.arm_list(ledger),
        "AbstractResult": paper_text.abstract(ledger),
        "DatasetSentence": paper_study.dataset(ledger, config),
        "KeptSentence": paper_study.kept(config),
        "MachineSentence": paper_study.machine(ledger, drawn),
        "SpeedSentence": paper_study.speeds(ledger),
        "SharedSentence": paper_study.shared_uniforms(ledger),
        "PlanSentence": paper_study.plan(ledger),
        "CrossoverSentences": paper_text.crossovers(ledger),
        "VotesSentence": paper_text.votes(ledger),
        "CostSentence": paper_text.cost_per_answer(ledger),
        "LatencySentence": paper_text.latency(ledger, references),
        "CoverageSentence": paper_text.coverage(ledger),
        "AlphaSentence": paper_text.alphas(ledger),
        "SurfaceSentence": paper_text.surface(ledger),
        "BitsSentence": paper_text.four_bits(ledger),
        "Limits": paper_study.limits(ledger, config, card_source),
        "BestRows": paper_tables.best(ledger),
        "ArmRows": paper_tables.arms(ledger),
        "ModelRows": paper_tables.models(ledger, names),
        "Assumptions": paper_tables.assumptions(ledger),
        "LawTables": paper_tables.laws(ledger),
        "ExponentRows": paper_tables.exponents(ledger),
        "GradientRows": paper_tables.gradients(ledger),
        "WeightBitRows": paper_tables.weight_bits(ledger),
    }
    return ledger, {f"FS{name}": text for name, text in texts.items()}


def macros(ledger: Ledger, texts: dict[str, str], figures: list[str], draft: bool, has_ladder: bool) -> str:
    """The text of macros.tex: numbers with the file of their first cell, texts, and which figures the study has."""
    lines = ["% Generated from the tables of the study. Do not edit.", rf"\FSdraft{str(draft).lower()}"]
    lines += [rf"\FSnumber{{{n.name}}}{{{n.text}}}{{{n.cells[0].file}}}" for n in ledger.numbers.values()]
    lines += [f"\\newcommand{{\\{name}}}{{%\n{text}%\n}}" for name, text in texts.items()]
    parts = {"laws": "FSLawTables", "gradients": "FSGradientRows", "weightbits": "FSWeightBitRows", "exponents": "FSExponentRows"}
    lines += [rf"\FShas{{{part}}}" for part, text in parts.items() if texts[text]]
    lines += [r"\FShas{ladder}"] * has_ladder
    lines += [rf"\FShas{{figure-{name}}}" for name in figures]
    return "\n".join(lines) + "\n"


def write(folder: Path, files: list[str], config: dict[str, Any], figures: list[str]) -> None:
    """Write the macros of a study and their sources below its folder.

    Parameters
    ----------
    folder : results/<study>
    files : tables, cards and calibrations, relative to folder, that the paper may quote
    figures : names of the figures that the study has
    """
    (folder / "paper").mkdir(parents=True, exist_ok=True)
    tables.write(settings(config), "settings", folder / SETTINGS)
    tables.write(assumptions.collect(), "assumptions", folder / ASSUMPTIONS)
    sources = Sources(folder, [*files, SETTINGS, ASSUMPTIONS])
    ledger, texts = document(sources, config)
    ladder = any(model["source"] == "ladder" for model in config["models"])
    tables.write(ledger.table(), "numbers", folder / NUMBERS)
    stored.write_text(folder / MACROS, macros(ledger, texts, figures, config["paper"]["draft"], ladder))


def check(folder: Path, files: list[str], source: str) -> list[str]:
    """Work every number of the paper out again from the cells that numbers.csv names; what does not agree, a line each.

    Also: numbers that text or source use and that do not exist, and digits in the generated text that are no such number.

    Parameters
    ----------
    source : the text of paper/flopstat.tex
    """
    sources = Sources(folder, [*files, SETTINGS, ASSUMPTIONS])
    listed = pd.read_csv(folder / NUMBERS, dtype=str, keep_default_na=False)
    written = (folder / MACROS).read_text(encoding="utf-8")
    printed = {name: (text, file) for name, text, file in _NUMBER.findall(written)}
    wrong, known = [], set(listed["number"])
    for name, part in listed.groupby("number", sort=False):
        cells = [_cell(row) for row in part.to_dict("records")]
        text, where = part["shown"].iloc[0], f"{cells[0].file} {cells[0].row_text} {cells[0].column}"
        again = OPERATIONS[part["operation"].iloc[0]]([sources.select(cell) for cell in cells])
        if again != text:
            wrong.append(f"{name}: the paper shows {text}, its cells give {again} ({where})")
        if printed.get(str(name)) != (text, cells[0].file):
            wrong.append(f"{name}: macros.tex does not print what numbers.csv lists ({where})")
    wrong += [f"{name}: in macros.tex, and in no row of numbers.csv" for name in printed if name not in known]
    for name, text in [*_TEXT.findall(written), ("flopstat.tex", source)]:
        wrong += [f"{name}: uses {used}, which does not exist" for used in _USE.findall(text) if used not in printed and used != "#1"]
    for name, text in _TEXT.findall(written):
        if digits := re.search(r"\d", bare(text)):
            wrong.append(f"{name}: holds {bare(text)[max(0, digits.start() - 30) : digits.end() + 10]!r}, a digit without a source")
    return wrong


def bare(text: str) -> str:
    r"""Text without what may hold digits: \FS{name}, labels, and the 0, 1 and 2 of mathematics, such as 1-(1-p)^k."""
    text = re.sub(r"\\FS\{[^{}]*\}|\\(ref|label|cite[pt]?|begin|end)\{[^{}]*\}", "", text)
    return re.sub(r"\$[^$]*\$", lambda found: re.sub(r"(?<!\d)[012](?!\d)", "", found[0]), text)


def _cell(row: dict[Any, Any]) -> Cell:
    return Cell(row["file"], tuple(json.loads(row["row"]).items()), row["column"])
