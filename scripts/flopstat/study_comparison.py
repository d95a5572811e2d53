"""Two studies, or two releases of one: where frontier and knee moved, per budget, with a verdict that a CI gate can act on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from flopstat import bootstrap, tables
from flopstat.budgets import describe, name_of
from flopstat.costs import COST_UNITS, COSTS
from flopstat.errors import InputError
from flopstat.finished import deployable, load_judged
from flopstat.frontier import Judged, best_at, with_cost
from flopstat.study_pools import limits_if_any

Floats = NDArray[np.float64]
Verdict = Literal["better", "worse", "not separable", "mixed"]

BUDGETS = 12
REPLICATES = 2000


@dataclass(frozen=True)
class At:
    """One budget: the highest measured accuracy of each study, and B - A with simultaneous limits."""

    budget: float
    a: float
    b: float
    cell_a: str
    cell_b: str
    difference: float
    low: float
    high: float
    verdict: Verdict


@dataclass(frozen=True)
class Knee:
    """Cost at the knee of each frontier, and the ratio B / A with its limits, NaN where no replicate moves it."""

    a: float
    b: float
    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """B against A."""

    a: str
    b: str
    cost: str
    unit: str
    pairing: str  # paired, partly paired, unpaired
    n_common: int
    n_a: int
    n_b: int
    budgets: tuple[At, ...]
    knee: Knee | None
    verdict: Verdict
    confidence: float

    def to_json(self) -> str:
        values = asdict(self)
        if self.knee is not None and not np.isfinite([self.knee.low, self.knee.high]).all():
            values["knee"] |= {"low": None, "high": None}
        return json.dumps(values, indent=1, allow_nan=False)


@dataclass(frozen=True)
class Side:
    """One study: its deployable cells of known cost, and who its problems are."""

    name: str
    folder: str
    judged: Judged
    problems: tuple[str, ...]  # identity of each problem: its id and a hash of its text


def read_side(study: Path) -> Side:
    """A results folder; without problems.parquet its problems are only its own.

    Raises
    ------
    InputError
        If the folder holds no finished study.
    """
    judged, config = load_judged(study)
    texts: dict[str, str] = {}
    if (study / "problems.parquet").is_file():
        table = tables.read("problems", study / "problems.parquet")
        texts = {
            p: hashlib.sha256(f"{q}\n{g}".encode()).hexdigest()
            for p, q, g in table[["problem_id", "question", "gold"]].itertuples(index=False)
        }
    own = str(study.resolve())
    return Side(config["study"], str(study), deployable(judged), tuple(f"{p}:{texts.get(p, own)}" for p in judged.problem_ids))


def shared_weights(a: Side, b: Side, seed: int) -> tuple[Floats, Floats, str, int]:
    """Bootstrap weights of both studies' problems, rows summing to 1, and how they are paired.

    Problems that are the same (id and text) are drawn together, the others each for themselves; with no problem in common the two are
    independent. Strata are those of each study.
    """
    common = sorted(set(a.problems) & set(b.problems))
    union = list(dict.fromkeys([*a.problems, *b.problems]))
    group = dict(zip(b.problems, b.judged.strata, strict=True)) | dict(zip(a.problems, a.judged.strata, strict=True))
    whose = {p: (p in set(a.problems)) + 2 * (p in set(b.problems)) for p in union}
    labels = np.unique([f"{whose[p]}:{group[p]}" for p in union], return_inverse=True)[1]
    w = bootstrap.weights(labels.astype(np.int64), REPLICATES, np.random.default_rng([seed, 8]))
    at = {p: i for i, p in enumerate(union)}
    out = []
    for side in (a, b):
        part = w[:, [at[p] for p in side.problems]]
        out.append(part / part.sum(axis=1, keepdims=True))
    pairing = "unpaired" if not common else "paired" if len(common) == len(union) else "partly paired"
    return out[0], out[1], pairing, len(common)


def _best(side: Judged, cost: str, grid: Floats, w: Floats) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """f at each budget, (budgets,) and (replicates, budgets), and the position of the cell that has it."""
    value, accuracy = side.cells[cost].to_numpy(dtype=float), side.values.mean(axis=0)
    afforded = grid * (1 + 1e-12)
    best, boot = best_at(value, accuracy, w @ side.values, afforded)
    return best, boot, np.array([np.argmax(np.where(value <= budget, accuracy, -np.inf)) for budget in afforded])


def knee_of(log_cost: Floats, best: Floats) -> Floats:
    """Log cost at the knee of staircases, (rows,) of (rows, costs): where they lie highest above their chord, both axes scaled to [0, 1].

    A flat staircase has its knee at the lowest cost. Source: Satopää et al. 2011, Kneedle, without smoothing.
    """
    x = (log_cost - log_cost[0]) / (log_cost[-1] - log_cost[0])
    rise = best[:, -1:] - best[:, :1]
    y = np.divide(best - best[:, :1], rise, out=np.zeros_like(best), where=rise > 0)
    out: Floats = log_cost[np.argmax(y - x, axis=1)]
    return out


def _knee(a: Judged, b: Judged, cost: str, w_a: Floats, w_b: Floats, confidence: float) -> Knee | None:
    grid = _common_range(a, b, cost)
    if grid is None:
        return None
    fine = np.geomspace(*grid, 200)
    found = []
    for side, w in ((a, w_a), (b, w_b)):
        value = side.cells[cost].to_numpy(dtype=float)
        order = np.argsort(value, kind="stable")
        at = np.maximum(np.searchsorted(value[order], fine * (1 + 1e-12), side="right") - 1, 0)
        rows = np.vstack([side.values.mean(axis=0), w @ side.values])[:, order]
        found.append(knee_of(np.log(fine), np.maximum.accumulate(rows, axis=1)[:, at]))
    ratio = np.exp(found[1] - found[0])
    low, high = np.minimum(limits_if_any(ratio[1:], confidence), [ratio[0], np.inf])
    return Knee(float(np.exp(found[0][0])), float(np.exp(found[1][0])), float(ratio[0]), float(low), float(np.maximum(high, ratio[0])))


def _common_range(a: Judged, b: Judged, cost: str) -> tuple[float, float] | None:
    """Costs at which both studies afford something and neither is past its dearest cell by more than the other; None without any."""
    low = max(float(side.cells[cost].min()) for side in (a, b))
    high = max(float(side.cells[cost].max()) for side in (a, b))
    return (low, high) if low < high else None


def common_cost(a: Judged, b: Judged, cost: str | None) -> str:
    """The cost to compare on: as asked, else the first that both studies know.

    Raises
    ------
    InputError
        If there is none, or one study lacks the one asked for.
    """
    known = [c for c in COSTS if all(c in side.cells and side.cells[c].notna().any() for side in (a, b))]
    if cost is None and known:
        return known[0]
    if cost is None or cost not in known:
        raise InputError(f"--cost {cost or ''}: not known in both studies; choose from {', '.join(known) or 'nothing, they share none'}")
    return cost


def compare(a: Side, b: Side, cost: str | None = None) -> Comparison:
    """B against A at budgets over their common range of a cost.

    At each budget d = f_B - f_A, f the highest measured accuracy of a study's affordable cells. Limits are simultaneous over budgets
    (max |t| over replicates of problems): the chance of a wrong verdict anywhere is one minus the confidence. Of two studies of the same
    problems they are `bootstrap.simultaneous_differences`; else, where no replicate of d differs, the far ends of the limits of the two
    accuracies. A maximum over more cells lies higher by chance, so the limits reach further towards no difference by what one study's
    optimism (mean of the replicates minus f) exceeds the other's by. Overall: worse if some budget is worse and none better, better
    likewise, mixed if both occur.

    Leaves out: the uncertainty of costs. # ASSUME two studies with the same id and text of a problem asked the same question
    """
    cost = common_cost(a.judged, b.judged, cost)
    one, other = with_cost(a.judged, cost), with_cost(b.judged, cost)
    span = _common_range(one, other, cost)
    grid = np.geomspace(*span, BUDGETS) if span is not None else np.array([max(float(s.cells[cost].max()) for s in (one, other))])
    confidence, seed = one.confidence, one.seed
    w_a, w_b, pairing, n_common = shared_weights(a, b, seed)
    f_a, boot_a, cells_a = _best(one, cost, grid, w_a)
    f_b, boot_b, cells_b = _best(other, cost, grid, w_b)
    difference, boot = f_b - f_a, boot_b - boot_a
    best_a, best_b = one.values[:, cells_a], other.values[:, cells_b]
    if pairing == "paired":
        leads = best_b[[b.problems.index(p) for p in a.problems]] - best_a
        low, high = bootstrap.simultaneous_differences(difference, boot, leads, w_a, confidence)
    else:
        low, high, _ = bootstrap.simultaneous_limits(difference, boot, confidence)
        ends = (bootstrap.simultaneous_proportions(best, w @ best, confidence) for best, w in ((best_a, w_a), (best_b, w_b)))
        (a_low, a_high), (b_low, b_high) = ends
        low, high = np.where(np.isinf(low), b_low - a_high, low), np.where(np.isinf(high), b_high - a_low, high)
    flattered = (boot_b.mean(axis=0) - f_b) - (boot_a.mean(axis=0) - f_a)
    low, high = low - np.maximum(flattered, 0.0), high + np.maximum(-flattered, 0.0)
    rows = []
    for i, budget in enumerate(grid):
        verdict: Verdict = "better" if low[i] > 0 else "worse" if high[i] < 0 else "not separable"
        cell_a, cell_b = describe(one.cells.iloc[cells_a[i]]), describe(other.cells.iloc[cells_b[i]])
        values = (float(budget), float(f_a[i]), float(f_b[i]), cell_a, cell_b)
        rows.append(At(*values, float(difference[i]), float(low[i]), float(high[i]), verdict))
    found = {row.verdict for row in rows}
    overall: Verdict = (
        "mixed" if {"better", "worse"} <= found else "worse" if "worse" in found else "better" if "better" in found else "not separable"
    )
    knee = _knee(one, other, cost, w_a, w_b, confidence)
    sizes = (n_common, one.n_problems, other.n_problems)
    name_a, name_b = (a.name, b.name) if a.name != b.name else (a.folder, b.folder)
    return Comparison(name_a, name_b, cost, COST_UNITS[cost], pairing, *sizes, tuple(rows), knee, overall, confidence)


def table_of(comparison: Comparison) -> pd.DataFrame:
    """One row per budget."""
    return pd.DataFrame([asdict(row) for row in comparison.budgets])


def in_words(found: Comparison) -> str:
    """The comparison for people."""
    out = [
        f"B = {found.b} against A = {found.a}: {found.verdict} ({found.pairing}, {found.n_common} common of {found.n_a} and {found.n_b} "
        f"problems; {found.confidence:.0%} limits that hold at all budgets at once)",
        f"{name_of(found.cost):>14} {'A':>7} {'B':>7} {'B - A (points)':>24}  verdict",
    ]
    for row in found.budgets:
        gap = f"{100 * row.difference:+6.1f} [{100 * row.low:+.1f}, {100 * row.high:+.1f}]"
        out.append(f"{row.budget:14.3g} {100 * row.a:6.1f}% {100 * row.b:6.1f}% {gap:>24}  {row.verdict}")
    if found.knee is not None:
        k = found.knee
        limits = "(no limits: no resample moves it)" if np.isnan(k.low) else f"[{k.low:.2f}, {k.high:.2f}]"
        out.append(f"knee: {k.a:.3g} to {k.b:.3g} {found.unit}, ratio {k.ratio:.2f} {limits}")
    return "\n".join(out)


def failed(found: Comparison, fail_on: str | None) -> bool:
    """Whether a CI gate closes: on `worse` if any budget is worse, on `not-better` if none is better or any is worse."""
    if fail_on == "worse":
        return found.verdict in ("worse", "mixed")
    return fail_on == "not-better" and found.verdict != "better"


def plot(found: Comparison, path: Path) -> None:
    """Both frontiers over the budgets, and below their difference with its simultaneous limits."""
    from flopstat.costs import COST_NAMES
    from flopstat.style import canvas, colors_of, save

    data = table_of(found)
    x, colors = data["budget"].to_numpy(float), colors_of(("a", "b", "better", "worse"))
    with canvas(2, 1, (4.6, 4.6), sharex=True, height_ratios=(1.3, 1)) as (fig, axes):
        top, bottom = axes[:, 0]
        for column, name, color, marker in (("a", f"A: {found.a}", colors["a"], "o"), ("b", f"B: {found.b}", colors["b"], "s")):
            top.step(x, 100 * data[column], where="post", color=color, marker=marker, ms=3.5, label=name)
        top.set_ylabel("accuracy of the best\naffordable cell (%)")
        top.legend(loc="lower right")
        gap, low, high = (100 * data[c].to_numpy(float) for c in ("difference", "low", "high"))
        bottom.axhline(0, color="0.4", lw=0.8)
        bottom.fill_between(x, low, high, color="0.5", alpha=0.2, lw=0, label=f"simultaneous {found.confidence:.0%} limits")
        bottom.plot(x, gap, color="0.2", lw=1)
        looks = {"better": ("^", colors["better"]), "worse": ("v", colors["worse"]), "not separable": ("o", "0.6")}
        for verdict, (marker, color) in looks.items():
            at = (data["verdict"] == verdict).to_numpy()
            if at.any():
                bottom.plot(x[at], gap[at], marker=marker, ls="", ms=5, color=color, label=verdict)
        bottom.set_ylabel("B − A (points)")
        bottom.set_xscale("log")
        bottom.set_xlabel(COST_NAMES[found.cost])
        bottom.legend(loc="best", fontsize=7)
        fig.align_ylabels()
        fig.tight_layout()
        save(fig, [path])
