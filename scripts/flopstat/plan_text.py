"""A study's plan: the arms' forecasts added up, what its intervals will resolve, and all of it as table, JSON and text."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, TextIO

from flopstat.columns import PLANNED
from flopstat.errors import printable
from flopstat.models import likely_device
from flopstat.pilot import Estimate
from flopstat.plan_inputs import Inputs
from flopstat.planning import ArmPlan, Expectation, makespan, plan_arm
from flopstat.rates import ROOFLINE
from flopstat.widths import Needs, half_widths, needs

TOTAL = "total"
BASES = {
    "pilot": "lengths of chains from the pilot, whose chains are sampled; in the upper limit greedy chains run to T",
    "assumed": "lengths of chains as plan.tokens_per_chain has them, limits from 1 to T tokens each",
    "range": "no pilot yet: from 1 to T tokens a chain",
}
SPEEDS = {
    "pilot": "speed as the pilot's job had it on this machine",
    "calibration": "speed of this machine's calibration, all cores, no pilot",
    "roofline": "speed of a data sheet",
    "unknown": "speed not known: run the study's pilot, or name a device by --device",
}
HEADS = {
    "tokens": "tokens generated",
    "flops": "FLOP",
    "seconds": "time of jobs",
    "memory_bytes": "memory, GiB",
    "usd": "US$",
    "joules": "J",
}
WIDTH = 120  # columns where the stream is no terminal


@dataclass(frozen=True)
class StudyPlan:
    """The forecast of a study."""

    inputs: Inputs
    arms: list[ArmPlan]
    total: dict[str, Expectation]
    widths: dict[str, Estimate]
    needs: Needs
    side_by_side: int


def make_plan(inputs: Inputs, points: float, cores: int) -> StudyPlan:
    """Plan every arm and add up.

    Hours are those until all jobs are done: on a CPU as many at a time as there are cores, on a GPU one. Memory is the largest of an arm.

    Parameters
    ----------
    points : float
        Difference of two arms, in points, that is to be resolved.
    cores : int
        Cores that sampling jobs may take, one each.
    """
    study = inputs.study
    arms = [plan_arm(study, arm, known, inputs.device, inputs.price) for arm, known in inputs.arms.items()]
    side_by_side = cores if inputs.measured and likely_device(study.config["sampling"]["device"]) != "cuda" else 1
    total = {name: _sum([arm.quantities[name] for arm in arms]) for name in arms[0].quantities if name != "memory_bytes"}
    peak = max((arm.quantities["memory_bytes"] for arm in arms), key=lambda e: e.worst)
    total["memory_bytes"] = peak
    if "seconds" in total:
        jobs = {case: [s for arm in arms for s in arm.jobs[case]] for case in ("value", "worst")}
        expected = math.nan if math.isnan(total["seconds"].value) else makespan(jobs["value"], side_by_side)
        # Limits and the worst case are those of all jobs' seconds, over what running side by side gains in the worst case.
        gain = sum(jobs["worst"]) / makespan(jobs["worst"], side_by_side)
        seconds = total["seconds"]
        total["hours"] = Expectation(expected, seconds.low / gain, seconds.high / gain, seconds.worst / gain).times(1 / 3600)
    n, k = study.config["dataset"]["n_study"], study.config["sampling"]["samples"]
    return StudyPlan(inputs, arms, total, half_widths(n, k, study.confidence), needs(points, n, k, study.confidence), side_by_side)


def _sum(parts: list[Expectation]) -> Expectation:
    return Expectation(*(math.fsum(getattr(p, name) for p in parts) for name in ("value", "low", "high", "worst")))


def table_rows(plan: StudyPlan) -> list[dict[str, Any]]:
    """Rows of plan.csv: every quantity of every arm, then of the study."""
    study = plan.inputs.study.config["study"]
    rows = []
    for arm in plan.arms:
        for name, one in arm.quantities.items():
            basis = arm.speed if name in ("seconds", "usd", "joules") else "config" if name == "chains" else arm.basis
            rows.append({"study": study, "arm": arm.arm, "quantity": name, "unit": PLANNED[name], "basis": basis} | asdict(one))
    bases = {arm.basis for arm in plan.arms}, {arm.speed for arm in plan.arms}
    for name, one in plan.total.items():
        basis = "config" if name == "chains" else ";".join(sorted(bases[name in ("seconds", "hours", "usd", "joules")]))
        rows.append({"study": study, "arm": TOTAL, "quantity": name, "unit": PLANNED[name], "basis": basis} | asdict(one))
    for name, width in plan.widths.items():
        row = {"study": study, "arm": TOTAL, "quantity": name, "unit": PLANNED[name], "basis": "config"}
        rows.append(row | asdict(width) | {"worst": width.high})
    return rows


def to_json(plan: StudyPlan) -> dict[str, Any]:
    """The whole plan for programs; what is not known is null."""
    device, config = plan.inputs.device, plan.inputs.study.config
    out = {
        "study": config["study"],
        "device": asdict(device) if device is not None else None,
        "price_usd_per_hour": plan.inputs.price,
        "problems": len(plan.inputs.study.difficulty),
        "jobs_side_by_side": plan.side_by_side,
        "arms": [
            {
                "arm": arm.arm,
                "basis": arm.basis,
                "speed": arm.speed,
                "batch_rows": arm.rows,
                "fits_memory": arm.fits,
                "change": arm.change or None,
                "chains_stored": plan.inputs.stored[arm.arm],
                "quantities": {name: asdict(one) | {"unit": PLANNED[name]} for name, one in arm.quantities.items()},
            }
            for arm in plan.arms
        ],
        "total": {name: asdict(one) | {"unit": PLANNED[name]} for name, one in plan.total.items()},
        "half_widths": {name: asdict(one) | {"unit": PLANNED[name]} for name, one in plan.widths.items()},
        "needs": asdict(plan.needs),
        "recipe_hours": config["plan"]["recipe_hours"],
        "notes": notes(plan),
    }
    cleaned = _without_nan(out)
    assert isinstance(cleaned, dict)
    return cleaned


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def verdict(plan: StudyPlan) -> str:
    """Predicted hours beside the recipe's, and what to cut if they do not suffice."""
    recipe = plan.inputs.study.config["plan"]["recipe_hours"]
    if recipe is None or "hours" not in plan.total:
        return ""
    hours = plan.total["hours"]
    said = f"Predicted {spell(hours, 'h')} hours, the recipe says {recipe:g}"
    expected = hours.worst if math.isnan(hours.value) else hours.value
    if expected <= recipe:
        return f"{said}: it fits" + ("." if hours.worst <= recipe else f", but not if every chain ran to T ({hours.worst:.3g} h).")
    config = plan.inputs.study.config
    n, per_problem = len(plan.inputs.study.difficulty), plan.inputs.study.per_problem
    share = recipe / expected
    cuts = [f"{math.floor(n * share):,} of {n:,} problems"] if n * share >= 1 else []
    if (fewer := math.floor(per_problem * share) - 1) >= 1:
        cuts.append(f"{fewer} of {per_problem - 1} samples a problem")
    if dropped := _arms_to_drop(plan, recipe):
        cuts.append(f"no {', no '.join(dropped)}")
    if math.isnan(hours.value):
        cuts.append(f"T at most {max(1, math.floor(config['budgets']['T'][-1] * share)):,}")
    return f"{said}: it does not fit. To fit, cut to " + ", or ".join(cuts) + "."


