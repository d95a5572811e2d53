"""The Pareto frontier of accuracy against cost, and where a larger model overtakes a smaller one."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import moocore
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from flopstat import bootstrap
from flopstat.columns import TABLES
from flopstat.costs import COST_UNITS, COSTS
from flopstat.staircase import band

Floats = NDArray[np.float64]

KEYS = ["arm", "T", "P", "B", "strategy"]
HALVES = 50  # random halves of the problems that the best cell is chosen on
HALF_REPLICATES = 400

Status = Literal["found", "at_entry", "none_in_range", "not_separable", "one_model", "unknown_cost"]


@dataclass(frozen=True)
class Judged:
    """The study split's cells with their bootstrap replicates, in the order of the cells."""

    cells: pd.DataFrame
    values: Floats  # (problems, cells) accuracies
    strata: NDArray[np.int64]  # (problems,)
    w: Floats  # (replicates, problems) bootstrap weights
    n_samples: int
    confidence: float
    seed: int
    problem_ids: tuple[str, ...] = ()  # in the order of the rows of `values`
    ratios: Mapping[tuple[str, str, int], float] = field(default_factory=dict)  # of variance_ratio.csv, by two arms and T

    @functools.cached_property
    def boot(self) -> Floats:
        """(replicates, cells) accuracies."""
        return self.w @ self.values

    @property
    def n_problems(self) -> int:
        return len(self.values)


def judge(
    configurations: pd.DataFrame, per_problem: pd.DataFrame, config: dict[str, Any], variance_ratio: pd.DataFrame | None = None
) -> Judged:
    """Line up the study cells with one bootstrap over problems that all of them share.

    Parameters
    ----------
    variance_ratio : table
        variance_ratio.csv, for what would resolve a lead; without it, or for pairs it lacks, pools count as independent.
    """
    cells = configurations[configurations["split"] == "study"].reset_index(drop=True)
    long = per_problem[per_problem["split"] == "study"]
    wide = long.pivot(index=["problem_id", "difficulty"], columns=KEYS, values="accuracy")
    values = wide[[tuple(row) for row in cells[KEYS].itertuples(index=False)]].to_numpy()
    strata = wide.index.get_level_values("difficulty").to_numpy()
    statistics = config["statistics"]
    w = bootstrap.weights(strata, statistics["replicates"], np.random.default_rng([config["seed"], 3, True]))
    ids = tuple(str(p) for p in wide.index.get_level_values("problem_id"))
    ratios: dict[tuple[str, str, int], float] = {}
    if variance_ratio is not None:
        for one, other, t, ratio in variance_ratio.dropna(subset="ratio")[["arm_a", "arm_b", "T", "ratio"]].itertuples(index=False):
            ratios[one, other, t] = ratios[other, one, t] = ratio
    return Judged(cells, values, strata, w, config["samples"], statistics["confidence"], config["seed"], ids, ratios)


def unknown_costs(judged: Judged) -> dict[str, list[str]]:
    """Arms that take no part in a cost's frontier because some cell of theirs has no such cost, by cost; unknown_costs.csv says why."""
    cells = judged.cells
    return {cost: arms for cost in COSTS if (arms := list(dict.fromkeys(cells.loc[cells[cost].isna(), "arm"])))}


def known_costs(judged: Judged) -> list[str]:
    """The costs that some cell has, which frontier and crossovers are made for."""
    return [cost for cost in COSTS if judged.cells[cost].notna().any()]


def with_cost(judged: Judged, cost: str) -> Judged:
    """The cells of known cost."""
    known = judged.cells[cost].notna().to_numpy()
    if known.all():
        return judged  # with the replicates that it holds
    return replace(judged, cells=judged.cells[known].reset_index(drop=True), values=judged.values[:, known])


def pareto(cost: Floats, accuracy: Floats) -> NDArray[np.bool_]:
    """Cells that no other beats: none costs no more with higher accuracy, or less with no lower accuracy. Equal cells stay together."""
    mask: NDArray[np.bool_] = moocore.is_nondominated(np.column_stack([cost, -accuracy]), keep_weakly=True)
    return mask


