"""Do the 95% intervals cover? Simulate studies whose truth is known, and write tests/golden/coverage.csv.

python benchmarks/simulate_coverage.py

A problem's probability of a right sample is drawn from a Beta distribution, one per stratum, whose mean is the true accuracy and whose
concentration says how much problems differ (1: most are nearly always or nearly never solved; 4: most lie between). Wrong samples fall on
three answers, so that votes can lose. A second arm keeps a share of the first one's probabilities and draws the others from Betas with a
shifted mean. A claim fails only if the interval of the measured coverage lies outside 93-97% entirely.
"""

from __future__ import annotations

import functools
import itertools
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import betaln
from scipy.stats import binomtest
from tqdm import tqdm

from flopstat.bootstrap import chosen_best, paired_interval, proportion_interval, weights
from flopstat.estimators import majority_at_all_k

Floats = NDArray[np.float64]

PATH = Path(__file__).resolve().parents[1] / "tests" / "golden" / "coverage.csv"
SEED = 20261122
CONFIDENCE = 0.95
RANGE = (0.93, 0.97)  # architecture.md, section 6
REPLICATES = 1000
STUDIES = 2000
BATCH = 100  # studies that share one matrix of bootstrap weights, as cells of a study do
PREFIX = 300  # first studies, whose covering intervals the table counts too: a test repeats them
VOTES = 5
WRONG = np.array([0.5, 0.3, 0.2])  # shares of the wrong answers
STRATA = 5
HALVES = 50
CHOSEN_STUDIES, CHOSEN_REPLICATES = 1000, 250  # of chosen_best, which bootstraps every study by itself
LAGS = np.array([0, 0, 0, 0, 0.02, 0.02, 0.05, 0.05, 0.1, 0.1, 0.2, 0.3])  # of 12 cells: by how much their own probabilities are lower

Quantity = Literal["single", "vote", "difference", "chosen_best"]


@dataclass(frozen=True)
class Setting:
    """One kind of synthetic study."""

    quantity: Quantity
    accuracy: float
    n_problems: int
    stratified: bool
    concentration: float
    K: int = 16
    shared: float = 1.0  # of two arms: the probability that a problem is equally hard for both
    shift: float = 0.0  # how far the second arm's other problems are moved towards all right (accuracies up to 50%) or all wrong

    def strata(self) -> NDArray[np.int64]:
        return np.arange(self.n_problems) * STRATA // self.n_problems if self.stratified else np.zeros(self.n_problems, dtype=np.int64)

    def means(self) -> Floats:
        """Mean of each problem's Beta, (problems,); their mean is the accuracy."""
        slope = 0.8 * min(self.accuracy, 1 - self.accuracy) if self.stratified else 0.0
        return self.accuracy + slope * (1 - 2 * self.strata() / (STRATA - 1))

    def shifted_means(self) -> Floats:
        return (1 - self.shift) * self.means() + self.shift * (self.accuracy <= 0.5)


def settings() -> list[Setting]:
    """All settings: accuracies at 50 and 500 problems, with and without strata."""
    levels = [(a, 50) for a in (0.1, 0.25, 0.5, 0.75, 0.9)] + [(a, 500) for a in (0.03, 0.1, 0.5, 0.9, 0.97)]
    out: list[Setting] = []
    for (accuracy, n), stratified in itertools.product(levels, (False, True)):
        where = (accuracy, n, stratified)
        out += [Setting(q, *where, c) for q in ("single", "vote") for c in (1.0, 4.0)]
        out += [Setting("difference", *where, 1.0, shared=shared, shift=shift) for shared, shift in ((1.0, 0.0), (0.9, 0.1), (0.5, 0.2))]
        out.append(Setting("chosen_best", *where, 1.0, shared=0.5))
    out += [Setting("difference", 0.5, n, False, 1.0, K=1, shared=shared, shift=0.2) for n in (50, 500) for shared in (0.8, 0.5)]
    return out


def probabilities(means: Floats, concentration: float, studies: int, rng: np.random.Generator) -> Floats:
    """Draw problems: (problems, studies) probabilities of a right sample."""
    shape = (len(means), studies)
    return rng.beta((means * concentration)[:, None], ((1 - means) * concentration)[:, None], size=shape)


def second_arm(first: Floats, means: Floats, setting: Setting, rng: np.random.Generator) -> Floats:
    """Probabilities of another arm: those of the first where shared, else drawn from Betas with `means`."""
    other = probabilities(means, setting.concentration, first.shape[1], rng)
    return np.where(rng.random(first.shape) < setting.shared, first, other)


@functools.cache
def vote_table(k: int) -> Floats:
    """Accuracy of a vote over VOTES of k samples by their counts of the right answer and of two of the wrong ones, (k+1, k+1, k+1)."""
    counts = np.array([c for c in itertools.product(range(k + 1), repeat=3) if sum(c) <= k])
    counts = np.column_stack([counts, k - counts.sum(axis=1)])
    codes = np.array([np.repeat(np.arange(4), c) for c in counts])
    table = np.full((k + 1,) * 3, np.nan)
    table[tuple(counts[:, :3].T)] = majority_at_all_k(codes, np.zeros(len(codes), dtype=np.int64), VOTES)[:, -1]
    return table


