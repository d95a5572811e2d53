"""Local κ and saturation: planted gains are found, and nothing is claimed beyond the pool."""

import dataclasses

import numpy as np
import pytest

from flopstat.bootstrap import weights
from flopstat.estimators import NO_ANSWER
from flopstat.laws import fit_kappa
from flopstat.strategies import Pool
from flopstat.study_pools import LawArm, StudyPools
from flopstat.votes_law import doubling_gains, fit_saturation, local_kappa, vote_gains

N = 90


@pytest.fixture(scope="module")
def w():
    return weights(np.tile([1, 2, 3], N // 3), 500, np.random.default_rng(0))


def curve(gain, k=32, spread=0.01, seed=1):
    """Accuracy of a vote of P per problem; `gain` maps P to the common gain over one vote."""
    rng = np.random.default_rng(seed)
    p = np.arange(1, k + 1)
    return 0.3 + gain(p)[None] * (1 + rng.normal(0, 0.1, size=(N, 1))) + rng.normal(0, spread, size=(N, 1)) * np.log(p)[None]


def test_the_gains_are_those_of_doubling_from_three_votes_on():
    table = np.arange(32, dtype=float)[None] ** 2
    gains = doubling_gains(table)
    assert gains.shape == (1, 14)
    assert gains[0, 0] == table[0, 5] - table[0, 2]
    assert gains[0, -1] == table[0, 31] - table[0, 15]


def test_saturation_is_found_where_the_gain_falls_below_half_a_point(w):
    """Gain 0.2 (1 - e^(-P/4)): the doubling from P gains 0.2 e^(-P/4) (1 - e^(-P/4)), below 0.005 from P = 15 on."""
    fitted = fit_saturation(curve(lambda p: 0.2 * (1 - np.exp(-p / 4)), spread=0.0005), w, 0.95)
    expected = next(p for p in range(3, 17) if 0.2 * np.exp(-p / 4) * (1 - np.exp(-p / 4)) < 0.005)
    assert fitted.estimate == pytest.approx(expected, abs=1)
    assert fitted.low <= expected <= fitted.high
    assert fitted.certified
    assert fitted.verdict.startswith("collapsed")


def test_votes_that_go_on_gaining_do_not_saturate_and_flat_ones_saturate_at_once(w):
    rising = fit_saturation(curve(lambda p: 0.04 * np.log(p)), w, 0.95)
    assert np.isnan(rising.estimate)
    assert np.isnan(rising.high)
    assert rising.verdict.startswith("not saturated")
    flat = fit_saturation(curve(lambda p: 0.0 * p, spread=0.0001), w, 0.95)
    assert flat.estimate == flat.low == flat.high == 3
    assert flat.verdict.startswith("collapsed")


def test_nothing_is_claimed_where_no_replicate_differs(w):
    """A model that answers nothing right has no κ and no saturation, nor has one whose gains are alike in every resample."""
    for fit in (fit_kappa, fit_saturation):
        never, alike = fit(np.zeros((N, 8)), w, 0.95), fit(np.tile(0.1 * np.log(np.arange(1, 9)), (N, 1)), w, 0.95)
        for found in (never, alike):
            assert np.isnan([found.estimate, found.low, found.high]).all()
            assert not found.certified
        assert never.verdict == "not identified: no vote changes any answer"
        assert alike.verdict == "not identified: every replicate over problems gains alike"


def test_noise_forbids_to_say_collapsed(w):
    fitted = fit_saturation(curve(lambda p: 0.0 * p, spread=0.1), w, 0.95)
    assert "collapsed" not in fitted.verdict
    assert np.isnan(fitted.high)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_small_pools_have_no_saturation(w, k):
    fitted = fit_saturation(np.full((N, k), 0.5), w, 0.95)
    assert np.isnan(fitted.estimate)
    assert "not identified" in fitted.verdict


def pools(right, k=12, seed=3):
    """Two arms of one T whose samples are right with probability `right`, wrong answers all different."""
    rng = np.random.default_rng(seed)
    difficulty = np.tile([1, 2, 3], N // 3)
    arms, made = {}, {}
    for name in ("a@fp32", "b@fp32"):
        arms[name] = LawArm(name, name[0], "fp32", 1000, 32.0, True, False)
        codes = np.where(rng.random((N, k)) < right, 0, np.arange(1, k + 1)[None])
        made[name, 64] = Pool(codes)
    return StudyPools(arms, [64], made, difficulty, weights(difficulty, 400, rng), 0.95)


def test_the_table_of_local_kappas_holds_every_doubling_and_bands_are_wider_than_limits():
    table = local_kappa(pools(0.4))
    assert list(table["P"]) == [3, 4, 5, 6] * 2
    assert (table["low"] <= table["kappa"]).all()
    assert (table["kappa"] <= table["high"]).all()
    assert (table["band_high"] - table["band_low"] >= 0.95 * (table["high"] - table["low"])).all()
    votes = pools(0.4).votes["a@fp32", 64].mean(axis=0)
    assert table["kappa"].iloc[0] == pytest.approx((votes[5] - votes[2]) / np.log(2))


def test_gains_stand_beside_their_line():
    table = vote_gains(pools(0.4), {("a@fp32", 64): 0.1, ("b@fp32", 64): np.nan})
    assert set(table["arm"]) == {"a@fp32"}
    assert table["gain"].iloc[:2].tolist() == pytest.approx([0, 0], abs=1e-12)
    assert table["fitted"].iloc[7] == pytest.approx(0.1 * np.log(8))
    assert len(local_kappa(pools(0.4, k=4))) == 0


def test_a_vote_of_two_gains_where_chains_end_without_an_answer_and_has_its_limits():
    told = pools(0.4)
    quiet = {key: Pool(np.where((pool.codes > 0) & (pool.codes % 2 == 0), NO_ANSWER, pool.codes)) for key, pool in told.pools.items()}
    table = vote_gains(dataclasses.replace(told, pools=quiet), {("a@fp32", 64): 0.1}).set_index("P")
    assert 0 < table.loc[2, "low"] < table.loc[2, "gain"] < table.loc[2, "high"]
    assert table.loc[1, ["low", "high"]].tolist() == [0, 0]


def test_votes_that_change_no_answer_are_not_known_to_change_none():
    """All right or all wrong on every problem: the gains of three votes and more have the limits of 0 of 90 problems."""
    told = pools(0.4)
    alike = {key: Pool(np.where(pool.codes[:, :1] == 0, 0, 1) * np.ones_like(pool.codes)) for key, pool in told.pools.items()}
    still = dataclasses.replace(told, pools=alike)
    gains = vote_gains(still, {("a@fp32", 64): 0.0}).set_index("P").loc[3:]
    assert (gains["gain"].abs() < 1e-12).all()
    assert gains["low"].to_numpy() == pytest.approx(-0.041, abs=1e-3)
    assert gains["high"].to_numpy() == pytest.approx(0.041, abs=1e-3)
    local = local_kappa(still)
    assert local["high"].to_numpy() == pytest.approx(0.041 / np.log(2), abs=1e-3)
    assert (local["band_high"] >= local["high"]).all()
