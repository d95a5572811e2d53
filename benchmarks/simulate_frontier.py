"""Do the frontier's band and the crossovers' intervals cover? Simulate studies whose truth is known: tests/golden/frontier_coverage.csv.

python benchmarks/simulate_frontier.py

The worlds are those of flopstat.synthetic. Band: a study counts as covered if at every cost the true best accuracy of the cells at that
cost or less lies within the band. Crossover: of the studies in which one was found, those whose interval holds a cost at which the true
difference changes from not positive to positive. False crossover: found where the larger model is truly never ahead, or never behind.
Missed: said to be behind in the whole range (none_in_range) where the larger model is truly ahead somewhere.
Hypervolume: its interval holds the true one. A claim fails only if the interval of the measured rate lies outside the range asked for.
"""

from __future__ import annotations

import functools
import itertools
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest
from tqdm import tqdm

from flopstat.bootstrap import simultaneous_differences, weights
from flopstat.frontier import best_at, crossover, leader_at
from flopstat.staircase import band, hypervolume
from flopstat.synthetic import SyntheticArm, World, strata_of

Floats = NDArray[np.float64]

PATH = Path(__file__).resolve().parents[1] / "tests" / "golden" / "frontier_coverage.csv"
SEED = 20261122
CONFIDENCE = 0.95
LEAST, MOST_FALSE = 0.93, 0.05
REPLICATES = 600
STUDIES = 1000
BATCH = 25  # studies that share one matrix of bootstrap weights
PREFIX = 100  # first studies, whose hits the table counts too: a test repeats them
COST = "flops"
NOISE = 0.002  # true accuracies are known to about 0.1 point: a true lead below this counts as none


@dataclass(frozen=True)
class Setting:
    """One kind of synthetic study: two or three sizes with their skills."""

    name: str
    skills: tuple[float, ...]
    n_problems: int
    stratified: bool
    precisions: int = 1

    @functools.cached_property
    def world(self) -> World:
        """Arms of the sizes, made once: its truth takes a second."""
        sizes = (30_000, 160_000, 900_000)
        marks = (("fp32", 32.0, 0.0), ("int4", 5.0, -0.2))[: self.precisions]
        arms = [
            SyntheticArm(f"m{i}", sizes[i], precision, bits, skill + loss)
            for i, skill in enumerate(self.skills)
            for precision, bits, loss in marks
        ]
        return World(tuple(arms))


def settings() -> list[Setting]:
    """Clear and narrow crossovers, models that never or hardly cross, low and high accuracies, three sizes at two precisions."""
    kinds = {
        "clear": (-1.0, 1.0),
        "narrow": (-0.3, 0.3),
        "equal": (0.0, 0.0),
        "worse": (0.5, 0.0),
        "low": (-5.0, -4.0),
        "high": (2.5, 5.0),
        "entry": (-6.0, 3.0),
        "slight": (0.0, 0.1),
    }
    out = [Setting(name, skills, n, n > 50) for name, skills in kinds.items() for n in (50, 150, 500)]
    return [*out, *(Setting("three", (-1.5, 0.0, 1.5), n, n > 50, 2) for n in (50, 150))]


@dataclass(frozen=True)
class Outcome:
    """What one study found; the rate of a quantity is over the studies where it is not None."""

    band: bool
    band_width: float
    crossover: bool | None
    false: bool | None
    missed: bool | None
    log_width: float  # of the crossover's interval, natural log; NaN if none was found
    hypervolume: bool
    hypervolume_width: float


def true_steps(grid: Floats, difference: Floats) -> Floats:
    """Costs at which the true difference passes from not positive to positive."""
    ahead = difference > NOISE
    return grid[1:][ahead[1:] & ~ahead[:-1]]


@dataclass(frozen=True)
class Pair:
    """Cells of the two sizes that a crossover is looked for between, and its truth."""

    small: NDArray[np.int64]
    large: NDArray[np.int64]
    grid: Floats
    steps: Floats
    possible: bool  # the larger model is truly behind somewhere and ahead at a higher cost
    ahead: bool  # it is truly ahead somewhere


def pairs(world: World) -> list[Pair]:
    cells, truth = world.cells, world.truth
    value, names = cells[COST].to_numpy(), list(dict.fromkeys(cells["model"]))
    out = []
    for small, large in itertools.pairwise(names):
        mine, theirs = (np.flatnonzero(cells["model"] == name) for name in (small, large))
        for kind in (np.flatnonzero((cells["model"] == large) & (cells["strategy"] == "single")), theirs):
            grid = np.unique(value[np.concatenate([mine, kind])])
            grid = grid[grid >= max(value[mine].min(), value[kind].min())]
            f = [best_at(value[c], truth[c], truth[c][None], grid)[0] for c in (mine, kind)]
            difference = f[1] - f[0]
            steps = true_steps(grid, difference)
            possible = bool(steps.size) and bool((difference[grid < steps[-1]] < 0).any())
            out.append(Pair(mine, kind, grid, steps, possible, bool((difference > NOISE).any())))
    return out


