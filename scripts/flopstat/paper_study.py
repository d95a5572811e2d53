r"""Sentences of the paper about the study itself: its problems, machine, forecast and limits. Numbers are \FS{name} of the ledger."""

from __future__ import annotations

import math
from typing import Any

from flopstat.latex import joined
from flopstat.paper_text import PERCENT, PLAIN, arm_rows, largest_t, setting, with_limits
from flopstat.sourced import Cell, Ledger


def plan(ledger: Ledger) -> str:
    """What the run took over what was planned, in total."""
    parts = []
    for quantity, words in (("tokens", "tokens"), ("seconds", "the time of sampling")):
        rows = ledger.sources.rows("plan_actual.csv", arm="total", quantity=quantity)
        if rows and rows[0]["ratio"]:
            parts.append(f"{ledger.show('2 decimals', rows[0].cell('ratio'))} of the forecast for {words}")
    if not parts:
        return ""
    return f"A forecast from a pilot is made before sampling and compared with the run afterwards: {joined(parts)}."


def speeds(ledger: Ledger) -> str:
    """Decoding speed of one row of every quantised arm over its model's reference precision."""
    parts = []
    for row in ledger.sources.rows("calibration.csv", metric="speed_over_reference", batch="1"):
        arm, verdict = ledger.show("text", row.cell("arm")), ledger.show("text", row.cell("verdict"))
        parts.append(f"{arm} {with_limits(ledger, row, 'value', '2 decimals')} ({verdict})")
    if not parts:
        return ""
    return (
        f"Decoding one row, relative to the reference precision of the same model: {'; '.join(parts)}. Emulated weights are multiplied in "
        "the compute type, so their speed says nothing of the precision."
    )


def machine(ledger: Ledger, arms: list[str]) -> str:
    """The latency model's error on points left out, and the two rates of the roofline."""
    errors = [Cell(f"calibration/{arm}.json", (("key", "latency.held_out_error"),), "value") for arm in arms]
    known = [c for c in errors if any(ledger.sources.select(c))]
    rates = []
    for metric, unit in (("peak", "FLOP/s"), ("bandwidth", "byte/s")):
        rows = ledger.sources.rows("calibration.csv", phase="device", metric=metric)
        if rows:
            value, low, high = (ledger.show(PLAIN, rows[0].cell(name)) for name in ("value", "low", "high"))
            rates.append(f"{metric} {value}\\,{unit} (range {low} to {high})")
    shown = [ledger.show(PERCENT, c) for c in known]
    text = f"Measured on this machine: {joined(rates)}. " if rates else ""
    if shown:
        text += f"The latency model's median error on points left out is {joined(shown)}\\,\\%, in the order of Table~\\ref{{tab:arms}}."
    return text


def shared_uniforms(ledger: Ledger) -> str:
    """Where common random numbers gained."""
    t = largest_t(ledger)
    parts = []
    for same, words in (("True", "of one model"), ("False", "of two models")):
        rows = ledger.sources.rows("variance_ratio.csv", same_model=same, T=t)
        if rows:
            key = (("same_model", same), ("T", t))
            gained = ledger.show("number below 1", Cell("variance_ratio.csv", key, "high"))
            parts.append(f"{gained} of {ledger.show('number of rows', Cell('variance_ratio.csv', key, ''))} pairs of arms {words}")
    if not parts:
        return ""
    return f"At the largest $T$ the shared uniforms narrow differences (upper limit of the variance ratio below one) in {joined(parts)}."


def dataset(ledger: Ledger, config: dict[str, Any]) -> str:
    source = config["dataset"]["source"]
    if source == "ladder":
        steps = ledger.show("integer", setting(ledger, "max_steps"))
        return f"Problems are generated: chains of one to {steps} facts in shuffled order, one arithmetic step each."
    if source == "hub":
        repo, revision = (ledger.show("text", setting(ledger, key)) for key in ("repo", "revision"))
        return f"Problems are those of {repo}, revision \\texttt{{{revision}}}."
    return f"Problems are read from the file \\texttt{{{ledger.show('text', setting(ledger, 'path'))}}}."


def kept(config: dict[str, Any]) -> str:
    if config["dataset"]["filter"] == "gold":
        return "A problem is kept if its gold answer is one integer."
    return (
        "A problem is kept if its gold answer is one integer and every calculator annotation evaluates to its stated value, the last one "
        "to the answer."
    )


def limits(ledger: Ledger, config: dict[str, Any], sources: dict[str, str]) -> str:
    """What follows from this study's own make.

    Parameters
    ----------
    sources : mapping of model to the source that its card names
    """
    best = max((row.value("accuracy") for row in ledger.sources.rows("configurations.csv", split="study")), default=math.nan)
    out = []
    if all(source == "ladder" for source in sources.values()):
        out.append(
            "The models are tiny and trained on the same kind of problem they are judged on: the study shows methods at work, and says "
            "nothing about large language models."
        )
    imported = [name for name, source in sources.items() if source == "import"]
    if imported:
        first = {row["model"]: row for row in arm_rows(ledger)}
        names = joined([ledger.show("text", first[name].cell("model")) for name in imported])
        out.append(
            f"The samples of {names} were imported: how they were drawn is not known here, they are judged at the largest $T$ only, and "
            "have no counted cost."
        )
    if best < 0.1:
        out.append("Every configuration is near the floor, so differences between them carry little information.")
    if len(sources) == 2:
        out.append("With two sizes, $\\alpha(q)$ rests on a line through two points.")
    if config["dataset"]["n_study"] <= 100:
        out.append("With few problems most intervals are wide.")
    return " ".join(out)