def _arms_to_drop(plan: StudyPlan, hours: float) -> list[str]:
    """The slowest arms without which the rest fits; none if not even one arm alone does."""
    rest = sorted(plan.arms, key=lambda a: _expected(a.quantities["seconds"]))
    dropped: list[str] = []
    while rest and sum(_expected(a.quantities["seconds"]) for a in rest) / 3600 / plan.side_by_side > hours:
        dropped.append(rest.pop().arm)
    return dropped if rest else []


def _expected(one: Expectation) -> float:
    return one.worst if math.isnan(one.value) else one.value


def notes(plan: StudyPlan) -> list[str]:
    """What the numbers stand on, what does not fit, and what resolves the question, a line each."""
    out = []
    for basis, words in BASES.items():
        if own := [a.arm for a in plan.arms if a.basis == basis]:
            out.append(f"{words}: {_names(plan, own)}.")
    for speed, words in SPEEDS.items():
        if own := [a.arm for a in plan.arms if a.speed == speed]:
            out.append(f"{words}: {_names(plan, own)}.{_bound(plan) if speed == ROOFLINE else ''}")
    out += [f"{a.arm} does not fit {_memory(plan)}: {a.change}." for a in plan.arms if a.fits is False]
    if "joules" not in plan.total:
        out.append("Energy: not measured.")
    if "usd" not in plan.total:
        out.append("Money: the price table has no price for this device." if "seconds" in plan.total else "Money: not known without hours.")
    return [*out, *_resolution(plan), *([line] if (line := verdict(plan)) else [])]


def _bound(plan: StudyPlan) -> str:
    """What a plan by a data sheet stands on."""
    device, efficiency = plan.inputs.device, plan.inputs.study.config["plan"]["efficiency"]
    assert device is not None
    words = f"at the bound itself, which no run beats, these hours are {efficiency:.2g} times as many."
    return f" {device.name} is taken at {efficiency:.0%} of its data sheet's bound: {words}"


