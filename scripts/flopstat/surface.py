"""The surface A(N, T, P, B, q) of a study: three types fitted on calibration problems, judged on study problems at cells left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, logit

from flopstat import bootstrap
from flopstat.laws import Parameter
from flopstat.study_pools import ALIKE, LawArm, interval, limits_if_any, missing
from flopstat.surface_fit import SurfaceFit, fit_surface
from flopstat.surface_types import FULL_BITS, TYPES, Points

Floats = NDArray[np.float64]

LAW = "surface"
STRATEGIES = ("single", "majority", "best_of_mean_logprob", "majority_of_best_of")  # votes over streams, each the best by one score
NEAREST, REPEATED = "nearest", "measured"
KEYS = ["arm", "T", "P", "B", "strategy"]
COLUMNS = ["type", "held_out", *KEYS, "measured", "predicted", "low", "high", "flags"]
NOT_IDENTIFIED = "not_identified"


@dataclass(frozen=True)
class SurfaceData:
    """Cells with their accuracies per problem on both splits, columns in the order of `cells`."""

    cells: pd.DataFrame
    points: Points
    fitted_on: Floats  # (calibration problems, cells)
    w: Floats  # (replicates, calibration problems)
    judged_on: Floats  # (study problems, cells)
    w_judged: Floats
    confidence: float

    @property
    def y(self) -> Floats:
        return np.asarray(self.fitted_on.mean(axis=0))

    @property
    def measured(self) -> Floats:
        return np.asarray(self.judged_on.mean(axis=0))


def surface_data(per_problem: pd.DataFrame, arms: dict[str, LawArm], config: dict[str, Any]) -> SurfaceData | str:
    """The cells a surface is fitted to, or why there are none.

    Votes of two are left out, being single chains under another name, and so are arms of imported samples and of unknown bits.
    """
    known = {a.name for a in arms.values() if not a.imported and (np.isfinite(a.bits) or a.reference)}
    chosen = per_problem[per_problem["strategy"].isin(STRATEGIES) & (per_problem["P"] != 2) & per_problem["arm"].isin(known)]
    if chosen.empty:
        return "no arm that the study drew itself has known bits"
    if set(chosen["split"]) != {"calibration", "study"}:
        return "it is fitted on calibration problems and judged on study problems, and the study lacks one of them"
    wide = {s: part.pivot(index=["problem_id", "difficulty"], columns=KEYS, values="accuracy") for s, part in chosen.groupby("split")}
    cells = wide["calibration"].columns.to_frame(index=False)
    n = np.asarray(cells["arm"].map({a.name: float(a.n_params) for a in arms.values()}), dtype=np.float64)
    bits = {a.name: FULL_BITS if a.reference and not np.isfinite(a.bits) else a.bits for a in arms.values()}
    q = np.asarray(cells["arm"].map(bits), dtype=np.float64)
    p, b = cells["P"].to_numpy(np.int64), cells["B"].to_numpy(np.int64)
    points = Points(n, cells["T"].to_numpy(np.float64), p, b, q)
    if not {"N", "T"} <= points.varying:
        return "needs two sizes and two T"
    statistics = config["statistics"]
    w = {
        split: bootstrap.weights(
            table.index.get_level_values("difficulty").to_numpy(),
            statistics["replicates"],
            np.random.default_rng([config["seed"], 3, split == "study"]),
        )
        for split, table in wide.items()
    }
    judged = wide["study"][wide["calibration"].columns].to_numpy()
    return SurfaceData(cells, points, wide["calibration"].to_numpy(), w["calibration"], judged, w["study"], statistics["confidence"])


@dataclass(frozen=True)
class Design:
    """Cells left out together: all of one size, of the largest T or P, or of one precision."""

    axis: str
    label: str
    out: NDArray[np.bool_]  # (cells,)


def designs(data: SurfaceData) -> list[Design]:
    """Every size and every quantised precision in turn, and the largest T and P; only where enough is left to fit."""
    x, out = data.points, []
    sizes, budgets, streams = np.unique(x.n), np.unique(x.t), np.unique(x.p)
    if len(sizes) > 2:
        out += [Design("N", f"N={size:.0f}", x.n == size) for size in sizes]
    if len(budgets) > 2:
        out.append(Design("T", f"T={budgets[-1]:.0f}", x.t == budgets[-1]))
    if len(streams) > 2:
        out.append(Design("P", f"P={streams[-1]}", x.p == streams[-1]))
    precision = data.cells["arm"].str.split("@").str[1].to_numpy()
    quantised = dict.fromkeys(precision[x.q < FULL_BITS])
    if len(quantised) > 1:
        out += [Design("q", f"precision={name}", precision == name) for name in quantised]
    return out


def nearest(points: Points, inside: NDArray[np.bool_]) -> Floats:
    """Weights of the fitted cells that give each left-out cell its nearest one, ties shared: (left out, fitted).

    Distance: Euclidean in log2 of N, T, P, B and bits (16 and more alike).
    """
    x = np.log2(np.column_stack([points.n, points.t, points.p, points.b, np.minimum(points.q, FULL_BITS)]))
    distance = ((x[~inside][:, None] - x[inside][None]) ** 2).sum(axis=-1)
    closest = distance <= distance.min(axis=1, keepdims=True) + 1e-9
    out: Floats = closest / closest.sum(axis=1, keepdims=True)
    return out


@dataclass(frozen=True)
class Prediction:
    """Predicted accuracies of some cells and their replicates."""

    kind: str
    design: Design
    value: Floats  # (left out,)
    boot: Floats  # (replicates, left out)
    cells: Floats | None = None  # (problems, left out) accuracies that `value` is the mean of, if it is one


@dataclass(frozen=True)
class Surface:
    """All fits of a study."""

    data: SurfaceData
    fits: dict[str, SurfaceFit]  # on all cells
    boot: dict[str, Floats]  # (replicates, parameters) changes of z of these fits
    held_out: list[Prediction]


def fit_all(data: SurfaceData, seed: int) -> Surface:
    """Every type on all cells, and on what each design leaves."""
    rng = np.random.default_rng([seed, 8])
    deviations = data.w @ data.fitted_on - data.y
    fits, boot, held_out = {}, {}, []
    for name, kind in TYPES.items():
        fit = fit_surface(kind, data.points, data.y, rng)
        if fit is None:
            continue
        fits[name], boot[name] = fit, fit.steps(deviations)
        for design in designs(data):
            inside, left_out = ~design.out, data.points.at(design.out)
            part = fit_surface(kind, data.points.at(inside), data.y[inside], rng, fit.z)
            if part is not None:
                value = part.predict(left_out)
                steps = part.steps(deviations[:, inside])
                held_out.append(Prediction(name, design, value, stepped(value, part.slope(left_out), steps)))
    for design in designs(data):
        share = nearest(data.points, ~design.out)
        known = ~design.out
        boot_known = (deviations[:, known] + data.y[known]) @ share.T
        held_out.append(Prediction(NEAREST, design, share @ data.y[known], boot_known, data.fitted_on[:, known] @ share.T))
        held_out.append(Prediction(REPEATED, design, data.y[design.out], deviations[:, design.out] + data.y[design.out]))
    return Surface(data, fits, boot, held_out)


def stepped(value: Floats, slope: Floats, steps: Floats) -> Floats:
    """Accuracies after the replicates' steps, linear on the logit scale so that they stay shares: (replicates, cells)."""
    inner = np.clip(value, 1e-4, 1 - 1e-4)
    change = steps @ (slope / (inner * (1 - inner))[:, None]).T
    return np.asarray(expit(logit(inner) + np.clip(change, -30, 30)))


