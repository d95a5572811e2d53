"""Is a precision faster here than the model's reference precision? Ratios of speeds with intervals, from two calibrations' rounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flopstat.latency import SECONDS

CONFIDENCE = 0.95
SPEED = "speed_over_reference"


def _lower_tail(n: int, m: int) -> list[float]:
    """P(U <= u) of the Mann-Whitney statistic of samples of n and m, u = 0, 1, ...: arrangements counted by u, all equally likely.

    The largest value is the first sample's (then m of its pairs count) or the second's, so c(n, m)[u] = c(n-1, m)[u-m] + c(n, m-1)[u].
    """
    counts = {(i, j): [1] for i in range(n + 1) for j in range(m + 1) if i == 0 or j == 0}
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            first, second = [0] * j + counts[i - 1, j], counts[i, j - 1] + [0] * i
            counts[i, j] = [a + b for a, b in zip(first, second, strict=True)]
    return (np.cumsum(counts[n, m]) / math.comb(n + m, n)).tolist()


def speed_ratio(reference: Sequence[float], arm: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """How many times faster an arm is than its reference: estimate and limits, from the seconds of their rounds.

    The estimate is the median of all ratios reference_i / arm_j (Hodges and Lehmann), taken of logarithms. The limits are the k-th
    smallest and largest of them, k as large as P(U < k) <= (1 - confidence) / 2 allows, U Mann and Whitney's statistic: whatever the
    distribution of a round's time, if both arms' differ by a factor alone. With too few rounds for the level all ratios lie within.

    # ASSUME rounds of the calibration are independent: the machine's state changes from round to round, not between the jobs of two arms

    Worked by hand: rounds (2, 4) and (1, 1): ratios 2, 2, 4, 4, median √8; P(U <= 0) = 1/6 is too much for 95%, so the limits are 2 and 4.
    """
    ratios = np.sort(np.divide.outer(np.asarray(reference, dtype=float), np.asarray(arm, dtype=float)).ravel())
    below = sum(p <= (1 - confidence) / 2 for p in _lower_tail(len(reference), len(arm)))
    k = max(below, 1)
    return float(np.exp(np.median(np.log(ratios)))), float(ratios[k - 1]), float(ratios[-k])


def verdict(low: float, high: float, emulated: bool) -> str:
    """What an interval of the speed over the reference's says."""
    if emulated:
        return "emulated"
    return "faster" if low > 1 else "slower" if high < 1 else "the same"


def _rounds(measured: Mapping[str, Any]) -> dict[tuple[int, int], list[float]]:
    return {(r["batch"], r["context"]): r["rounds"] for r in measured["rows"] if r["phase"] == "decode" and r["metric"] == SECONDS}


def verdict_rows(measured: Mapping[str, Any], reference: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of calibration.csv: decoding speed over the reference's at batch 1 and the largest batch, at the middle context.

    Empty where the two were timed on different devices: those times do not compare.

    Parameters
    ----------
    measured, reference : contents of two calibration/<arm>.json of one model
    """
    if measured["device"]["fingerprint"] != reference["device"]["fingerprint"]:
        return []
    mine, theirs = _rounds(measured), _rounds(reference)
    both = sorted(mine.keys() & theirs.keys())
    rows = []
    for batch in sorted({both[0][0], both[-1][0]}) if both else []:
        contexts = [c for b, c in both if b == batch]
        where = (batch, contexts[len(contexts) // 2])
        ratio, low, high = speed_ratio(theirs[where], mine[where])
        rows.append(
            {
                "phase": "decode",
                "batch": batch,
                "context": where[1],
                "metric": SPEED,
                "value": ratio,
                "low": low,
                "high": high,
                "unit": "",
                "verdict": verdict(low, high, measured["emulated"]),
            }
        )
    return rows