def _resolution(plan: StudyPlan) -> list[str]:
    """How wide intervals will be, and what would resolve the difference asked for."""
    config = plan.inputs.study.config
    width = {name: plan.widths[f"half_width_{name}"] for name in ("accuracy", "difference", "kappa")}
    level = f"{plan.inputs.study.confidence:.0%}"
    n, k = config["dataset"]["n_study"], config["sampling"]["samples"]
    line = f"{level} intervals of {n:,} problems with {k} samples: accuracy ±{_points(width['accuracy'])}, "
    line += f"difference of two arms ±{_points(width['difference'])}"
    line += f", κ ±{_points(width['kappa'])} per ln P." if math.isfinite(width["kappa"].value) else "; κ needs 4 samples."
    more = f"{plan.needs.problems:,} problems with {k} samples"
    if plan.needs.samples is not None:
        more += f", or {plan.needs.samples:,} samples with {n:,} problems"
    return [line, f"A difference of {plan.needs.points:g} points is resolved by {more}."]


def _names(plan: StudyPlan, names: list[str]) -> str:
    return "all arms" if len(names) == len(plan.arms) else ", ".join(names)


def _memory(plan: StudyPlan) -> str:
    device = plan.inputs.device
    assert device is not None
    assert device.memory_bytes is not None
    return f"{device.name}'s {device.memory_bytes / 2**30:.0f} GiB"


def _points(one: Estimate) -> str:
    return f"{100 * one.value:.2g} points ({100 * one.low:.2g} to {100 * one.high:.2g})"


def _number(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / 2**30:.3g}"
    if unit in ("FLOP", "J"):
        return f"{value:.3g}".replace("e+", "e")
    if unit in ("tokens", "chains"):
        scale, suffix = next(((s, x) for s, x in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if value >= s), (1.0, ""))
        return f"{value / scale:.3g}{suffix}"
    return f"{value:.3g}"


def spell(one: Expectation, unit: str) -> str:
    """A number with its interval, `value [low, high]`, or the range where no value is expected."""
    low, high = _number(one.low, unit), _number(one.high, unit)
    if math.isnan(one.value):
        return f"{low} to {high}"
    return low if low == high else f"{_number(one.value, unit)} [{low}, {high}]"


def show(plan: StudyPlan, stream: TextIO) -> None:
    """Write the plan for people: a table, plain where the stream is no terminal, and the notes."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(file=stream, width=None if stream.isatty() else WIDTH, highlight=False, markup=False, emoji=False)
    names = [name for name in HEADS if name in plan.total]
    table = Table(title=_title(plan), title_justify="left", box=box.SIMPLE_HEAD if stream.isatty() else box.ASCII2, pad_edge=False)
    table.add_column("arm", overflow="fold")
    table.add_column("chains", justify="right", no_wrap=True)
    for name in names:
        table.add_column(HEADS[name], justify="right", no_wrap=True)
    rows = [(arm.arm, arm.quantities, plan.inputs.stored[arm.arm]) for arm in plan.arms] + [(TOTAL, plan.total, None)]
    for arm, quantities, stored in rows:
        chains = f"{quantities['chains'].value:,.0f}" + (f"\n{stored:,} drawn" if stored is not None else "")
        table.add_row(arm, chains, *(_cell(name, quantities[name]) for name in names), end_section=arm == plan.arms[-1].arm)
    console.print(table)
    for line in notes(plan):
        console.print(printable(line[0].upper() + line[1:]), soft_wrap=False)


def _title(plan: StudyPlan) -> str:
    study, device = plan.inputs.study, plan.inputs.device
    where = f" on {device.name}" if device is not None else ""
    hours = f": {spell(plan.total['hours'], 'h')} hours" if "hours" in plan.total else ""
    return f"{study.config['study']}: {len(study.difficulty):,} problems, T up to {study.budget:,}{where}{hours}"


def _cell(name: str, one: Expectation) -> str:
    """A line each for the value, its interval, and the worst case where that is more."""
    unit = PLANNED[name]
    if name == "seconds":
        minutes = one.worst < 5 * 3600
        one, unit = one.times(1 / 60 if minutes else 1 / 3600), "min" if minutes else "h"
    suffix = f" {unit}" if name == "seconds" else ""
    low, high = _number(one.low, unit), _number(one.high, unit)
    if math.isnan(one.value):
        return f"{low} to {high}{suffix}"
    lines = [_number(one.value, unit) + suffix]
    lines += [f"[{low}, {high}]"] if low != high else []
    return "\n".join(lines + ([f"worst {_number(one.worst, unit)}"] if one.worst > one.high * 1.005 else []))
