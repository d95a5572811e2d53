"""Training-time laws of the ladder from its decay branches, and all exponents of a study in one table."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flopstat.errors import InputError
from flopstat.lawbook import catalogue, fitting
from flopstat.lawbook.observations import Observations
from flopstat.lawbook.result import Fit
from flopstat.laws import Parameter

LAWS = ("hoffmann", "kaplan-nd")
BY_MODEL = "kaplan-d"
BY_TOKENS = "kaplan-n"
LADDER = "ladder"  # stands for the arm in rows about all branches
LEAST = 4  # points of a curve of two parameters
EXPONENTS = {
    "hoffmann": ("alpha", "beta"),
    "kaplan-nd": ("alpha_N", "alpha_D"),
    "kaplan-d": ("alpha",),
    "kaplan-n": ("alpha",),
    "coverage": ("b",),
    "kappa-log-p": ("kappa",),
    "budget-forcing": ("b",),
    "k-bit": ("b",),
}
MEANING = {
    ("hoffmann", "alpha"): "loss over N",
    ("hoffmann", "beta"): "loss over D",
    ("kaplan-nd", "alpha_N"): "loss over N",
    ("kaplan-nd", "alpha_D"): "loss over D",
    ("kaplan-d", "alpha"): "loss over D, one size",
    ("kaplan-n", "alpha"): "loss over N, the same tokens",
    ("coverage", "b"): "ln pass@k over k",
    ("kappa-log-p", "kappa"): "accuracy over ln P",
    ("budget-forcing", "b"): "accuracy over ln T, below the plateau",
    ("k-bit", "b"): "accuracy over log2 of weight bits",
}
COLUMNS = ["law", "exponent", "estimate", "low", "high", "certified", "source"]


def branches(logs: Iterable[Path]) -> pd.DataFrame:
    """Decay branches of the training logs: model, n_params, tokens (all seen, decay included), branch_tokens and held-out loss.

    Raises
    ------
    InputError
        If a log lacks one of these columns.
    """
    wanted = ["model", "n_params", "tokens", "branch_tokens", "loss"]
    parts = []
    for path in logs:
        table = pd.read_csv(path)
        if lost := {*wanted, "kind"} - set(table.columns):
            raise InputError(f"{path}: no column {', '.join(sorted(lost))}; train the ladder anew or restore its log")
        parts.append(table.loc[table["kind"] == "branch", wanted])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=wanted)


def _rows(fit: Fit) -> list[Parameter]:
    """Parameters with percentile limits of a bootstrap over branches."""
    words = "; ".join(fit.certificate.reasons) or f"{fit.n} branches, {fit.certificate.starts} starts"
    rows = []
    for name, e in fit.parameters.items():
        rows.append(Parameter(fit.law.id, name, e.value, e.low, e.high, fit.certificate.certified, words))
    return rows


def fit_training(points: pd.DataFrame, config: dict[str, Any]) -> tuple[list[tuple[str, Parameter]], dict[str, Fit]]:
    """Laws of the held-out loss L over N parameters and D tokens: pairs of what they are fitted to and a parameter, and the joint fits.

    - hoffmann L = E + A/N^α + B/D^β and kaplan-nd over all branches (`ladder`), D all tokens seen.
    - kaplan-d, (D_c/D)^α, of each model.
    - kaplan-n, (N_c/N)^α, at the longest branch that all models have; two or three sizes say little, and no interval comes from them.

    Limits: percentiles over resampled branches. What the branches do not fix is refused by the fit's certificate and named.

    # ASSUME training branches of one run are independent: they share their trunk, so intervals are too narrow
    """
    statistics = config["statistics"]
    settings = fitting.Settings(replicates=min(statistics["replicates"], 1000), seed=config["seed"], confidence=statistics["confidence"])
    rows: list[tuple[str, Parameter]] = []
    joint = {}
    for what, law, data in fits(points):
        try:
            fit = fitting.fit(catalogue.find(law), data, settings=settings)
        except InputError as error:
            rows.append((what, _missing(law, str(error))))
            continue
        rows += [(what, row) for row in _rows(fit)]
        if what == LADDER:
            joint[law] = fit
    rows += _over_sizes(points)
    return rows, joint


def fits(points: pd.DataFrame) -> Iterable[tuple[str, str, Observations]]:
    """What is fitted to what: `ladder` or a model, law and data."""
    columns = {"N": points["n_params"].to_numpy(float), "D": points["tokens"].to_numpy(float)}
    for law in LAWS:
        yield LADDER, law, Observations(columns, points["loss"].to_numpy(float))
    for model, part in points.groupby("model", sort=False):
        if len(part) >= LEAST:
            yield str(model), BY_MODEL, Observations({"D": part["tokens"].to_numpy(float)}, part["loss"].to_numpy(float))


def _missing(law: str, why: str) -> Parameter:
    return Parameter(law, "alpha", np.nan, np.nan, np.nan, False, f"not identified: {why}")


def _over_sizes(points: pd.DataFrame) -> list[tuple[str, Parameter]]:
    """kaplan-n at the longest branch that all models have: a line through as many points as there are sizes."""
    points = points.assign(rounded=points["branch_tokens"].map(lambda t: float(f"{t:.2g}")))
    shared = points.groupby("rounded")["model"].nunique()
    common = shared[shared == points["model"].nunique()]
    if points["model"].nunique() < 2 or common.empty:
        return [(LADDER, _missing(BY_TOKENS, "no branch that two sizes or more have in common"))]
    at = points[points["rounded"] == common.index.max()].sort_values("n_params")
    x, y = np.log(at["n_params"].to_numpy(float)), np.log(at["loss"].to_numpy(float))
    slope = -float(np.polyfit(x, y, 1)[0])
    parts = np.abs(-np.diff(y) / np.diff(x) - slope).max()
    words = (
        f"a line through {len(at)} sizes at {common.index.max() / 1e6:.3g}M tokens, slopes between neighbours differ by up to {parts:.2g}"
    )
    return [(LADDER, Parameter(BY_TOKENS, "alpha", slope, np.nan, np.nan, False, f"{words}: no interval"))]


def exponents(rows: pd.DataFrame, largest: int | None) -> pd.DataFrame:
    """Exponents and gradients of training and of inference side by side: rows of exponents.csv, from rows of laws.csv.

    Inference laws at the largest T only; `source` says what they were fitted to.
    """
    out = []
    row: Any
    for row in rows.itertuples():
        wanted = row.parameter in EXPONENTS.get(row.law, ()) or (
            row.law == "surface" and str(row.parameter).partition(".")[2] in ("b_N", "b_T", "b_P", "b_B")
        )
        if not wanted or not (pd.isna(row.T) or largest == row.T) or pd.isna(row.estimate):
            continue
        meaning = MEANING.get((row.law, row.parameter), "log-odds over ln of the axis")
        source = f"{row.arm}" + ("" if pd.isna(row.T) else f", T = {int(row.T)}") + f": {meaning}"
        out.append((row.law, row.parameter, row.estimate, row.low, row.high, row.certified, source))
    return pd.DataFrame(out, columns=COLUMNS)