def frontier(judged: Judged, cost: str) -> pd.DataFrame:
    """The Pareto cells of one cost column, by rising cost.

    band: running maximum over cost of the simultaneous limits of all cells (`staircase.band`). p_on_frontier and attainment describe the
    bootstrap. Costs are held at their means. Cells without that cost take no part. accuracy_chosen may fall as cost rises: with more cells
    to choose from, choosing by noise costs more, and nothing says that a user with a larger budget chooses better.
    # ASSUME the cost of a cell is known: its own interval does not enter
    """
    judged = with_cost(judged, cost)
    cells = judged.cells
    if cells.empty:
        return pd.DataFrame(columns=list(TABLES["frontier"]))
    value = cells[cost].to_numpy(dtype=float)
    accuracy = cells["accuracy"].to_numpy(dtype=float)
    low, high = band(value, judged.values, judged.boot, judged.confidence)
    order = np.lexsort((-accuracy, value))
    best_boot = np.maximum.accumulate(judged.boot[:, order], axis=1)
    on = pareto(value, accuracy)
    on_boot = _pareto_share(value, judged.boot)
    rows = []
    last = {v: i for i, v in enumerate(value[order])}  # the last position of each cost: all cells of that cost or less
    edge = np.flatnonzero(on)[np.lexsort((cells.index[on], value[on]))]
    corrected = _corrected(judged, order, [last[value[index]] + 1 for index in edge])
    for index, correction in zip(edge, corrected, strict=True):
        at = last[value[index]]
        cell = cells.loc[index]
        rows.append(
            {"cost": cost, **{k: cell[k] for k in ("arm", "model", "n_params", "precision", "bits_effective", "T", "P", "B", "strategy")}}
            | {
                "unit": COST_UNITS[cost],
                "value": value[index],
                "accuracy": accuracy[index],
                "accuracy_low": cell["accuracy_low"],
                "accuracy_high": cell["accuracy_high"],
                "p_on_frontier": on_boot[index],
                "band_low": float(low[index]),
                "band_high": float(high[index]),
                "attainment": float((best_boot[:, at] >= accuracy[index]).mean()),
                "estimand": cell["estimand"],
            }
            | correction
            | _runner_up(judged, int(index), order[: at + 1])
        )
    return pd.DataFrame(rows)


def _corrected(judged: Judged, order: NDArray[np.int64], ends: list[int]) -> list[dict[str, float]]:
    """What the best of the cells that are affordable at each end of the order is worth on problems that had no part in the choice.

    Missing for a single problem.
    """
    names = ("accuracy_chosen", "accuracy_chosen_low", "accuracy_chosen_high")
    if judged.n_problems < 2:
        return [dict.fromkeys(names, np.nan) for _ in ends]
    rng = np.random.default_rng([judged.seed, 4])
    values = judged.values[:, order]
    found = bootstrap.chosen_best_of_first(values, ends, judged.strata, HALF_REPLICATES, HALVES, judged.confidence, rng)
    return [dict(zip(names, (best.estimate, best.low, best.high), strict=True)) for best in found]


def _runner_up(judged: Judged, index: int, affordable: NDArray[np.int64]) -> dict[str, Any]:
    """The most accurate affordable cell of another arm, the paired lead over it, and what would resolve the lead.

    All arms share their uniform numbers, so the sampling part of a difference is smaller than that of independent pools: the sum of the
    two variances is scaled by the pair's ratio in variance_ratio.csv.
    # ASSUME the variance ratio of single chains holds for votes and best-of-N too; pools of two T or of unlike tokenizers are independent
    """
    cells = judged.cells
    others = affordable[(cells["arm"].to_numpy()[affordable] != cells.at[index, "arm"])]
    names = ("runner_up", "lead", "lead_low", "lead_high", "more_problems", "more_samples")
    if not others.size:
        return dict.fromkeys(names)
    second = int(others[np.argmax(cells["accuracy"].to_numpy()[others])])
    difference = (judged.values[:, index] - judged.values[:, second])[:, None]
    interval = bootstrap.paired_interval(difference, judged.w, judged.confidence)
    other = cells.loc[second]
    (arm_a, t_a), (arm_b, t_b) = ((str(cells["arm"].iloc[i]), int(cells["T"].to_numpy()[i])) for i in (index, second))
    ratio = judged.ratios.get((arm_a, arm_b, t_a), 1.0) if t_a == t_b else 1.0
    within = float(np.sqrt(ratio) * np.hypot(*cells["se_sampling"].to_numpy(dtype=float)[[index, second]]))
    between = float(np.sqrt(max(float(interval.se[0]) ** 2 - within**2, 0.0)))
    lead = float(difference.mean())
    more = bootstrap.resolve(lead, between, within, judged.n_problems, judged.n_samples, judged.confidence)
    label = f"{other['arm']} T={other['T']} P={other['P']} B={other['B']} {other['strategy']}"
    return dict(zip(names, (label, lead, float(interval.low[0]), float(interval.high[0]), more.problems, more.samples), strict=True))


def _pareto_share(value: Floats, boot: Floats) -> Floats:
    """Share of replicates in which each cell is on the frontier, (cells,).

    A cell is on it if no cheaper or equally dear cell is more accurate, and no cheaper one as accurate.
    """
    order = np.argsort(value, kind="stable")
    v, b = value[order], boot[:, order]
    first = np.searchsorted(v, v, side="left")
    after = np.searchsorted(v, v, side="right") - 1
    running = np.maximum.accumulate(b, axis=1)
    best_to = running[:, after]
    best_before = np.where(first > 0, running[:, np.maximum(first - 1, 0)], -np.inf)
    share = np.empty(len(v))
    share[order] = ((b >= best_to) & (b > best_before)).mean(axis=0)
    return share


