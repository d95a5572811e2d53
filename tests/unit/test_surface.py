"""The surface: planted types are recovered, left-out cells stay unseen, and the better type is named only when it is."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from flopstat.columns import TABLES
from flopstat.study_pools import LawArm
from flopstat.surface import KEYS, designs, fit_all, judge, nearest, parameters, surface_data, table
from flopstat.surface_fit import fit_surface
from flopstat.surface_gradients import gradients
from flopstat.surface_types import TYPES, Points, differences
from flopstat.tables import validate

ARMS = {
    f"{model}@{precision}": LawArm(f"{model}@{precision}", model, precision, n, bits, precision == "fp32", False)
    for model, n in (("s", 30_000), ("m", 160_000), ("l", 900_000))
    for precision, bits in (("fp32", 32.0), ("nf4", 5.0), ("rtn3", 3.5))
}
CONFIG = {"seed": 1, "statistics": {"replicates": 200, "confidence": 0.95}}
TRUTH = {
    "logs": {"b_0": -0.5, "b_N": 0.35, "g": 6.0, "g_q": 1.5, "g_N": 0.8, "b_T": 0.8, "s_T": 0.8, "b_P": 0.15, "s_P": 0.2, "b_B": 0.1},
    "bnsl": {
        "b_0": 0.1,
        "b_N": 0.6,
        "g": 6.0,
        "g_q": 1.5,
        "g_N": 0.8,
        "ln_d": 3.8,
        "ln_c": 0.6,
        "ln_r": 0.8,
        "b_P": 0.2,
        "ln_P_break": 1.8,
        "b_B": 0.1,
    },
    "latent": {
        "b_0": 0.1,
        "b_N": 0.7,
        "g": 6.0,
        "g_q": 1.5,
        "g_N": 0.8,
        "ln_d": 3.7,
        "ln_c": 0.6,
        "ln_r": 1.0,
        "ln_spread": 0.3,
        "spread_T": 0.5,
    }
    | {"spread_N": 0.0, "ln_theta": 1.5, "silence": 1.0, "ln_odds": 0.8},
}


def cells(kind, noise=0.0, problems=60, seed=0, arms=ARMS, budgets=(16, 32, 64, 128), shift=0.0):
    """cells.parquet as it would be if a planted type were true; every problem deviates by a constant, and each cell by `noise`."""
    rng = np.random.default_rng(seed)
    frames = []
    levels = {split: rng.normal(0, 0.02, problems) for split in ("calibration", "study")}
    for arm in arms.values():
        for t in budgets:
            for p, b, strategy in (
                (1, 1, "single"),
                (2, 1, "majority"),
                (4, 1, "majority"),
                (8, 1, "majority"),
                (1, 2, "best_of_mean_logprob"),
            ):
                at = Points(np.array([float(arm.n_params)]), np.array([float(t)]), np.array([p]), np.array([b]), np.array([arm.bits]))
                level = TYPES[kind].accuracy(TRUTH[kind], at)[0]
                for split in ("calibration", "study"):
                    each = levels[split] - levels[split].mean() + rng.normal(0, noise) + shift * (split == "study")
                    keys = {"arm": arm.name, "T": t, "P": p, "B": b, "strategy": strategy, "split": split}
                    base = pd.DataFrame({"problem_id": [f"{split}{i}" for i in range(problems)], "difficulty": 1 + np.arange(problems) % 3})
                    frames.append(base.assign(accuracy=np.clip(level + each, 0, 1), **keys))
    return pd.concat(frames, ignore_index=True)


@pytest.fixture(scope="module")
def latent():
    data = surface_data(cells("latent", noise=0.003), ARMS, CONFIG)
    return fit_all(data, 1)


@pytest.mark.parametrize("kind", ["logs", "bnsl", "latent"])
def test_a_planted_type_fits_its_own_cells(kind):
    data = surface_data(cells(kind), ARMS, CONFIG)
    fit = fit_surface(TYPES[kind], data.points, data.y, np.random.default_rng(0))
    assert fit.certified
    assert fit.rmse < 0.003
    theta = fit.theta(fit.z)
    for name in ("b_0", "b_N", "g_q"):
        assert theta[name] == pytest.approx(TRUTH[kind][name], rel=0.2, abs=0.1)


@pytest.mark.parametrize("kind", ["latent", "bnsl", "logs"])
def test_slopes_equal_differences(kind):
    data = surface_data(cells(kind), ARMS, CONFIG)
    names = list(TRUTH[kind])
    fast = TYPES[kind].slopes(TRUTH[kind], data.points, names)
    assert fast == pytest.approx(differences(TYPES[kind].accuracy, TRUTH[kind], data.points, names), abs=1e-5)


def test_votes_of_two_are_left_out_and_so_are_imported_arms():
    data = surface_data(cells("logs"), ARMS, CONFIG)
    assert set(data.points.p) == {1, 4, 8}
    imported = {name: replace(arm, imported=True) for name, arm in ARMS.items()}
    assert "no arm" in surface_data(cells("logs"), imported, CONFIG)
    one = {"l@fp32": ARMS["l@fp32"]}
    assert "two sizes" in surface_data(cells("logs", arms=one), one, CONFIG)
    table_ = cells("logs")
    assert "lacks" in surface_data(table_[table_["split"] == "study"], ARMS, CONFIG)


def test_designs_leave_out_sizes_precisions_and_the_largest_budgets():
    data = surface_data(cells("logs"), ARMS, CONFIG)
    found = {d.label: d for d in designs(data)}
    assert list(found) == ["N=30000", "N=160000", "N=900000", "T=128", "P=8", "precision=nf4", "precision=rtn3"]
    assert (data.points.n[found["N=160000"].out] == 160_000).all()
    assert (data.points.n[~found["N=160000"].out] != 160_000).all()
    assert found["P=8"].out.sum() == 9 * 4


def test_left_out_cells_are_unseen(latent):
    """Whatever the calibration problems say of the cells left out, their prediction stays the same to the last digit."""
    data = latent.data
    design = designs(data)[3]
    spoilt = data.fitted_on.copy()
    spoilt[:, design.out] = 0.5

    def predictions(fitted_on):
        inside = ~design.out
        fit = fit_surface(TYPES["bnsl"], data.points.at(inside), fitted_on.mean(axis=0)[inside], np.random.default_rng(1))
        return fit.predict(data.points.at(design.out))

    assert (predictions(spoilt) == predictions(data.fitted_on)).all()
    held = next(p for p in latent.held_out if p.design.label == design.label and p.kind == "nearest")
    assert (held.value == nearest(data.points, ~design.out) @ spoilt.mean(axis=0)[~design.out]).all()


def test_the_nearest_cell_is_the_one_next_on_the_axis_and_ties_are_shared():
    x = Points(np.full(3, 1e5), np.array([16.0, 32.0, 128.0]), np.ones(3, int), np.ones(3, int), np.full(3, 32.0))
    inside = np.array([True, True, False])
    assert nearest(x, inside).tolist() == [[0.0, 1.0]]
    middle = replace(x, t=np.array([16.0, 32.0, 64.0]))
    assert nearest(middle, np.array([True, False, True])).tolist() == [[0.5, 0.5]]


def test_the_planted_type_is_named_best_and_beats_the_nearest_cell(latent):
    rows = {p.parameter: p for p in judge(latent)}
    assert rows["best_type"].verdict == "latent is the best type"
    assert rows["heldout_rmse.latent"].verdict == "beats the nearest measured cell"
    assert rows["heldout_rmse.latent"].estimate < 4
    assert rows["heldout_rmse.measured"].estimate < rows["heldout_rmse.latent"].estimate < rows["heldout_rmse.nearest"].estimate
    for p in rows.values():
        assert p.low <= p.estimate <= p.high


def test_equal_types_are_not_distinguishable(latent):
    twin = {name: latent.fits["latent"] for name in ("latent", "logs")}
    held = [p for p in latent.held_out if p.kind in ("latent", "nearest", "measured")]
    held += [replace(p, kind="logs") for p in held if p.kind == "latent"]
    rows = {p.parameter: p for p in judge(replace(latent, fits=twin, held_out=held))}
    assert rows["best_type"].verdict.startswith("not distinguishable")


def test_tables_hold_every_cell_and_gradients_have_the_planted_sign(latent):
    predictions = validate(table(latent), "surface")
    assert (predictions[predictions["held_out"] == "none"].groupby("type").size() == len(latent.data.cells)).all()
    assert not predictions.duplicated(["type", "held_out", *KEYS]).any()
    slopes = validate(gradients(latent), "surface_gradients")
    inner = slopes[(slopes["type"] == "latent") & (slopes["N"] == 160_000) & (slopes["T"] == 64) & (slopes["P"] == 1) & (slopes["q"] == 8)]
    found = inner.groupby("axis")["gradient"].first()
    assert (found[["N", "T", "P", "B"]] > 0).all()
    up, down = (
        TYPES["latent"].accuracy(TRUTH["latent"], Points(np.array([n]), np.array([64.0]), np.array([1]), np.array([1]), np.array([8.0])))[0]
        for n in (160_000 * 2**0.5, 160_000 / 2**0.5)
    )
    assert found["N"] == pytest.approx(up - down, abs=0.01)
    assert set(slopes.columns) == set(TABLES["surface_gradients"])


def test_one_step_replicates_agree_with_refits(latent):
    data = latent.data
    fit = latent.fits["bnsl"]
    deviations = data.w[:8] @ data.fitted_on - data.y
    steps = fit.steps(deviations)
    for row, step in zip(deviations, steps, strict=True):
        again = fit_surface(fit.kind, data.points, data.y + row, np.random.default_rng(0), fit.z)
        linear = fit.predict(data.points) + fit.slope(data.points) @ step
        assert np.abs(again.predict(data.points) - linear).max() < 0.004


def test_parameters_are_rows_with_limits(latent):
    rows = parameters(latent)
    assert {p.parameter.split(".")[0] for p in rows} == {"logs", "latent", "bnsl"}
    planted = {p.parameter: p for p in rows if p.parameter.startswith("latent.")}
    assert planted["latent.b_N"].estimate == pytest.approx(TRUTH["latent"]["b_N"], abs=0.15)


def test_a_study_without_quantised_arms_or_votes_fits_what_it_has():
    plain = {name: arm for name, arm in ARMS.items() if arm.reference}
    frame = cells("bnsl", arms=plain)
    data = surface_data(frame[frame["strategy"] == "single"], plain, CONFIG)
    fit = fit_surface(TYPES["bnsl"], data.points, data.y, np.random.default_rng(0))
    assert {f.name for f in fit.free} == {"b_0", "b_N", "ln_d", "ln_c", "ln_r"}
    assert [d.axis for d in designs(data)] == ["N", "N", "N", "T"]
    assert fit_surface(TYPES["bnsl"], data.points.at(np.arange(4)), data.y[:4], np.random.default_rng(0)) is None


def test_errors_have_no_limits_where_no_resample_differs(latent):
    """Zero-width intervals would claim what one problem per number of steps cannot say."""
    data = replace(latent.data, w_judged=np.full_like(latent.data.w_judged, 1 / latent.data.w_judged.shape[1]))
    still = replace(latent, data=data, boot={name: np.zeros_like(boot) for name, boot in latent.boot.items()})
    rows = judge(still)
    for p in [*rows, *parameters(still)]:
        assert np.isfinite(p.estimate)
        assert np.isnan([p.low, p.high]).all()
        assert not p.certified
        assert "no limits: no resample of the problems differs" in p.verdict
    assert rows[-1].verdict.startswith("not distinguishable")
