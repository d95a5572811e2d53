"""Conclusions of a study's laws under other choices of the fit: planted flips are called fragile, steady ones are not."""

import numpy as np
import pandas as pd
from scipy.special import expit

from flopstat.bootstrap import weights
from flopstat.coverage_law import fit_coverage
from flopstat.law_sensitivity import REPORTED, of_alpha, of_coverage, of_training, of_votes, with_fragile
from flopstat.laws import LINKS, fit_kappa
from flopstat.strategies import Pool
from flopstat.study_pools import LawArm, StudyPools
from flopstat.tables import validate

N = 120
W = weights(np.ones(N, dtype=int), 400, np.random.default_rng(0))


def votes(gain, seed=1, k=16):
    """Accuracy of a vote of P = 1..K per problem with a planted mean gain over P = 1; P = 2 equals P = 1."""
    rng = np.random.default_rng(seed)
    p = np.arange(1, k + 1)
    slope = rng.normal(1, 0.3, size=(N, 1))
    return rng.uniform(0.2, 0.5, size=(N, 1)) + (slope * gain(p) + rng.normal(0, 0.02, size=(N, k))) * (p > 2)


def told(rows):
    """Mapping of parameter to whether its conclusion is fragile."""
    table = validate(with_fragile(rows), "law_sensitivity")
    return dict(zip(table["parameter"], table["fragile"], strict=True))


def test_a_gain_that_goes_on_is_steady_and_one_that_stops_is_fragile():
    steady = of_votes("m@fp32", 64, votes(lambda p: 0.05 * np.log(p)), W, 0.95)
    assert told(steady) == {"kappa": False, "lack_of_fit_p": False}
    assert {row["conclusion"] for row in steady} == {"votes gain", "log law not rejected"}
    stopped = of_votes("m@fp32", 64, votes(lambda p: 0.2 * np.ones_like(p, dtype=float)), W, 0.95)
    assert told(stopped)["kappa"]
    assert {row["conclusion"] for row in stopped if row["parameter"] == "kappa"} >= {"votes gain"}
    assert next(r for r in stopped if r["variant"].startswith("mean of local kappa"))["conclusion"] != "votes gain"


def test_the_first_variant_is_the_reported_fit():
    curve = votes(lambda p: 0.05 * np.log(p))
    first = of_votes("m@fp32", 64, curve, W, 0.95)[0]
    fitted = fit_kappa(curve, W, 0.95)
    assert first["variant"].endswith(REPORTED)
    assert (first["estimate"], first["low"], first["high"]) == (fitted.estimate, fitted.low, fitted.high)


def test_votes_that_change_nothing_have_no_fit_to_vary():
    assert not of_votes("m@fp32", 64, np.full((N, 8), 0.5), W, 0.95)


def test_conclusions_are_compared_within_a_law_arm_budget_and_parameter():
    row = {"law": "x", "arm": "a", "T": 8, "parameter": "b", "variant": "v", "estimate": 1.0, "low": 0.0, "high": 2.0, "conclusion": "yes"}
    rows = [row, row | {"variant": "w"}, row | {"T": None}, row | {"T": None, "conclusion": "no"}, row | {"arm": "b", "conclusion": "no"}]
    assert with_fragile(rows)["fragile"].tolist() == [False, False, True, True, False]
    assert validate(with_fragile([]), "law_sensitivity").empty


def pools(p, k, arms):
    """Arms whose problems are solved with the probabilities p(arm), (N,), by the same uniform numbers."""
    uniform = np.random.default_rng(0).random((N, k))
    made = {(arm.name, 64): Pool(np.where(uniform < p(arm)[:, None], 0, 1).astype(np.int64)) for arm in arms}
    return StudyPools({arm.name: arm for arm in arms}, [64], made, np.ones(N, dtype=np.int64), W, 0.95)


def test_alpha_between_two_far_sizes_depends_on_the_line_that_is_drawn():
    """A size whose accuracy lies between those of models of a tenth and of ten times its size: each line puts α elsewhere."""

    def study(quantised):
        accuracy = {"small@fp32": 0.02, "large@fp32": 0.9, "large@rtn3": quantised}
        sizes = {"small": 10_000, "large": 1_000_000}
        arms = [LawArm(a, a.split("@")[0], a.split("@")[1], sizes[a.split("@")[0]], 32.0, "fp32" in a, False) for a in accuracy]
        shift = np.random.default_rng(1).normal(0, 0.2, N)
        return pools(lambda arm: expit(np.log(accuracy[arm.name] / (1 - accuracy[arm.name])) + shift), 64, arms)

    found = of_alpha(study(0.4), 64)
    assert [row["variant"].endswith(REPORTED) for row in found] == [link == "logit" for link in LINKS]
    assert len({round(row["estimate"], 3) for row in found}) == 3
    assert told(found) == {"alpha": False}
    assert {row["conclusion"] for row in found} == {"below 1"}


def test_coverage_laws_are_judged_under_each_objective():
    p = np.random.default_rng(1).beta(0.6, 1.4, N)
    arm = LawArm("m@fp32", "m", "fp32", 1000, 32.0, True, False)
    study = pools(lambda _: p, 32, [arm])
    rows = of_coverage(study, {(arm.name, 64): fit_coverage(study, None, arm.name, 64, 1)}, 1)
    table = validate(with_fragile(rows), "law_sensitivity")
    beta = table[(table["law"] == "coverage-beta") & (table["parameter"] == "rmse_unseen_k")]
    assert beta["conclusion"].tolist() == ["holds"] * 3
    assert not beta["fragile"].any()
    assert beta["estimate"].nunique() == 3
    saturating = table[table["law"] == "ttspm"]
    assert saturating["conclusion"].tolist() == ["rejected"] * 3


def test_an_exponent_that_one_branch_makes_is_fragile():
    """One size, so that only (D_c/D)^alpha is fitted; flat losses but for the first are an exponent to squares and none to Huber."""
    config = {"seed": 1, "statistics": {"confidence": 0.95}}
    tokens = np.geomspace(5e5, 2.4e7, 9)
    noise = np.exp(np.random.default_rng(2).normal(0, 0.005, 9))
    points = pd.DataFrame({"model": "m", "n_params": 27_000, "tokens": tokens, "loss": 40 * tokens**-0.3 * noise})
    rows = of_training(points, config)
    assert {row["law"] for row in rows} == {"kaplan-d"}
    assert len(rows) == 8
    assert told(rows) == {"alpha": False}
    assert [row["conclusion"] for row in rows if row["variant"].endswith(REPORTED)] == ["above 0"]
    rising = 0.5 * tokens**0.01 * noise
    rising[0] *= 3
    assert told(of_training(points.assign(loss=rising), config)) == {"alpha": True}