def best_at(cost: Floats, accuracy: Floats, boot: Floats, grid: Floats) -> tuple[Floats, Floats]:
    """f(c), the best accuracy of any cell at cost c or less: (grid,) and (replicates, grid); -inf where nothing is affordable."""
    order = np.argsort(cost, kind="stable")
    at = np.searchsorted(cost[order], grid, side="right") - 1
    best = np.maximum.accumulate(accuracy[order])
    best_boot = np.maximum.accumulate(boot[:, order], axis=1)
    there = at >= 0
    return (
        np.where(there, best[np.maximum(at, 0)], -np.inf),
        np.where(there, best_boot[:, np.maximum(at, 0)], -np.inf),
    )


def leader_at(cost: Floats, accuracy: Floats, grid: Floats) -> NDArray[np.int64]:
    """Position of the cell that has f(c) of `best_at`, (grid,): the cheapest of equal ones; every cost affords a cell."""
    order = np.argsort(cost, kind="stable")
    rises = np.diff(np.maximum.accumulate(accuracy[order]), prepend=-np.inf) > 0
    last = np.maximum.accumulate(np.where(rises, np.arange(len(order)), 0))
    leader: NDArray[np.int64] = order[last[np.searchsorted(cost[order], grid, side="right") - 1]]
    return leader


@dataclass(frozen=True)
class Crossover:
    """Where the larger model overtakes, with the limits that the difference was judged by."""

    status: Status
    at: float
    at_low: float
    at_high: float
    n_more: float


def crossover(grid: Floats, difference: Floats, low: Floats, high: Floats, n_problems: int) -> Crossover:
    """Locate the change of sign of f_large - f_small over cost, by limits that hold at all costs at once.

    found: below zero beyond the limit at some cost and above it at a higher one; its interval is the range of costs between whose limits
    contain zero. at_entry: above as soon as the larger model is affordable. none_in_range: below at every cost, so that nowhere in the
    range the larger model can be ahead. not_separable: anything else, such as behind at some costs and open at others. There at_low and
    at_high say from where on the larger model is ahead beyond the limit, if anywhere, and n_more how many further problems would settle
    the sign that is open, at its clearest cost; or, where the larger model is behind at some costs and by the estimate nowhere ahead, at
    every cost.

    Parameters
    ----------
    grid : (m,) rising costs from the larger model's cheapest cell on
    difference : (m,)
    low, high : (m,) its simultaneous limits, see `bootstrap.simultaneous_differences`: never of width zero
    """
    nothing = float("nan")
    below, above = np.flatnonzero(high < 0), np.flatnonzero(low > 0)
    if above.size and above[0] == 0:
        return Crossover("at_entry", float(grid[0]), float(grid[0]), float(grid[0]), nothing)
    if below.size and above.size and above[-1] > below[0]:
        end = above[above > below[0]][0]
        start = below[below < end][-1]
        between = np.arange(start, end + 1)
        sign = between[difference[between] > 0][0]
        return Crossover("found", float(grid[sign]), float(grid[min(start + 1, end)]), float(grid[end]), nothing)
    if below.size == len(grid):
        return Crossover("none_in_range", nothing, nothing, nothing, nothing)
    reach = np.where(difference > 0, difference - low, high - difference)  # towards 0, and so far as the root of the problems lets it
    needed = n_problems * np.divide(reach, difference, out=np.full(len(grid), np.inf), where=difference != 0) ** 2
    ahead = int(above[0]) if above.size else None
    if below.size and ahead is None and not (difference > 0).any():
        more = needed.max()
    else:
        open_part = (difference < 0) if ahead is not None else (difference > 0) | (difference < 0) & (not below.size)
        more = needed[:ahead].min(where=open_part[:ahead], initial=np.inf)
    n_more = float(np.ceil(max(0.0, more - n_problems))) if np.isfinite(more) else nothing
    if ahead is None:
        return Crossover("not_separable", nothing, nothing, nothing, n_more)
    return Crossover("not_separable", nothing, float(grid[0]), float(grid[ahead]), n_more)