def true_vote(means: Floats, concentration: float) -> float:
    """E[probability that VOTES fresh samples vote for the right answer], exact: all sequences of answers, with moments of the Beta."""
    codes = np.array(list(itertools.product(range(4), repeat=VOTES)))
    win = majority_at_all_k(codes, np.zeros(len(codes), dtype=np.int64), VOTES)[:, -1]
    right = (codes == 0).sum(axis=1)
    share = np.concatenate([[1.0], WRONG])[codes].prod(axis=1)
    a, b = (means * concentration)[:, None], ((1 - means) * concentration)[:, None]
    moments = np.exp(betaln(a + right, b + VOTES - right) - betaln(a, b))
    return float((moments @ (share * win)).mean())


def votes(p: Floats, k: int, rng: np.random.Generator) -> Floats:
    """Accuracies of a vote over VOTES of k drawn samples, of the shape of p."""
    counts = rng.multinomial(k, np.concatenate([p[..., None], (1 - p[..., None]) * WRONG], axis=-1))
    return vote_table(k)[counts[..., 0], counts[..., 1], counts[..., 2]]


@dataclass(frozen=True)
class Batch:
    """Limits and truths of some studies, (studies,) each."""

    low: Floats
    high: Floats
    truth: Floats


def simulate_batch(setting: Setting, studies: int, rng: np.random.Generator) -> Batch:
    """Studies of one setting with their intervals."""
    means, k = setting.means(), setting.K
    p = probabilities(means, setting.concentration, studies, rng)
    if setting.quantity == "chosen_best":
        return _choices(p, setting, rng)
    w = weights(setting.strata(), REPLICATES, rng)
    if setting.quantity == "difference":
        shifted = setting.shifted_means()
        difference = (rng.binomial(k, second_arm(p, shifted, setting, rng)) - rng.binomial(k, p)) / k
        paired = paired_interval(difference, w, CONFIDENCE)
        return Batch(paired.low, paired.high, np.full(studies, (1 - setting.shared) * (shifted - means).mean()))
    single = setting.quantity == "single"
    interval = proportion_interval(rng.binomial(k, p) / k if single else votes(p, k, rng), w, CONFIDENCE)
    return Batch(interval.low, interval.high, np.full(studies, means.mean() if single else true_vote(means, setting.concentration)))


def _choices(p: Floats, setting: Setting, rng: np.random.Generator) -> Batch:
    """The chosen best of 12 cells, of which several are nearly equal. Truth: the true accuracies of the chosen cells by their shares."""
    means = setting.means()
    lowered = means[:, None] * (1 - LAGS)
    accuracy = setting.shared * means.mean() + (1 - setting.shared) * lowered.mean(axis=0)
    arms = [second_arm(p, m, setting, rng) for m in lowered.T]
    values = rng.binomial(setting.K, np.stack(arms, axis=2)) / setting.K
    found = [chosen_best(values[:, s], setting.strata(), CHOSEN_REPLICATES, HALVES, CONFIDENCE, rng) for s in range(p.shape[1])]
    return Batch(*(np.array(x) for x in zip(*((f.low, f.high, f.chosen @ accuracy) for f in found), strict=True)))


def simulate(setting: Setting, studies: int, seed: int) -> tuple[NDArray[np.bool_], Floats, Floats]:
    """Whether each interval covers, its width and the truth, (studies,). The first studies do not depend on how many follow.

    Parameters
    ----------
    studies : multiple of BATCH
    """
    key = zlib.crc32(repr(setting).encode())
    batches = [simulate_batch(setting, BATCH, np.random.default_rng([seed, key, i])) for i in range(studies // BATCH)]
    low, high, truth = (np.concatenate([getattr(b, name) for b in batches]) for name in ("low", "high", "truth"))
    return (low <= truth) & (truth <= high), high - low, truth


def row(setting: Setting, seed: int) -> dict[str, object]:
    """One row of coverage.csv; low and high are the Clopper-Pearson limits of the measured coverage."""
    studies = CHOSEN_STUDIES if setting.quantity == "chosen_best" else STUDIES
    covers, width, truth = simulate(setting, studies, seed)
    limits = binomtest(int(covers.sum()), studies).proportion_ci(CONFIDENCE)
    return {
        **asdict(setting),
        "truth": truth.mean(),
        "n_studies": studies,
        "coverage": covers.mean(),
        "low": limits.low,
        "high": limits.high,
        "mean_width": width.mean(),
        "first_hits": int(covers[:PREFIX].sum()),
        "verdict": "holds" if limits.low <= RANGE[1] and limits.high >= RANGE[0] else "fails",
    }


def main() -> None:
    """Simulate every setting and write the table."""
    rows = [row(s, SEED) for s in tqdm(settings(), unit="setting", disable=None)]
    pd.DataFrame(rows).to_csv(PATH, index=False, float_format="%.6g", lineterminator="\n")


if __name__ == "__main__":
    main()
