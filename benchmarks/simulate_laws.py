"""Does every law of the catalogue get its own parameters back? Writes tests/golden/law_recovery.csv and prints what fails.

python benchmarks/simulate_laws.py [--draws 1000] [--only LAW ...] [--jobs 2] [--out FILE]

A draw: the law at the parameters of its example, at points spread over its variables' ranges (Sobol, logarithmic), with Gaussian noise of
2% of the response's standard deviation, in the space of the law's objective. It is fitted from the law's own starts, never from the truth:
up to 64 of them take a few cheap steps, and the best eight go on to their optimum. Counted: how often the 95% interval holds the truth, by
profile (all draws) and by bootstrap (the first of them). A parameter fails if its coverage by profile lies outside 90-98% by an exact
binomial test, with Holm's correction over all parameters of all laws. Parameters of a flat direction (of the design itself) are listed as
not identifiable, and not counted.

Every law has a seed of its own and runs in one process with one thread: `--only` and `--jobs` change no number. `--only` replaces the rows
of its laws in the file. The column `code` is a hash of the code and of the catalogue that a row was made with; a file of one run has one.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import ast
import hashlib
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binom, qmc

from flopstat.lawbook import catalogue
from flopstat.lawbook.certificate import agreeing, curvature_covariance, flat_directions
from flopstat.lawbook.compiled import transform, untransform
from flopstat.lawbook.fitting import DELTA, problem_for
from flopstat.lawbook.intervals import bootstrap, profile
from flopstat.lawbook.objectives import objective
from flopstat.lawbook.observations import Observations
from flopstat.lawbook.optimiser import Minima, Problem, minimise, shortlist
from flopstat.provenance import code_hash

Floats = NDArray[np.float64]

PATH = Path(__file__).resolve().parents[1] / "tests" / "golden" / "law_recovery.csv"
SEED = 20261122
CONFIDENCE = 0.95
RANGE = (0.90, 0.98)
NOISE = 0.02  # of the response's standard deviation
SCREENED, SCREENING_STEPS = 64, 25
STARTS = 8
BOOTSTRAPPED, REPLICATES = 100, 200
POINTS = 12  # per parameter, at least 48


def design(law: catalogue.Law) -> Observations:
    """Points over the variables' ranges and the law's exact values there."""
    n = max(48, POINTS * len(law.parameters))
    power = int(np.ceil(np.log2(n)))
    unit = qmc.Sobol(len(law.variables), rng=np.random.default_rng(SEED)).random_base2(power)[:n]
    low, high = (np.log([v.range[i] for v in law.variables if v.range]) for i in (0, 1))
    points = np.exp(low + unit * (high - low))
    variables = {name: points[:, i] for i, name in enumerate(law.variable_names)}
    if "P_post" in variables and "P_w" in variables:
        variables["P_post"] = np.minimum(variables["P_post"], variables["P_w"])
    return Observations(variables, np.asarray(law.predict(law.example.parameters, variables), dtype=np.float64))


def state() -> str:
    """Hash of what the numbers come from: this script, the engine and the laws without their words."""
    script = ast.dump(ast.parse(Path(__file__).read_text(encoding="utf-8")))
    entries = [(law.formula, law.variables, law.parameters, law.objective, law.example.parameters) for law in catalogue.laws().values()]
    parts = (code_hash("lawbook.fitting", "lawbook.intervals", "lawbook.certificate"), script, repr(entries))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def best_of(problem: Problem, grid: Floats, draws: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Best θ of each draw (draws, p), and the share of its shortlisted starts that reach it (draws,)."""
    p = grid.shape[1]
    some = rng.integers(len(grid), size=(draws, SCREENED)) if len(grid) > SCREENED else np.tile(np.arange(len(grid)), (draws, 1))
    starts = shortlist(problem, grid[some], STARTS, SCREENING_STEPS)
    kept = starts.shape[1]
    found = minimise(problem.at(np.repeat(np.arange(draws), kept)), starts.reshape(-1, p))
    value = found.value.reshape(draws, kept)
    best = found.theta.reshape(draws, kept, p)[np.arange(draws), value.argmin(axis=1)]
    share = np.array([agreeing(Minima(best, v, v.astype(np.int64)), 0.0).mean() for v in np.where(np.isfinite(value), value, 1e300)])
    return minimise(problem, best, near=True).theta, share