def _squares(surface: Surface, kind: str, axis: str) -> tuple[float, Floats] | None:
    """Mean squared held-out error of a type along an axis in points², and its replicates, freed of what resampling adds on average."""
    errors, boots = [], []
    data = surface.data
    for p in surface.held_out:
        if p.kind == kind and p.design.axis == axis:
            errors.append(p.value - data.measured[p.design.out])
            boots.append(p.value - data.w_judged @ data.judged_on[:, p.design.out])
    if not errors:
        return None
    value = float(np.mean(np.concatenate(errors) ** 2)) * 1e4
    squares = np.mean(np.concatenate(boots, axis=1) ** 2, axis=1) * 1e4
    return value, squares - squares.mean() + value


def judge(surface: Surface) -> list[Parameter]:
    """Held-out error of every type, in points of accuracy: RMSE over the left-out cells on study problems, by axis and over all axes.

    Over all axes it is the root of the mean over axes of the mean square, so that no axis counts for its number of cells. Limits:
    percentiles over replicates of the study problems; the mean square of a replicate is shifted by what resampling adds on average, and
    roots are taken last. Two types are compared by the difference of their mean squares in the same replicates. `nearest` is the
    baseline, the nearest measured cell; `measured` repeats the cell itself on the calibration problems: no law can expect less.

    Leaves out: other calibration problems. It is the error of these fits that is judged, whose noise is part of it.
    """
    names = [*surface.fits, NEAREST, REPEATED]
    axes = held_out_axes(surface)
    if not axes:
        return [missing(LAW, "heldout_rmse", "no axis has values enough to leave one out")]
    confidence = surface.data.confidence
    rows, all_axes = [], {}
    for name in names:
        parts = {axis: found for axis in axes if (found := _squares(surface, name, axis)) is not None}
        if len(parts) < len(axes):
            continue
        all_axes[name] = _mean(list(parts.values()))
        for axis, found in parts.items():
            base = _squares(surface, NEAREST, axis)
            verdict = _against(found, base, confidence) if base is not None and name in surface.fits else "what the types are held against"
            rows.append(_error(f"heldout_rmse.{name}.{axis}", found, confidence, verdict))
    for name, total in all_axes.items():
        verdict = _against(total, all_axes[NEAREST], confidence) if name in surface.fits else "what the types are held against"
        rows.append(_error(f"heldout_rmse.{name}", total, confidence, verdict))
    return [*rows, best_type(surface, axes)]


def held_out_axes(surface: Surface) -> list[str]:
    """Axes along which cells were left out."""
    return [a for a in ("N", "T", "P", "q") if any(p.design.axis == a for p in surface.held_out)]


