"""Interactions of bits with T and with N: planted differences of slopes are found, and none is claimed where there is none."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from flopstat.bootstrap import weights
from flopstat.interactions import fit_interactions
from flopstat.strategies import Pool
from flopstat.study_pools import LawArm, StudyPools

SIZES = {"small": 30_000, "large": 480_000}  # four doublings
BUDGETS = [16, 32, 64]
N = 200


def study(by_t=0.0, by_n=0.0, precisions=("nf4",), budgets=BUDGETS, k=32, seed=0, per_t=0.4):
    """logit A rises by `per_t` per doubling of T and 0.3 of N; at low bits by so much less, by_t and by_n."""
    rng = np.random.default_rng(seed)
    difficulty = np.tile([1, 2], N // 2)
    shift = rng.normal(0, 0.3, N)
    arms, pools = {}, {}
    for model, n in SIZES.items():
        for precision in ("fp32", *precisions):
            low = precision != "fp32"
            name = f"{model}@{precision}"
            arms[name] = LawArm(name, model, precision, n, 4.5 if low else 32.0, not low, False)
            uniform = rng.random((N, k))
            for t in budgets:
                doublings_t, doublings_n = np.log2(t / 32), np.log2(n / 120_000)
                level = (per_t - by_t * low) * doublings_t + (0.3 - by_n * low) * doublings_n - 0.4 * low
                p = expit(level + shift)
                pools[name, t] = Pool(np.where(uniform < p[:, None], 0, 1).astype(np.int64))
    return StudyPools(arms, list(budgets), pools, difficulty, weights(difficulty, 400, rng), 0.95)


def found(pools):
    return {(arm, p.parameter): p for arm, p in fit_interactions(pools)}


def test_a_loss_that_grows_with_t_and_one_that_grows_with_n_are_found():
    rows = found(study(by_t=0.2, seed=2))
    assert rows["small@nf4", "loss_per_doubling_T"].estimate == pytest.approx(0.2, abs=0.08)
    assert rows["small@nf4", "loss_per_doubling_T"].verdict == "the loss grows with T"
    assert rows["*@nf4", "loss_per_doubling_N"].low < 0 < rows["*@nf4", "loss_per_doubling_N"].high
    rows = found(study(by_n=0.15))
    assert rows["*@nf4", "loss_per_doubling_N"].estimate == pytest.approx(0.15, abs=0.05)
    assert rows["*@nf4", "loss_per_doubling_N"].verdict == "the loss grows with N"


def test_the_contrast_answers_yes_no_and_not_separable():
    assert found(study(by_n=0.15))["all", "retention_T_minus_N"].verdict.startswith("yes")
    assert found(study(by_t=0.25))["all", "retention_T_minus_N"].verdict.startswith("no:")
    even = found(study(seed=2))["all", "retention_T_minus_N"]
    assert even.verdict == "not separable"
    assert even.low < 0 < even.high
    planted = found(study(by_t=0.2, seed=100))["all", "retention_T_minus_N"]  # (0.4 - 0.2)/0.4 - 1 = -0.5
    assert planted.estimate == pytest.approx(-0.5, abs=0.15)


def test_a_constant_loss_is_not_called_an_interaction():
    alarms = {"loss_per_doubling_T": 0, "loss_per_doubling_N": 0, "retention_T_minus_N": 0}
    for seed in range(30):
        for (arm, name), row in found(study(seed=seed, k=16)).items():
            alarms[name] += arm in ("large@nf4", "*@nf4") and not row.verdict.startswith("not")
    assert max(alarms.values()) <= 5


def test_what_the_study_lacks_is_said():
    rows = found(study(precisions=()))
    assert rows["all", "retention_T_minus_N"].verdict.startswith("not identified")
    one = found(study(budgets=[32]))
    assert one["small@nf4", "loss_per_doubling_T"].verdict == "not identified: one T"
    assert one["all", "retention_T_minus_N"].verdict.startswith("not identified")
    flat = found(study(per_t=0.0))
    assert "does not surely rise" in flat["all", "retention_T_minus_N"].verdict


def test_no_limits_where_no_resample_differs():
    pools = study()
    same = found(replace(pools, w=np.full_like(pools.w, 1 / N)))["small@nf4", "loss_per_doubling_T"]
    assert np.isnan([same.low, same.high]).all()
    assert not same.certified
    assert same.verdict.startswith("no limits")