def recover(law: catalogue.Law, draws: int) -> list[dict[str, object]]:
    """One row per parameter."""
    rng = np.random.default_rng([SEED, sum(map(ord, law.id))])
    data = design(law)
    goal = objective(law.objective, DELTA, data.y)
    exact = problem_for(law, data, goal, {})
    sigma = NOISE * float(np.std(exact.y))
    problem = replace(exact, y=exact.y + sigma * rng.normal(size=(draws, len(data))))
    scales = [p.scale for p in law.parameters]
    truth = transform(np.array([law.example.parameters[n] for n in law.names]), scales)
    grid = law.start_grid(data.variables, data.y, {})
    grid = np.column_stack([np.clip(grid[:, i], p.low, p.high) for i, p in enumerate(law.parameters)])
    theta, share = best_of(problem, transform(grid, scales), draws, rng)
    ends = profile(problem, theta, curvature_covariance(problem, theta), CONFIDENCE)
    lost = float((problem.total(theta) > problem.total(np.tile(truth, (draws, 1))) * (1 + 1e-6)).mean())
    inside = (ends[:, :, 0] <= truth) & (truth <= ends[:, :, 1])
    tail = (1 - CONFIDENCE) / 2
    some = []
    for i in range(min(BOOTSTRAPPED, draws)):
        one = problem.at(np.array([i]))
        refits = bootstrap(replace(one, y=one.y[0]), theta[i], REPLICATES, i)
        low, high = np.quantile(refits, [tail, 1 - tail], axis=0)
        some.append((low <= truth) & (truth <= high))
    noisy = replace(problem, y=problem.y[0])
    flat = flat_directions(noisy, theta[0])
    estimates = untransform(theta, scales)
    return [
        {
            "law": law.id,
            "parameter": p.name,
            "truth": law.example.parameters[p.name],
            "median": float(np.median(estimates[:, i])),
            "spread": float(np.subtract(*np.quantile(estimates[:, i], [0.84, 0.16])) / 2),
            "n": len(data),
            "draws": draws,
            "hits": int(inside[:, i].sum()),
            "coverage_profile": float(inside[:, i].mean()),
            "coverage_bootstrap": float(np.mean(some, axis=0)[i]),
            "worse_than_truth": lost,
            "starts_at_optimum": float(share.mean()),
            "identifiable": not any(p.name in text.replace(",", " ").split() for text in flat),
        }
        for i, p in enumerate(law.parameters)
    ]


def judged(table: pd.DataFrame) -> pd.DataFrame:
    """Adds p (exact, of coverage within 90-98%) and the verdict after Holm's correction."""
    hits, draws = table["hits"], table["draws"]
    table["p"] = np.minimum(1.0, 2 * np.minimum(binom.cdf(hits, draws, RANGE[0]), binom.sf(hits - 1, draws, RANGE[1])))
    counted = table.loc[table["identifiable"], "p"].sort_values()
    adjusted = (counted * np.arange(len(counted), 0, -1)).cummax().clip(upper=1)
    table["p_holm"] = adjusted.reindex(table.index)
    table["verdict"] = np.where(~table["identifiable"], "not identifiable", np.where(table["p_holm"] < 0.05, "fails", "holds"))
    return table


def timed(name: str, draws: int) -> tuple[str, float, list[dict[str, object]]]:
    """One law, in a process of its own."""
    begun = time.process_time()
    rows = recover(catalogue.find(name), draws)
    return name, time.process_time() - begun, rows


def told(name: str, seconds: float, rows: list[dict[str, object]]) -> None:
    print(f"{name}: {seconds:.0f} s of processor time, shortlisted starts at the optimum {rows[0]['starts_at_optimum']:.2f}", flush=True)
    for row in rows:
        print(
            f"  {row['parameter']:<9} {row['truth']:<9.4g} median {row['median']:<10.4g} profile {row['coverage_profile']:.3f}"
            f" bootstrap {row['coverage_bootstrap']:.3f} worse than truth {row['worse_than_truth']:.3f}"
            f"{'' if row['identifiable'] else '  not identifiable'}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=PATH)
    asked = parser.parse_args()
    known = catalogue.laws()
    wanted = [catalogue.find(name).id for name in asked.only] or list(known)
    old = pd.read_csv(asked.out) if asked.only and asked.out.is_file() else pd.DataFrame(columns=["law"])
    parts = {str(name): part for name, part in old.groupby("law") if name not in wanted}
    code = state()
    slow_first = sorted(wanted, key=lambda name: -len(known[name].parameters))
    with ProcessPoolExecutor(asked.jobs) as processes:
        for done in as_completed(processes.submit(timed, name, asked.draws) for name in slow_first):
            name, seconds, rows = done.result()
            told(name, seconds, rows)
            parts[name] = pd.DataFrame(rows).assign(code=code)
            table = judged(pd.concat([parts[law] for law in known if law in parts], ignore_index=True))
            table.to_csv(asked.out, index=False, float_format="%.6g")  # after every law, so that an interrupted run keeps what it has
    print(table.groupby("verdict").size().to_string())
    print(table.loc[table["verdict"] != "holds", ["law", "parameter", "coverage_profile", "p_holm", "verdict"]].to_string())


if __name__ == "__main__":
    main()
