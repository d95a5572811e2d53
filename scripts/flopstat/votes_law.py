"""What one more doubling of the votes gains: local κ(P), and where votes saturate."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from flopstat import bootstrap
from flopstat.laws import COLLAPSED_PER_DOUBLING, Parameter, unmoved
from flopstat.study_pools import StudyPools, finite, interval, missing

Floats = NDArray[np.float64]

FIRST = 3  # a vote of 2 equals one sample, so the gain from 1 to 2 is 0 and that from 2 to 4 is not local
SMALLEST_POOL = 2 * FIRST


def doubling_gains(curve: Floats) -> Floats:
    """A(2P) - A(P) per problem for P = 3..K/2, (problems, K/2 - 2), of votes of P = 1..K, (problems, K). κ(P) is the gain over ln 2."""
    p = np.arange(FIRST, curve.shape[1] // 2 + 1)
    return curve[:, 2 * p - 1] - curve[:, p - 1]


def local_kappa(pools: StudyPools) -> pd.DataFrame:
    """κ(P) = [A(2P) - A(P)] / ln 2 of every arm, T and P = 3..K/2: rows of local_kappa.csv.

    `low` and `high` hold at that P alone (`bootstrap.gain_interval`), `band_low` and `band_high` for all P of the arm and T at once
    (`bootstrap.simultaneous_differences`). Arms with fewer than 6 samples have no row.
    """
    rows = []
    for (arm, t), curve in pools.votes.items():
        if curve.shape[1] < SMALLEST_POOL:
            continue
        gains = doubling_gains(curve)
        estimate = gains.mean(axis=0)
        low, high = bootstrap.gain_interval(gains, pools.w, pools.confidence)
        band_low, band_high = bootstrap.simultaneous_differences(estimate, pools.w @ gains, gains, pools.w, pools.confidence, 0)
        named = {"kappa": estimate, "low": low, "high": high, "band_low": band_low, "band_high": band_high}
        values = {name: gain / np.log(2) for name, gain in named.items()}
        rows.append(pd.DataFrame({"arm": arm, "T": t, "P": np.arange(FIRST, FIRST + len(estimate))} | values))
    columns = ["arm", "T", "P", "kappa", "low", "high", "band_low", "band_high"]
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=columns)


def vote_gains(pools: StudyPools, kappa: dict[tuple[str, int], float]) -> pd.DataFrame:
    """A(P) - A(1) for every P, with κ ln P beside it: rows of vote_gains.csv. Limits hold at that P alone (`bootstrap.gain_interval`).

    By definition P = 1 gains nothing, and P = 2 neither where every chain answers: limits of P < 3 are percentiles, of width 0 there.

    Parameters
    ----------
    kappa : mapping of (arm, T) to κ; arms without one have no row
    """
    rows = []
    for (arm, t), curve in pools.votes.items():
        if np.isfinite(kappa.get((arm, t), np.nan)):
            gain = curve - curve[:, :1]
            tail = (1 - pools.confidence) / 2
            limits = np.quantile(pools.w @ gain, [tail, 1 - tail], axis=0)
            limits[:, FIRST - 1 :] = bootstrap.gain_interval(gain[:, FIRST - 1 :], pools.w, pools.confidence)
            low, high = limits
            p = np.arange(1, curve.shape[1] + 1)
            values = {"gain": gain.mean(axis=0), "low": low, "high": high, "fitted": kappa[arm, t] * np.log(p)}
            rows.append(pd.DataFrame({"arm": arm, "T": t, "P": p} | values))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=["arm", "T", "P", "gain", "low", "high", "fitted"])


def _first_below(gains: Floats) -> Floats:
    """For each row of gains at P = 3, 4, ...: the smallest P from which on all are below half a point; inf if the last is not."""
    above = gains >= COLLAPSED_PER_DOUBLING
    last = np.where(above.any(axis=1), gains.shape[1] - 1 - above[:, ::-1].argmax(axis=1), -1)
    return np.where(last == gains.shape[1] - 1, np.inf, last + 1.0 + FIRST)


def fit_saturation(curve: Floats, w: Floats, confidence: float) -> Parameter:
    """The P from which on every measured doubling gains less than half a point of accuracy.

    Smallest P in 3..K/2 such that A(2P') - A(P') < 0.005 for all P' from P to K/2. Limits are percentiles over bootstrap replicates, a
    replicate that never saturates counting as beyond K/2. "Collapsed" is said only where even the upper limit of the gain of
    the last doubling is below half a point. Where no replicate differs, as where a model answers nothing right, it is not identified.

    Parameters
    ----------
    curve : (problems, K)
    w : (replicates, problems)

    Leaves out: what more than K votes would do.
    """
    names = ("kappa-log-p", "saturation_P")
    k = curve.shape[1]
    if k < SMALLEST_POOL:
        return missing(*names, f"a pool of {k} samples holds no doubling from {FIRST} votes on")
    gains = doubling_gains(curve)
    boot = w @ gains
    if not boot.std(axis=0).max() > bootstrap.ROUNDING:
        return missing(*names, unmoved(curve))
    estimate = float(_first_below(gains.mean(axis=0)[None])[0])
    low, high = interval(_first_below(boot), confidence)
    top = float(np.quantile(boot[:, -1], 0.5 + confidence / 2))
    if top < COLLAPSED_PER_DOUBLING:
        verdict = f"collapsed: from {k // 2} to {k} votes less than half a point"
    elif np.isinf(estimate):
        verdict = f"not saturated: from {k // 2} to {k} votes still half a point or more"
    else:
        verdict = "saturated by the estimate alone: the limits of the last doubling hold half a point"
    if np.isinf(high):
        verdict += "; an open limit lies beyond half the pool"
    return Parameter(*names, finite(estimate), finite(low), finite(high), bool(np.isfinite(estimate) and np.isfinite(high)), verdict)
