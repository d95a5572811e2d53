"""The staircase of the best accuracy that is affordable at a cost: its simultaneous band, and its area as one number."""

from __future__ import annotations

from dataclasses import dataclass

import moocore
import numpy as np
from numpy.typing import NDArray

from flopstat import bootstrap

Floats = NDArray[np.float64]


def band(cost: Floats, values: Floats, boot: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Limits of the best accuracy of any cell at each cell's cost or less, (cells,) each, that hold at all costs at once.

    The running maximum over cost of limits that hold for all cells at once: where these hold, the staircase of the true accuracies lies
    between the staircases of their lower and upper ends. So it covers at least as often as they do.

    Parameters
    ----------
    cost : (cells,)
    values : (problems, cells)
    boot : (replicates, cells)
    """
    low, high = bootstrap.simultaneous_proportions(values, boot, confidence)
    order = np.argsort(cost, kind="stable")
    last = np.empty(len(cost), dtype=np.int64)
    last[order] = np.searchsorted(cost[order], cost[order], side="right") - 1  # of each cell the last one of its cost
    return np.maximum.accumulate(low[order])[last], np.maximum.accumulate(high[order])[last]


@dataclass(frozen=True)
class Hypervolume:
    """Estimate and limits, in accuracy."""

    estimate: float
    low: float
    high: float


def hypervolume(
    cost: Floats, accuracy: Floats, boot: Floats, n_problems: int, confidence: float, span: tuple[float, float] | None = None
) -> Hypervolume:
    """Area under the staircase of best accuracies over log cost, divided by the length of the cost axis: between 0 and 1.

    It is the dominated hypervolume of the points (log cost, accuracy) against the reference (log of the highest cost, accuracy 0), so it
    has the meaning of a mean accuracy for a budget drawn uniformly in log cost. A budget that affords nothing counts 0.

    Parameters
    ----------
    cost : (cells,) above 0
    accuracy : (cells,)
    boot : (replicates, cells), at least 2 replicates
    n_problems : that the accuracies are means over
    span : lowest and highest cost of the axis; those of the cells if left out. Dearer cells do not count.

    Limits: Wilson's, on the number of problems that the bootstrap's standard error stands for, or on all where no replicate differs; the
    lower one around the estimate less its optimism (mean of the replicates minus the estimate), since a maximum over noisy cells lies too
    high, the upper one around the estimate itself, since it need not. Costs are held at their means. Cells of one cost have no axis to
    average over: their best then.

    Source: Zitzler and Thiele 1999; computed by moocore (Fonseca, Paquete and López-Ibáñez 2006).
    """
    low_cost, high_cost = (float(cost.min()), float(cost.max())) if span is None else span
    inside = cost <= high_cost
    cost, accuracy, boot = cost[inside], accuracy[inside], boot[:, inside]
    if not cost.size:
        return Hypervolume(0.0, 0.0, 0.0)  # by definition: a budget that affords nothing counts 0
    length = np.log(high_cost / low_cost)
    if length <= 0:
        estimate, replicates = float(accuracy.max()), boot.max(axis=1)
    else:
        points = np.column_stack([np.log(np.maximum(cost, low_cost) / low_cost) / length, -accuracy])
        estimate = float(moocore.hypervolume(points, ref=[1.0, 0.0]))
        order = np.argsort(cost, kind="stable")
        widths = np.diff(points[order, 0], append=1.0)
        replicates = np.maximum.accumulate(boot[:, order], axis=1) @ widths
    se = float(replicates.std(ddof=1))
    optimism = max(float(replicates.mean()) - estimate, 0.0)
    (low, _), (_, high) = (_limits(a, se, n_problems, confidence) for a in (estimate - optimism, estimate))
    return Hypervolume(estimate, low, high)


def _limits(a: float, se: float, n_problems: int, confidence: float) -> tuple[float, float]:
    """Wilson's interval of a mean in [0, 1] with a standard error; on all problems without one."""
    a = min(max(a, bootstrap.ROUNDING), 1 - bootstrap.ROUNDING)
    n = a * (1 - a) / se**2 if se > bootstrap.ROUNDING else n_problems
    low, high = bootstrap.wilson(a, n, confidence)
    return float(low), float(high)
