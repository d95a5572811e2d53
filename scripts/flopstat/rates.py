"""How fast a plan may expect an arm to run: as its pilot measured, as this machine was calibrated, or as a data sheet allows at best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flopstat.batching import Schedule
from flopstat.latency import Latency

Floats = NDArray[np.float64]

PILOT, CALIBRATION, ROOFLINE = "pilot", "calibration", "roofline"
# ASSUME a sampling job on a GPU that is not here begins within a minute: imports, and weights from disk at 1 GB/s
START_S, LOAD_BYTES_S = 15.0, 1e9
# ASSUME a forecast of seconds is no better than a fifth, for neighbours on the machine and clocks vary
UNCERTAIN = 0.2


@dataclass(frozen=True)
class Rate:
    """Seconds of an arm's sampling job.

    source : pilot, calibration or roofline.
    latency : fitted or nominal times of a step and of a prefill.
    correction : factor on a step at each of some numbers of rows (rows, factors), between which it is interpolated.
    prefill : factor on a prefill.
    startup : seconds before the first token.
    """

    source: str
    latency: Latency | None
    rows: Floats
    factors: Floats
    prefill: float
    startup: float

    @classmethod
    def of_pilot(cls, rate: dict[str, Any], latency: Latency | None) -> Rate:
        """What the pilot measured, at its two widths exactly.

        With a calibration of this machine the times of other widths and contexts follow its model: the factor at a width is the measured
        step over the calibrated one. Without, a step is a straight line in its rows and does not depend on what it attends to.
        # ASSUME what threads and neighbours change in speed is a factor that varies with the width of the batch only
        """
        points = rate["points"]
        rows, context, step = (np.array([p[key] for p in points]) for key in ("rows", "context", "step"))
        per_token = float(np.median([p["prompt_token"] for p in points]))
        if latency is not None:
            step = step / latency.step_s(rows, context)
        return cls(PILOT, latency, rows, step, per_token, float(rate["startup_seconds"]))

    @classmethod
    def of_calibration(cls, latency: Latency) -> Rate:
        """The calibrated times as they are: of all the machine's cores, and without a job's start-up."""
        return cls(CALIBRATION, latency, np.ones(1), np.ones(1), 1.0, START_S)

    @classmethod
    def of_roofline(cls, latency: Latency, weight_bytes: float, efficiency: float) -> Rate:
        """The bound of a data sheet over the share of it that is reached."""
        return cls(ROOFLINE, latency, np.ones(1), np.ones(1) / efficiency, 1 / efficiency, START_S + weight_bytes / LOAD_BYTES_S)

    def _step(self, rows: Floats, context: Floats) -> Floats:
        if self.latency is not None:
            return np.asarray(np.interp(rows, self.rows, self.factors) * self.latency.step_s(rows, context))
        if len(self.rows) < 2:
            return np.full(len(rows), self.factors[0])
        slope = (self.factors[-1] - self.factors[0]) / (self.rows[-1] - self.rows[0])
        # Below the narrower width a step takes at least half its time: reading the weights does not get less.
        return np.asarray(np.maximum(self.factors[0] + slope * (rows - self.rows[0]), self.factors[0] / 2))

    def seconds(self, run: Schedule) -> float:
        """Seconds that the engine takes for a schedule, start-up left out."""
        steps = float(run.steps @ self._step(run.rows.astype(np.float64), run.context))
        if self.source == PILOT or self.latency is None:
            return steps + self.prefill * float(run.prompts @ run.longest)
        return steps + self.prefill * float(self.latency.prefill_s(run.prompts, run.longest).sum())