def simulate_batch(setting: Setting, rng: np.random.Generator) -> list[list[Outcome]]:
    """BATCH studies of one setting; of each an outcome per pair and kind."""
    world, n = setting.world, setting.n_problems
    strata = strata_of(n, setting.stratified)
    drawn = world.draw(np.tile(strata, BATCH) if setting.stratified else None, n * BATCH, rng).reshape(BATCH, n, -1)
    w = weights(strata, REPLICATES, rng)
    value, truth = world.cells[COST].to_numpy(), world.truth
    true_best, _ = best_at(value, truth, truth[None], value)
    looked = pairs(world)
    true_volume = hypervolume(value, truth, np.tile(truth, (2, 1)), n, CONFIDENCE).estimate
    out = []
    for values in drawn:
        accuracy, boot = values.mean(axis=0), w @ values
        low, high = band(value, values, boot, CONFIDENCE)
        covered = bool((low <= true_best + 1e-12).all() and (true_best <= high + 1e-12).all())
        volume = hypervolume(value, accuracy, boot, n, CONFIDENCE)
        mine = []
        for pair in looked:
            small = best_at(value[pair.small], accuracy[pair.small], boot[:, pair.small], pair.grid)
            large = best_at(value[pair.large], accuracy[pair.large], boot[:, pair.large], pair.grid)
            cells = [c[leader_at(value[c], accuracy[c], pair.grid)] for c in (pair.small, pair.large)]
            leads = values[:, cells[1]] - values[:, cells[0]]
            limits = simultaneous_differences(large[0] - small[0], large[1] - small[1], leads, w, CONFIDENCE)
            found = crossover(pair.grid, large[0] - small[0], *limits, n)
            is_found = found.status == "found"
            holds = bool(((found.at_low <= pair.steps) & (pair.steps <= found.at_high)).any())
            mine.append(
                Outcome(
                    covered,
                    float((high - low).mean()),
                    holds if is_found and pair.possible else None,
                    is_found if not pair.possible else None,
                    found.status == "none_in_range" if pair.ahead else None,
                    float(np.log(found.at_high / found.at_low)) if is_found else float("nan"),
                    volume.low <= true_volume <= volume.high,
                    volume.high - volume.low,
                )
            )
        out.append(mine)
    return out


def simulate(setting: Setting, studies: int, seed: int) -> list[list[Outcome]]:
    """Outcomes of studies; the first do not depend on how many follow. `studies` is a multiple of BATCH."""
    key = zlib.crc32(repr(setting).encode())
    return [one for i in range(studies // BATCH) for one in simulate_batch(setting, np.random.default_rng([seed, key, i]))]


def row(setting: Setting, quantity: str, outcomes: list[list[Outcome]]) -> dict[str, Any] | None:
    """One row of frontier_coverage.csv; low and high are the Clopper-Pearson limits of the measured rate. None if nothing counts."""
    per_study = quantity in ("band", "hypervolume")
    flat = [[o[0]] if per_study else o for o in outcomes]
    hits = [getattr(o, quantity) for one in flat for o in one]
    counted = [h for h in hits if h is not None]
    if not counted:
        return None
    first = [h for one in flat[:PREFIX] for o in one if (h := getattr(o, quantity)) is not None]
    names = {"band": "band_width", "crossover": "log_width", "hypervolume": "hypervolume_width"}
    widths = [getattr(o, names[quantity]) for one in flat for o in one] if quantity in names else [np.nan]
    limits = binomtest(sum(counted), len(counted)).proportion_ci(CONFIDENCE)
    holds = limits.low <= MOST_FALSE if quantity in ("false", "missed") else limits.high >= LEAST
    return {
        **asdict(setting),
        "skills": " ".join(str(s) for s in setting.skills),
        "quantity": quantity,
        "n_studies": len(outcomes),
        "n_counted": len(counted),
        "rate": np.mean(counted),
        "low": limits.low,
        "high": limits.high,
        "mean_width": np.nanmean(widths) if np.isfinite(widths).any() else np.nan,
        "first_hits": sum(first),
        "verdict": "holds" if holds else "fails",
    }


def main() -> None:
    """Simulate every setting and write the table."""
    rows = []
    for setting in tqdm(settings(), unit="setting", disable=None):
        outcomes = simulate(setting, STUDIES, SEED)
        rows += [row(setting, quantity, outcomes) for quantity in ("band", "crossover", "false", "missed", "hypervolume")]
    table = pd.DataFrame([r for r in rows if r is not None])
    table.to_csv(PATH, index=False, float_format="%.6g", lineterminator="\n")


if __name__ == "__main__":
    main()
