"""How long a prefill and a decoding step take: a model of a few seconds-per-something, fitted to an arm's calibration. No torch here.

    step(b, c)    = overhead + row · max(b, turn) + attention · b · c          seconds for one token of each of b rows that see c tokens
    prefill(b, n) = overhead + max(floor, b · (prompt + token · n)) + square · b · n²   seconds for b prompts of n tokens at once
    chain_s                                                                             seconds of a chain's first token, entry and exit

A run takes its prefills, chain_s for each chain, and its steps: one less than a chain has tokens, since the prefill gives the first.

The step is a roofline: up to `turn` rows it takes row · turn seconds to read the weights, however few rows use them; beyond, arithmetic
grows with the rows. Each row reads its own keys and values, b · c of them. turn = 0 is a plain line in b. The floor of a prefill is zero
when fitted, since its many tokens pay for the weights; the nominal model of a data sheet has one.

Coefficients are not negative and minimise the sum of squared relative errors, so a step of 1 ms counts as much as one of 100 ms. Whether
`turn` is fitted or zero is chosen by leaving points out. The error that is reported comes from points that neither the coefficients nor
that choice have seen.

Source: Williams, Waterman and Patterson 2009 (roofline); Lawson and Hanson 1974 (non-negative least squares).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flopstat.errors import InputError
from flopstat.stored import read_json

Floats = NDArray[np.float64]
FORMS = ("line", "roofline")
SECONDS = "seconds"  # metric of the rows that are fitted
CHAIN = "chain_seconds"  # metric of the row that chain_s is read from
TURNS = 24  # candidates for the number of rows at which a step turns from memory to arithmetic


class FlopsLike(Protocol):
    """What the nominal model needs of a cost model: FLOP of a prefill of n tokens and of a step that sees `context` tokens."""

    def prefill(self, n: Any) -> Any: ...

    def step(self, context: Any) -> Any: ...


@dataclass(frozen=True)
class Device:
    """What runs the models.

    peak_flops : FLOP/s of the best matrix product, measured, or dense and of the data sheet
    bandwidth : byte/s read and written, of a large copy, or of the data sheet
    fingerprint : short hash of all that a timing depends on besides the code
    watts : mean power under load, measured; None if not measured
    machine : short hash of the part of the fingerprint that is found without torch: `devices.machine`
    memory_bytes : of the device, None if not known
    """

    name: str
    peak_flops: float
    bandwidth: float
    fingerprint: str
    watts: float | None = None
    machine: str = ""
    memory_bytes: float | None = None

    @property
    def intensity(self) -> float:
        """FLOP/byte at which arithmetic takes as long as memory traffic."""
        return self.peak_flops / self.bandwidth


@dataclass(frozen=True)
class Point:
    """One measured time: `context` is what each row sees (decode), or the length of each prompt (prefill)."""

    phase: str
    batch: int
    context: int
    seconds: float


@dataclass(frozen=True)
class Decode:
    """Coefficients of a decoding step: seconds, seconds per row, rows, seconds per row and attended token."""

    overhead: float
    row: float
    turn: float
    attention: float

    def seconds(self, batch: ArrayLike, context: ArrayLike) -> Floats:
        b, c = np.asarray(batch, dtype=np.float64), np.asarray(context, dtype=np.float64)
        return np.asarray(self.overhead + self.row * np.maximum(b, self.turn) + self.attention * b * c, dtype=np.float64)


@dataclass(frozen=True)
class Prefill:
    """Coefficients of a prefill: seconds, seconds per prompt, per token, per squared token, and the least time of all but the last."""

    overhead: float
    prompt: float
    token: float
    square: float
    floor: float = 0.0

    def seconds(self, batch: ArrayLike, tokens: ArrayLike) -> Floats:
        b, n = np.asarray(batch, dtype=np.float64), np.asarray(tokens, dtype=np.float64)
        own = np.maximum(self.floor, b * (self.prompt + self.token * n))
        return np.asarray(self.overhead + own + self.square * b * n**2, dtype=np.float64)


@dataclass(frozen=True)
class Latency:
    """Predicted times of one arm on one device.

    held_out_error : median |predicted - measured| / measured over all points, each left out of the fit that predicts it; NaN if
        nominal or with one point per phase
    max_batch : largest calibrated batch, or no limit if nominal
    form : of the decoding step, "line" or "roofline"; "nominal" if from a data sheet
    chain_s : seconds per chain beside prefills and steps: its random numbers, first draw and bookkeeping; 0 if nominal
    """

    device: Device
    prefill: Prefill
    decode: Decode
    held_out_error: float
    max_batch: int
    form: str
    chain_s: float = 0.0

    def prefill_s(self, batch: ArrayLike, tokens: ArrayLike) -> Floats:
        """Seconds to put `batch` prompts of `tokens` tokens each through the model at once; arrays broadcast."""
        return self.prefill.seconds(batch, tokens)

    def step_s(self, batch: ArrayLike, context: ArrayLike) -> Floats:
        """Seconds of one decoding step of `batch` rows that each attend to `context` tokens, the draw included; arrays broadcast."""
        return self.decode.seconds(batch, context)

    @classmethod
    def read(cls, path: Path) -> Latency:
        """The fitted model of a calibration/<arm>.json.

        Raises
        ------
        InputError
            If the file is missing, was made before there was a model in it, or holds times that are zero, negative or not finite.
        """
        again = f"make it again with `snakemake {path}`"
        stored = read_json(path, "calibration")
        try:
            points_of(stored["rows"])
            model, device = stored["latency"], Device(**stored["device"])
            found = cls(
                device,
                Prefill(**model["prefill"]),
                Decode(**model["decode"]),
                math.nan if model["held_out_error"] is None else float(model["held_out_error"]),
                int(model["max_batch"]),
                str(model["form"]),
                float(model["chain_s"]),
            )
            found.check()
        except InputError as error:
            raise InputError(f"{path}: {error}; {again}") from None
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: holds no latency model ({error!r}); {again}") from None
        return found

    def check(self) -> None:
        """Refuse what no fit gives.

        Raises
        ------
        InputError
            For coefficients that are negative or not finite, times that are zero, or a device without a rate.
        """
        for phase, coefficients in (("prefill", asdict(self.prefill)), ("decode", asdict(self.decode))):
            for name, value in coefficients.items():
                if not (_is_number(value) and value >= 0):
                    raise InputError(f"latency.{phase}.{name} is {value}, not a number of at least 0")
        if not (_is_number(self.chain_s) and self.chain_s >= 0):
            raise InputError(f"latency.chain_s is {self.chain_s}, not a number of at least 0")
        for name in ("peak_flops", "bandwidth"):
            value = getattr(self.device, name)
            if not (_is_number(value) and value > 0):
                raise InputError(f"device.{name} is {value}, not a positive number")
        if not (self.step_s(1, 1) > 0 and self.prefill_s(1, 1) > 0 and self.max_batch > 0):
            raise InputError("the latency model gives a time of 0 or no batch")

    @classmethod
    def roofline(cls, flops: FlopsLike, weight_bytes: float, kv_bytes_per_token: float, device: Device) -> Latency:
        """The nominal model: every product at the device's peak or its bandwidth, whichever is slower, one product after the other.

        step    = max(weight_bytes / bandwidth, b · F(0) / peak) + b · c · max(kv_bytes / bandwidth, (F(1) - F(0)) / peak)
        prefill = max(weight_bytes / bandwidth, b · (linear part) / peak) + b · n² · square / peak

        with F(c) the FLOP of a step that sees c tokens. Utilisation 1 and no overhead: a lower bound on time that real engines miss by
        a factor of about two.

        # ASSUME on a device known by its data sheet, matrix products and attention run one after the other, each at full rate
        # ASSUME windows of attention see all tokens on such a device, so where they cut in, the bound is not one

        Worked by hand: F(c) = 200 + 8·c, peak 100 FLOP/s, bandwidth 10 byte/s, weights 100 bytes, 1 byte per token: weights take 10 s, a
        row 2 s, so they turn at 5 rows; a token of context max(1/10, 8/100) = 0.1 s. 1 row at 10 tokens: 10 + 1 = 11 s; 10 rows: 20 + 10.
        """
        if not (weight_bytes > 0 and kv_bytes_per_token >= 0):
            raise InputError(f"roofline: {weight_bytes} bytes of weights and {kv_bytes_per_token} per token; check precision and card")
        peak, bandwidth = device.peak_flops, device.bandwidth
        weights = weight_bytes / bandwidth
        alone, seeing = float(flops.step(0)), float(flops.step(1))
        none, one, two = (float(flops.prefill(n)) for n in (0, 1, 2))
        square = (two - 2 * one + none) / 2
        row = alone / peak
        decode = Decode(0.0, row, weights / row, max(kv_bytes_per_token / bandwidth, (seeing - alone) / peak))
        prefill = Prefill(0.0, none / peak, (one - none - square) / peak, square / peak, weights)
        return cls(device, prefill, decode, math.nan, sys.maxsize, "nominal")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def points_of(rows: Iterable[dict[str, Any]]) -> list[Point]:
    """The timed points among a calibration's rows.

    Raises
    ------
    InputError
        For a time that is zero, negative or not finite.
    """
    found = [Point(r["phase"], int(r["batch"]), int(r["context"]), r["value"]) for r in rows if r["metric"] == SECONDS]
    for p in found:
        if not (_is_number(p.seconds) and p.seconds > 0):
            raise InputError(f"{p.phase} at batch {p.batch} and {p.context} tokens takes {p.seconds} s, which no measurement gives")
    return found


def _columns(points: Sequence[Point]) -> tuple[Floats, Floats, Floats]:
    b, c, s = (np.array([getattr(p, name) for p in points], dtype=np.float64) for name in ("batch", "context", "seconds"))
    return b, c, s


def _solve(features: Floats, seconds: Floats) -> tuple[Floats, float]:
    """Non-negative coefficients of the least relative squared error, and that error; columns are scaled to be of one size."""
    from scipy.optimize import nnls

    relative = features / seconds[:, None]
    scale = np.maximum(np.linalg.norm(relative, axis=0), np.finfo(float).tiny)
    solution, residual = nnls(relative / scale, np.ones(len(seconds)))
    return np.asarray(solution / scale, dtype=np.float64), float(residual)


def fit_decode(points: Sequence[Point], form: str) -> Decode:
    """Fit the step's coefficients; of the roofline's turns, a grid between the smallest and the largest batch, the best is kept."""
    b, c, s = _columns(points)
    turns = [0.0] if form == "line" else [0.0, *np.geomspace(max(1.0, b.min()), b.max(), TURNS)[1:-1].tolist()]
    best: tuple[float, Decode] | None = None
    for turn in turns:
        (overhead, row, attention), error = _solve(np.column_stack([np.ones_like(b), np.maximum(b, turn), b * c]), s)
        if best is None or error < best[0] * (1 - 1e-9):
            best = error, Decode(float(overhead), float(row), float(turn), float(attention))
    assert best is not None
    return best[1]


def fit_prefill(points: Sequence[Point]) -> Prefill:
    """Fit the prefill's coefficients."""
    b, n, s = _columns(points)
    (overhead, prompt, token, square), _ = _solve(np.column_stack([np.ones_like(b), b, b * n, b * n**2]), s)
    return Prefill(float(overhead), float(prompt), float(token), float(square))