@dataclass(frozen=True)
class Contest:
    """The larger model's cells of one kind against all of the smaller one's: f_small and f_large over the costs that both afford."""

    small: str
    large: str
    kind: str  # single, greedy, best
    grid: Floats
    f_small: tuple[Floats, Floats]  # (costs,) and (replicates, costs)
    f_large: tuple[Floats, Floats]
    bands: tuple[tuple[Floats, Floats], tuple[Floats, Floats]]  # of f_small and f_large, (costs,) low and high
    leads: Floats  # (problems, costs) accuracy of the larger model's best cell minus that of the smaller's
    w: Floats  # (replicates, problems)

    @property
    def difference(self) -> Floats:
        return self.f_large[0] - self.f_small[0]

    @property
    def replicates(self) -> Floats:
        return self.f_large[1] - self.f_small[1]

    def limits(self, confidence: float) -> tuple[Floats, Floats]:
        """Simultaneous limits of the difference, (costs,) low and high."""
        return bootstrap.simultaneous_differences(self.difference, self.replicates, self.leads, self.w, confidence)

    def table(self, confidence: float) -> pd.DataFrame:
        """One row per cost: both staircases with their bands, and the difference with the simultaneous limits that decide."""
        low, high = self.limits(confidence)
        return pd.DataFrame(
            {"cost": self.grid, "f_small": self.f_small[0], "f_small_low": self.bands[0][0], "f_small_high": self.bands[0][1]}
            | {"f_large": self.f_large[0], "f_large_low": self.bands[1][0], "f_large_high": self.bands[1][1]}
            | {"difference": self.difference, "difference_low": low, "difference_high": high}
        )


def contests(judged: Judged, cost: str) -> Iterator[Contest]:
    """All contests of two models that both have a cost, by size of the smaller and then of the larger; models of one size have none."""
    judged = with_cost(judged, cost)
    cells = judged.cells
    value = cells[cost].to_numpy(dtype=float)
    accuracy = cells["accuracy"].to_numpy(dtype=float)
    for small, large in pairs_of(cells):
        mine = (cells["model"] == small).to_numpy()
        for kind in ("single", "greedy", "best"):
            theirs = (cells["model"] == large).to_numpy() & (
                np.ones(len(cells), dtype=bool) if kind == "best" else (cells["strategy"] == kind)
            )
            if not (mine.any() and theirs.any()):
                continue
            grid = np.unique(value[mine | theirs])
            grid = grid[grid >= max(value[theirs].min(), value[mine].min())]
            sides = [best_at(value[m], accuracy[m], judged.boot[:, m], grid) for m in (mine, theirs)]
            bands = [_band_at(value[m], judged.values[:, m], judged.boot[:, m], judged.confidence, grid) for m in (mine, theirs)]
            best = [judged.values[:, np.flatnonzero(m)[leader_at(value[m], accuracy[m], grid)]] for m in (mine, theirs)]
            yield Contest(small, large, kind, grid, sides[0], sides[1], (bands[0], bands[1]), best[1] - best[0], judged.w)


def _band_at(value: Floats, values: Floats, boot: Floats, confidence: float, grid: Floats) -> tuple[Floats, Floats]:
    """The band of a staircase at costs from its cheapest cell on."""
    low, high = band(value, values, boot, confidence)
    order = np.argsort(value, kind="stable")
    at = order[np.searchsorted(value[order], grid, side="right") - 1]
    return low[at], high[at]


def pairs_of(cells: pd.DataFrame) -> list[tuple[str, str]]:
    """Every smaller and larger model, neighbours in size first."""
    models = cells[["model", "n_params"]].drop_duplicates().sort_values("n_params", kind="stable")
    names, sizes = models["model"].tolist(), models["n_params"].tolist()
    pairs = [(i, j) for i, j in itertools.combinations(range(len(names)), 2) if sizes[i] < sizes[j]]
    return [(names[i], names[j]) for i, j in sorted(pairs, key=lambda pair: (pair[1] - pair[0], pair))]


def crossovers(judged: Judged, cost: str) -> pd.DataFrame:
    """Crossovers of every pair of models, neighbours in size first: the larger one's single pass, greedy pass and best cell against the
    best of the smaller, its votes and best-of-N included.

    Models of one size are no pair. A pair of which one has no such cost gets one row that says so; a kind of cell that the larger model
    lacks gets none.
    """
    rows: list[dict[str, Any]] = []

    def add(small: str, large: str, kind: str, found: Crossover) -> None:
        rows.append({"cost": cost, "small": small, "large": large, "kind": kind, "unit": COST_UNITS[cost], **vars(found)})

    models = list(dict.fromkeys(judged.cells["model"]))
    if len(models) == 1:
        add(models[0], models[0], "best", Crossover("one_model", np.nan, np.nan, np.nan, np.nan))
    held = list(contests(judged, cost))
    for small, large in pairs_of(judged.cells):
        mine = [c for c in held if (c.small, c.large) == (small, large)]
        if not mine:
            add(small, large, "best", Crossover("unknown_cost", np.nan, np.nan, np.nan, np.nan))
        for c in mine:
            add(small, large, c.kind, crossover(c.grid, c.difference, *c.limits(judged.confidence), judged.n_problems))
    return pd.DataFrame(rows, columns=list(TABLES["crossovers"]))
