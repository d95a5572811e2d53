"""Do the 95% limits of a variance ratio cover? Simulate studies whose ratio is known, and print the coverage.

python benchmarks/simulate_variance_ratio.py [STUDIES]    2,000 studies per setting by default, 90 s of one core; writes nothing

A problem is solved with probability p by one arm and q by the other, Beta-distributed with means that fall over five strata; q is p or,
for unlike arms, half of the time drawn anew. On a share of a problem's samples both arms see the same uniform, on the others independent
ones; that share is the correlation where p = q, and is the same for all problems or itself Beta-distributed over them (`uneven`), as when
few problems hold the near-ties. A negative correlation turns the shared uniform round. The method of `flopstat.pairing` stands beside
those it was chosen from. It fails only if the interval of the measured coverage lies outside 93-97% entirely.
"""

from __future__ import annotations

import itertools
import sys
import zlib
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import binomtest
from scipy.stats import t as student

from flopstat.bootstrap import weights
from flopstat.pairing import ratio_interval

Floats = NDArray[np.float64]
Limits = tuple[Floats, Floats]

SEED = 20261123
CONFIDENCE = 0.95
RANGE = (0.93, 0.97)  # architecture.md, section 6
REPLICATES = 1000
STUDIES = 2000
BATCH = 200  # studies that share one matrix of bootstrap weights, as pairs of arms of a study do
STRATA = 5
SPREAD = 2.0  # concentration of the shared share over problems, where uneven
TRUTH = 400_000  # problems per stratum that the true ratio is taken from


@dataclass(frozen=True)
class Setting:
    """One kind of synthetic study. A low concentration puts most problems near all right or all wrong."""

    n_problems: int
    K: int
    correlation: float
    concentration: float = 1.0
    uneven: bool = False
    unlike: bool = False
    accuracy: float = 0.5

    def means(self, strata: NDArray[np.int64]) -> Floats:
        return self.accuracy + 0.8 * min(self.accuracy, 1 - self.accuracy) * (1 - 2 * strata / (STRATA - 1))


def settings() -> list[Setting]:
    """The asked-for grid, then ratios near 0, few problems, and arms that rarely vary or are rarely right."""
    grid = itertools.product((100, 150), (8, 32), (-0.5, 0.0, 0.5, 0.95), (1.0, 4.0), (False, True), (False, True))
    out = [Setting(*row) for row in grid if row[2] != 0 or not row[4]]
    out += [Setting(n, k, 0.99, c, uneven) for n, k, c, uneven in itertools.product((100, 150), (8, 32), (1.0, 4.0), (False, True))]
    out += [Setting(30, k, r, 1.0, True) for k, r in itertools.product((8, 32), (0.0, 0.5, 0.95))]
    out += [Setting(100, k, r, 0.3, True, accuracy=a) for k, r, a in itertools.product((8, 32), (0.0, 0.5, 0.95), (0.1, 0.5))]
    return out