def _mean(parts: list[tuple[float, Floats]]) -> tuple[float, Floats]:
    return float(np.mean([v for v, _ in parts])), np.asarray(np.mean([b for _, b in parts], axis=0))


def _error(parameter: str, found: tuple[float, Floats], confidence: float, verdict: str) -> Parameter:
    low, high = limits_if_any(np.maximum(found[1], 0.0), confidence)
    value = float(np.sqrt(found[0]))
    if np.isnan(low):
        return Parameter(LAW, parameter, value, low, high, False, f"no limits: {ALIKE}")
    return Parameter(LAW, parameter, value, min(float(np.sqrt(low)), value), max(float(np.sqrt(high)), value), True, verdict)


def _against(found: tuple[float, Floats], base: tuple[float, Floats], confidence: float) -> str:
    low, high = interval(found[1] - base[1], confidence)
    return (
        "beats the nearest measured cell"
        if high < 0
        else "worse than the nearest measured cell"
        if low > 0
        else ("not distinguishable from the nearest measured cell")
    )


def best_type(surface: Surface, axes: list[str]) -> Parameter:
    """Which type has the least held-out error over these axes, and by how many points² the next one has more."""
    squares = {name: [_squares(surface, name, axis) for axis in axes] for name in surface.fits}
    totals = {name: _mean(known) for name, parts in squares.items() if len(known := [p for p in parts if p is not None]) == len(axes)}
    if len(totals) < 2:
        return missing(LAW, "best_type", "fewer than two types could be fitted")
    confidence = surface.data.confidence
    order = sorted(totals, key=lambda name: totals[name][0])
    best = order[0]
    rivals = [name for name in order[1:] if interval(totals[name][1] - totals[best][1], confidence)[0] <= 0]
    gap = totals[order[1]][0] - totals[best][0]
    low, high = limits_if_any(totals[order[1]][1] - totals[best][1], confidence)
    if np.isnan(low):
        return Parameter(LAW, "best_type", gap, low, high, False, f"not distinguishable, no limits: {ALIKE}")
    verdict = f"{best} is the best type" if not rivals else f"not distinguishable: {', '.join([best, *rivals])}"
    return Parameter(LAW, "best_type", gap, low, high, not rivals, verdict)


def parameters(surface: Surface) -> list[Parameter]:
    """Parameters of the fits on all cells, limits by one-step replicates; flat ones are named."""
    rows = []
    for name, fit in surface.fits.items():
        theta, flat = fit.theta(fit.z), fit.flat
        for i, f in enumerate(fit.free):
            low, high = limits_if_any(theta[f.name] + f.scale * surface.boot[name][:, i], surface.data.confidence)
            verdict = f"rmse of the fit {100 * fit.rmse:.2f} points, {fit.agreeing} of 3 starts agree"
            if f.name in flat:
                verdict += "; flat: the cells hardly say"
            if np.isnan(low):
                verdict += f"; no limits: {ALIKE}"
            certified = fit.certified and f.name not in flat and np.isfinite(low)
            rows.append(Parameter(LAW, f"{name}.{f.name}", theta[f.name], low, high, certified, verdict))
    return rows


def limits_of(boot: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Percentile limits of each column of replicates, (m,) of (replicates, m); NaN where they do not differ."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(boot, [tail, 1 - tail], axis=0)
    moves = high - low > bootstrap.ROUNDING
    return np.where(moves, low, np.nan), np.where(moves, high, np.nan)


def flags_of(low: Floats) -> pd.Series:
    """The flag of each row without limits, (m,); missing elsewhere."""
    return pd.Series(NOT_IDENTIFIED, index=range(len(low)), dtype="string").where(np.isnan(low))


def table(surface: Surface) -> pd.DataFrame:
    """Rows of surface.csv: each type's predictions of all cells, and of the left-out cells by the fits that had not seen them.

    Limits of a type are percentiles over its replicates, and missing where no replicate moves a prediction; `nearest` is an accuracy that
    was measured, with the limits of one.
    """
    data, parts = surface.data, []
    everything = Design("", "none", np.ones(len(data.cells), dtype=bool))
    inside = [
        Prediction(name, everything, value, stepped(value, fit.slope(data.points), surface.boot[name]))
        for name, fit in surface.fits.items()
        for value in [fit.predict(data.points)]
    ]
    for p in [*inside, *(p for p in surface.held_out if p.kind != REPEATED)]:
        predicted = np.clip(p.value, 0, 1)
        if p.cells is None:
            low, high = limits_of(p.boot, data.confidence)
            low, high = np.minimum(low, predicted), np.maximum(high, predicted)
        else:
            limits = bootstrap.proportion_interval(p.cells, data.w, data.confidence)
            low, high = limits.low, limits.high
        rows = data.cells[p.design.out].reset_index(drop=True)
        values = {"measured": data.measured[p.design.out], "predicted": predicted, "low": low, "high": high}
        parts.append(rows.assign(type=p.kind, held_out=p.design.label, **values, flags=flags_of(low))[COLUMNS])
    return pd.concat(parts, ignore_index=True)