def _without(points: Sequence[Point], i: int) -> list[Point]:
    return [p for j, p in enumerate(points) if j != i]


def choose_form(points: Sequence[Point]) -> str:
    """The form of the step whose predictions of points left out have the smallest median relative error; the line if they are equal."""

    def error(form: str) -> float:
        missed = [relative_error(fit_decode(_without(points, i), form), p) for i, p in enumerate(points)]
        return float(np.median(missed))

    return min(FORMS, key=error) if len(points) > 3 else FORMS[0]


def relative_error(model: Decode | Prefill, point: Point) -> float:
    """|predicted - measured| / measured at one point."""
    return float(abs(model.seconds(point.batch, point.context) - point.seconds) / point.seconds)


def held_out(points: Sequence[Point]) -> list[Point]:
    """Each point as predicted by a fit that has not seen it, the choice of the step's form included."""
    out = []
    for phase in ("prefill", "decode"):
        own = [p for p in points if p.phase == phase]
        for i, point in enumerate(own):
            rest = _without(own, i)
            if rest:
                model = fit_prefill(rest) if phase == "prefill" else fit_decode(rest, choose_form(rest))
                out.append(replace(point, seconds=float(model.seconds(point.batch, point.context))))
    return out


def fit(rows: Sequence[dict[str, Any]], device: Device) -> tuple[Latency, list[dict[str, Any]]]:
    """Fit the model of an arm to its calibration's rows.

    Returns
    -------
    model, and for each point its phase, batch, context, measured and predicted seconds; predicted by a fit that has not seen the point.

    Raises
    ------
    InputError
        For times that are not positive, or without points of one of the phases.
    """
    points = points_of(rows)
    by_phase = {phase: [p for p in points if p.phase == phase] for phase in ("prefill", "decode")}
    for phase, own in by_phase.items():
        if not own:
            raise InputError(f"calibration: no timed point of phase {phase}")
    form = choose_form(by_phase["decode"])
    measured = {(p.phase, p.batch, p.context): p.seconds for p in points}
    predictions: list[dict[str, Any]] = []
    for p in held_out(points):
        where = (p.phase, p.batch, p.context)
        predictions.append({"phase": p.phase, "batch": p.batch, "context": p.context, "measured": measured[where], "predicted": p.seconds})
    errors = [abs(p["predicted"] - p["measured"]) / p["measured"] for p in predictions]
    model = Latency(
        device,
        fit_prefill(by_phase["prefill"]),
        fit_decode(by_phase["decode"], form),
        float(np.median(errors)) if errors else math.nan,
        max(p.batch for p in by_phase["decode"]),
        form,
        next((float(r["value"]) for r in rows if r["metric"] == CHAIN), 0.0),
    )
    model.check()
    return model, predictions


def to_json(model: Latency) -> dict[str, Any]:
    """What `Latency.read` reads back from the key `latency`; the device stands in a key of its own."""
    return {
        "form": model.form,
        "prefill": asdict(model.prefill),
        "decode": asdict(model.decode),
        "held_out_error": None if math.isnan(model.held_out_error) else model.held_out_error,
        "max_batch": model.max_batch,
        "chain_s": model.chain_s,
    }