def draw_problems(setting: Setting, means: Floats, columns: int, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Probabilities p and q of a right sample in either arm and the covariance of their samples, (problems, columns) each."""
    shape = (len(means), columns)
    a, b = (means * setting.concentration)[:, None], ((1 - means) * setting.concentration)[:, None]
    p = rng.beta(a, b, size=shape)
    q = np.where(rng.random(shape) < 0.5, rng.beta(a, b, size=shape), p) if setting.unlike else p
    share = abs(setting.correlation)
    each = rng.beta(SPREAD * share, SPREAD * (1 - share), size=shape) if setting.uneven and share > 0 else share
    both = np.minimum(p, q) if setting.correlation >= 0 else np.maximum(p + q - 1, 0.0)
    return p, q, each * (both - p * q)


def true_ratio(setting: Setting, rng: np.random.Generator) -> float:
    p, q, covariance = draw_problems(setting, setting.means(np.arange(STRATA)), TRUTH, rng)
    return float(1 - 2 * covariance.sum() / (p * (1 - p) + q * (1 - q)).sum())


def draw_variances(setting: Setting, strata: NDArray[np.int64], rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Some studies' variances per problem as drawn and as if independent, (problems, BATCH), from counts of the four joint outcomes."""
    p, q, covariance = draw_problems(setting, setting.means(strata), BATCH, rng)
    both = p * q + covariance
    cells = np.clip(np.stack([both, p - both, q - both, 1 - p - q + both], axis=-1), 0.0, 1.0)
    n = rng.multinomial(setting.K, cells / cells.sum(axis=-1, keepdims=True)) / setting.K
    x, y = n[..., 0] + n[..., 1], n[..., 0] + n[..., 2]
    unbiased = setting.K / (setting.K - 1)
    independent = unbiased * (x * (1 - x) + y * (1 - y))
    return np.maximum(independent - 2 * unbiased * (n[..., 0] - x * y), 0.0), independent


def other_limits(shared: Floats, independent: Floats, w: Floats) -> dict[str, Limits]:
    """Limits by the methods that were not chosen: percentile, BCa, Student's t on the linearised ratio, and the same on its logarithm."""
    tail, n = (1 - CONFIDENCE) / 2, len(shared)
    ratio = shared.sum(axis=0) / independent.sum(axis=0)
    boot = np.sort((w @ shared) / (w @ independent), axis=0)
    e = (shared - ratio * independent) / independent.mean(axis=0)
    se = (w @ e).std(axis=0, ddof=1)
    reach = student.ppf(1 - tail, n - 1) * se
    cubes = (e**2).sum(axis=0) ** 1.5
    skew = np.divide((e**3).sum(axis=0), 6 * cubes, out=np.zeros_like(cubes), where=cubes > 0)
    below = ((boot < ratio).mean(axis=0) + (boot <= ratio).mean(axis=0)) / 2
    shift = ndtri(np.clip(below, 1e-3, 1 - 1e-3))

    def bca(quantile: float) -> Floats:
        z = shift + ndtri(quantile)
        at = np.rint(ndtr(shift + z / (1 - skew * z)) * (len(boot) - 1)).astype(int)
        return boot[at, np.arange(len(ratio))]

    factor = np.exp(np.divide(reach, ratio, out=np.zeros_like(ratio), where=ratio > 0))
    return {
        "percentile": (np.quantile(boot, tail, axis=0), np.quantile(boot, 1 - tail, axis=0)),
        "bca": (bca(tail), bca(1 - tail)),
        "jackknife_t": (ratio - reach, ratio + reach),
        "log_ratio": (ratio / factor, ratio * factor),
    }


def row(setting: Setting, studies: int, seed: int) -> dict[str, object]:
    """Coverage of one setting; low and high are the Clopper-Pearson limits of that of the library's method."""
    rng = np.random.default_rng([seed, zlib.crc32(repr(setting).encode())])
    strata = np.arange(setting.n_problems) * STRATA // setting.n_problems
    truth = true_ratio(setting, rng)
    hits: dict[str, int] = {}
    few, estimate, width = 0.0, 0.0, 0.0
    for _ in range(studies // BATCH):
        shared, independent = draw_variances(setting, strata, rng)
        w = weights(strata, REPLICATES, rng)
        found = ratio_interval(shared, independent, w, CONFIDENCE)
        limits = {"flopstat": (found.low, found.high)} | other_limits(shared, independent, w)
        for name, (low, high) in limits.items():
            hits[name] = hits.get(name, 0) + int(((low <= truth) & (truth <= high)).sum())
        part = BATCH / studies
        few, estimate, width = (
            few + part * found.few.mean(),
            estimate + part * found.ratio.mean(),
            width + part * (found.high - found.low).mean(),
        )
    interval = binomtest(hits["flopstat"], studies).proportion_ci(CONFIDENCE)
    return {
        **asdict(setting),
        "truth": truth,
        "bias": estimate - truth,
        "width": width,
        "few": few,
        **{name: n / studies for name, n in hits.items()},
        "low": interval.low,
        "high": interval.high,
        "verdict": "holds" if interval.low <= RANGE[1] and interval.high >= RANGE[0] else "fails",
    }


def main() -> None:
    """Simulate every setting and print the table."""
    studies = int(sys.argv[1]) if len(sys.argv) > 1 else STUDIES
    if studies < BATCH or studies % BATCH:
        sys.exit(f"STUDIES is {studies}; a multiple of {BATCH} is wanted")
    table = pd.DataFrame([row(s, studies, SEED) for s in settings()])
    print(table.to_string(index=False, float_format=lambda x: f"{x:.4g}"))


if __name__ == "__main__":
    main()
