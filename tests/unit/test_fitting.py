"""The engine: published numbers, planted parameters, certificates that refuse, intervals, and data that are refused."""

import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import betabinom, binom

from flopstat import cli
from flopstat.errors import InputError
from flopstat.lawbook import catalogue, fitting
from flopstat.lawbook.fitting import Settings
from flopstat.lawbook.objectives import NAMES, Objective, objective
from flopstat.lawbook.observations import Observations
from flopstat.lawbook.optimiser import minimise, relative_gradient, shortlist
from flopstat.lawbook.result import Fit

LAWS = catalogue.laws()
ROOT = Path(__file__).resolve().parents[2]
CHINCHILLA = ROOT.parent / "shared" / "data" / "chinchilla" / "svg_extracted_data.csv"
QUICK = Settings(replicates=0, profile=False)
# Besiroglu et al. 2024: estimates and standard errors from 4,000 refits.
PUBLISHED = {"E": (1.817, 0.026), "A": (482, 125), "B": (2085, 1293), "alpha": (0.348, 0.015), "beta": (0.366, 0.021)}


def points(law, n=60, seed=0):
    """Points over the usual ranges of a law's variables, logarithmic, and the law's exact values."""
    rng = np.random.default_rng(seed)
    variables = {v.name: v.range[0] * (v.range[1] / v.range[0]) ** rng.random(n) for v in law.variables}
    if {"P_post", "P_w"} <= set(variables):
        variables["P_post"] = np.minimum(variables["P_post"], variables["P_w"])
    return Observations(variables, np.asarray(law.predict(law.example.parameters, variables)))


def with_noise(data, sd, seed=1):
    return Observations(data.variables, data.y + sd * np.random.default_rng(seed).normal(size=len(data)), data.trials)


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["flopstat", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return left.value.code, capsys.readouterr()


@pytest.mark.skipif(not CHINCHILLA.is_file(), reason="the Chinchilla points (shared/data/chinchilla) are not here")
def test_the_published_chinchilla_fit_is_reproduced(monkeypatch, capsys, tmp_path):
    out = tmp_path / "F.json"
    arguments = ["--map", "N=Model Size", "--map", "D=Training FLOP/(6*Model Size)", "--map", "L=loss", "--drop-highest", "loss:5"]
    code, told = run(monkeypatch, capsys, "fit", "--law", "hoffmann", "--data", CHINCHILLA, *arguments, "--out", out)
    assert code == 0
    assert "objective 1.018274e-03" in told.out
    assert told.out.splitlines()[-1] == "certified"
    found = json.loads(out.read_text(encoding="utf-8"))
    assert f"{found['objective']:.6e}" == "1.018274e-03"
    assert found["n"] == 240
    assert found["certificate"]["certified"] is True
    assert found["starts_at_optimum"] >= 0.5
    for name, (value, error) in PUBLISHED.items():
        assert abs(found["parameters"][name]["value"] - value) <= 0.1 * error, name
        assert found["parameters"][name]["se"] == pytest.approx(error, rel=0.1), name


def test_a_generated_chinchilla_data_set_gives_what_scipy_finds_from_the_truth():
    """The same check without the published points: 120 runs, Student errors with three degrees of freedom."""
    law = LAWS["hoffmann"]
    data = points(law, 120, seed=5)
    noise = 0.005 * np.random.default_rng(6).standard_t(3, size=120)
    data = Observations(data.variables, data.y * np.exp(noise))
    n, d, y = np.log(data.variables["N"]), np.log(data.variables["D"]), np.log(data.y)

    def loss(t):
        r = np.abs(np.logaddexp(np.logaddexp(t[1] - t[3] * n, t[2] - t[4] * d), t[0]) - y)
        return 1e6 * np.where(r <= 1e-3, 0.5 * r**2, 1e-3 * (r - 5e-4)).sum()

    p = law.example.parameters
    start = [np.log(p["E"]), np.log(p["A"]), np.log(p["B"]), p["alpha"], p["beta"]]
    best = minimize(
        loss, start, method="Nelder-Mead", options={"maxiter": 20000, "maxfev": 20000, "xatol": 1e-10, "fatol": 1e-10, "adaptive": True}
    )
    fit = fitting.fit(law, data, settings=Settings(random_starts=64, replicates=200))
    assert fit.certificate.certified, fit.certificate.reasons
    assert fit.objective <= best.fun / 1e6 * (1 + 1e-9)
    assert fit.objective == pytest.approx(best.fun / 1e6, rel=1e-5)
    assert list(fit.values.values()) == pytest.approx([*np.exp(best.x[:3]), *best.x[3:]], rel=5e-3)
    for name, truth in p.items():
        e = fit.parameters[name]
        assert abs(e.value - truth) < 4 * e.se
        assert e.profile_low < e.value < e.profile_high


@pytest.mark.parametrize("law", LAWS.values(), ids=lambda law: law.id)
def test_every_entry_finds_its_planted_parameters_again(law):
    data = points(law, max(60, 12 * len(law.parameters)))
    fit = fitting.fit(law, data, settings=Settings(random_starts=96, replicates=0, profile=False))
    there = law.predict(fit.values, data.variables)
    assert np.abs(there - data.y).max() < 1e-5 * np.ptp(data.y), fit.certificate
    for name, truth in law.example.parameters.items():
        assert fit.values[name] == pytest.approx(truth, rel=0.02, abs=0.02 * (name == "c_0")), name


def test_the_simulation_of_every_entry_holds():
    """tests/golden/law_recovery.csv is the output of one run of benchmarks/simulate_laws.py: 1,000 draws per law."""
    table = pd.read_csv(ROOT / "tests" / "golden" / "law_recovery.csv")
    assert {(law.id, name) for law in LAWS.values() for name in law.names} == set(zip(table["law"], table["parameter"], strict=True))
    assert (table["draws"] >= 1000).all()
    assert (table["verdict"] == "holds").all(), table[table["verdict"] != "holds"].to_string()
    assert table["worse_than_truth"].max() < 0.02  # fits that stop above the loss of the planted parameters
    assert table["code"].nunique() == 1
    truth = [LAWS[row.law].example.parameters[row.parameter] for row in table.itertuples()]
    assert table["truth"].to_numpy() == pytest.approx(truth, rel=1e-5)


def test_the_simulation_gives_the_same_numbers_again():
    """One law alone, as with --only: hits may differ by one where a processor rounds otherwise."""
    table = pd.read_csv(ROOT / "tests" / "golden" / "law_recovery.csv").query("law == 'alpha-q'")
    script = runpy.run_path(str(ROOT / "benchmarks" / "simulate_laws.py"))
    rows = pd.DataFrame(script["recover"](LAWS["alpha-q"], 1000))
    assert rows["hits"].to_numpy() == pytest.approx(table["hits"].to_numpy(), abs=1)
    assert rows["median"].to_numpy() == pytest.approx(table["median"].to_numpy(), rel=1e-4)


def test_a_shortlist_finds_each_problems_own_optimum():
    """Two data sets of one law with a false valley: few cheap steps from many starts, then the best four, reach what all starts reach."""
    law = LAWS["precision-joint"]
    data = points(law, 132)
    goal = objective(law.objective, 1e-3, data.y)
    problem = fitting.problem_for(law, data, goal, {})
    noise = 0.02 * np.std(problem.y) * np.random.default_rng(3).normal(size=(2, 132))
    both = replace(problem, y=problem.y + noise)
    starts = fitting.starts_for(law, data, {}, Settings())
    assert len(starts) == 64
    kept = shortlist(both, np.tile(starts, (2, 1, 1)), 4, 25)
    assert kept.shape == (2, 4, 11)
    for i in range(2):
        one = replace(problem, y=both.y[i])
        full = minimise(one, starts).value
        assert (full <= full.min() * (1 + 1e-4)).mean() < 0.6  # most of the starts end in the false valley
        assert minimise(one, kept[i]).value.min() <= full.min() * (1 + 1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_slopes_and_curvatures_of_objectives_are_those_of_the_loss(name):
    y = np.array([0.2, 0.5, 0.9, 0.0, 1.0])
    trials = np.array([10.0, 20, 30, 8, 5])
    goal = objective(name, 0.06, y)
    if name == "beta-binomial":
        goal = Objective(name, goal.space, goal.delta, concentration=7.0)
    u = np.array([[0.3, 0.55, 0.7, 0.05, 0.93]])
    step = 1e-6
    terms, up, down = (goal.terms(v, y, trials) for v in (u, u + step, u - step))
    assert terms.slope == pytest.approx((up.loss - down.loss) / (2 * step), rel=1e-4, abs=1e-7)
    if name != "mae":  # its parabola is narrower than the step
        assert terms.curvature() == pytest.approx((up.slope - down.slope) / (2 * step), rel=1e-4, abs=1e-4)
    assert (terms.weight >= 0).all()


def test_likelihoods_are_the_exact_probabilities_up_to_a_constant():
    p, k, n = np.array([[0.3, 0.6]]), np.array([4, 9]), np.array([12, 11])
    other = np.array([[0.5, 0.2]])
    for s, exact in ((np.inf, lambda q: binom.logpmf(k, n, q)), (6.0, lambda q: betabinom.logpmf(k, n, 6 * q, 6 * (1 - q)))):
        goal = Objective("binomial" if np.isinf(s) else "beta-binomial", "identity", 1e-3, s)
        gap = goal.terms(p, k / n, n.astype(float)).loss - goal.terms(other, k / n, n.astype(float)).loss
        assert -gap[0] == pytest.approx(exact(p[0]) - exact(other[0]))


def test_binomial_fit_of_coverage_agrees_with_scipy_and_beta_binomial_finds_the_spread():
    law = LAWS["coverage"]
    rng = np.random.default_rng(4)
    k = np.geomspace(1, 1000, 40)
    p = law.predict(law.example.parameters, {"k": k})
    trials = np.full(40, 200.0)
    plain = Observations({"k": k}, rng.binomial(200, p) / 200, trials)
    fit = fitting.fit(law, plain, settings=Settings(objective="binomial", replicates=0))
    best = minimize(lambda t: -binom.logpmf(np.round(plain.y * 200), 200, np.exp(t[0] * k ** t[1])).sum(), [-1, -0.3], method="Nelder-Mead")
    assert list(fit.values.values()) == pytest.approx(best.x, rel=2e-3)
    spread = rng.beta(20 * p, 20 * (1 - p))
    wide = fitting.fit(
        law, Observations({"k": k}, rng.binomial(200, spread) / 200, trials), settings=Settings(objective="beta-binomial", replicates=0)
    )
    assert 8 < wide.concentration < 50
    assert np.isinf(fit.concentration)
    assert wide.parameters["a"].profile_high - wide.parameters["a"].profile_low > 2 * (
        fit.parameters["a"].profile_high - fit.parameters["a"].profile_low
    )


def test_mean_absolute_error_shrugs_off_an_outlier_that_moves_squares():
    law = LAWS["kappa-log-p"]
    p = np.arange(1.0, 33)
    y = 0.4 + 0.05 * np.log(p) + 1e-4 * np.sin(p)
    y[10] += 1.0
    data = Observations({"P": p}, y)
    robust, squares = (fitting.fit(law, data, settings=Settings(objective=o, replicates=0)) for o in ("mae", "mse"))
    assert robust.values["kappa"] == pytest.approx(0.05, abs=1e-3)
    assert abs(squares.values["A_1"] - 0.4) > 0.02
    assert robust.objective == pytest.approx(np.abs(robust.residuals).mean())
    assert squares.objective == pytest.approx((squares.residuals**2).mean())


def test_linear_law_is_ordinary_least_squares_with_its_intervals():
    law = LAWS["kappa-log-p"]
    p = np.arange(1.0, 41)
    data = with_noise(Observations({"P": p}, 0.4 + 0.05 * np.log(p)), 0.02)
    fit = fitting.fit(law, data, settings=Settings(replicates=0))
    x = np.column_stack([np.ones(40), np.log(p)])
    beta, rest, *_ = np.linalg.lstsq(x, data.y, rcond=None)
    covariance = rest[0] / 38 * np.linalg.inv(x.T @ x)
    assert list(fit.values.values()) == pytest.approx(beta, rel=1e-6)
    assert fit.covariance == pytest.approx(covariance, rel=1e-6)
    reach = 2.024394 * np.sqrt(np.diag(covariance))  # Student, 38 degrees of freedom
    for i, e in enumerate(fit.parameters.values()):
        assert (e.low, e.high) == pytest.approx((beta[i] - reach[i], beta[i] + reach[i]), rel=1e-5)
        assert (e.profile_low, e.profile_high) == pytest.approx((e.low, e.high), rel=1e-5)


@settings(max_examples=6)
@given(st.floats(-6, 6), st.floats(-6, 6))
def test_rescaled_units_change_only_units(n_power, d_power):
    law = LAWS["hoffmann"]
    data = with_noise(points(law, 40), 0.005)
    n, d = 10.0**n_power, 10.0**d_power
    scaled = Observations({"N": data.variables["N"] * n, "D": data.variables["D"] * d}, data.y)
    wanted = Settings(objective="mse-log", random_starts=64, replicates=0, profile=False)
    a, b = fitting.fit(law, data, settings=wanted), fitting.fit(law, scaled, settings=wanted)
    assert b.objective == pytest.approx(a.objective, rel=1e-6)
    for name in ("E", "alpha", "beta"):
        assert b.values[name] == pytest.approx(a.values[name], rel=1e-4)
    assert b.values["A"] == pytest.approx(a.values["A"] * n ** a.values["alpha"], rel=1e-2)
    assert b.values["B"] == pytest.approx(a.values["B"] * d ** a.values["beta"], rel=1e-2)
    assert a.certificate.certified == b.certificate.certified


def test_result_is_deterministic_and_reads_back_equal():
    law = LAWS["ttspm"]
    data = with_noise(points(law, 30), 0.01)
    one, two = (fitting.fit(law, data, settings=Settings(replicates=100, seed=3)) for _ in range(2))
    other = fitting.fit(law, data, settings=Settings(replicates=100, seed=4))
    assert one.to_json() == two.to_json() == Fit.from_json(one.to_json()).to_json()
    assert other.parameters["p"].low != one.parameters["p"].low
    back = Fit.from_json(one.to_json())
    assert back.law == law
    assert np.array_equal(back.predict({"n": [1, 2, 8]}), one.predict({"n": [1, 2, 8]}))
    shifted = Observations(data.variables, data.y + 1e-9)
    assert fitting.fit(law, shifted, settings=QUICK).data_hash != one.data_hash
    for text in ("", "{}", "[]", '{"law": "x"}'):
        with pytest.raises(InputError, match="not the JSON of a fit"):
            Fit.from_json(text)


def test_band_holds_the_truth_and_widens_away_from_the_data():
    law = LAWS["kappa-log-p"]
    p = np.geomspace(1, 30, 40)
    data = with_noise(Observations({"P": p}, law.predict(law.example.parameters, {"P": p})), 0.01)
    fit = fitting.fit(law, data, settings=Settings(replicates=400))
    value, low, high = fit.predict({"P": [5, 1000]})
    truth = law.predict(law.example.parameters, {"P": np.array([5.0, 1000.0])})
    assert ((low < value) & (value < high)).all()
    assert ((low - 0.01 < truth) & (truth < high + 0.01)).all()
    assert high[1] - low[1] > 2 * (high[0] - low[0])
    with pytest.raises(InputError, match="P of law kappa-log-p is missing"):
        fit.predict({"n": 3})


def test_derived_optimum_has_an_interval_around_it():
    law = LAWS["bon-reward"]
    fit = fitting.fit(law, with_noise(points(law, 40), 0.02), settings=Settings(replicates=300))
    value, low, high = fit.derived("d_best", {})
    assert low < value < high
    assert low < 2.5 < high


def test_flat_direction_is_named_and_the_fit_refused():
    own = {
        "id": "twice",
        "title": "t",
        "formula": "a*b*k",
        "latex": "abk",
        "response": {"name": "A", "unit": "1", "meaning": "m"},
        "variables": [{"name": "k", "unit": "1", "meaning": "m"}],
        "parameters": [{"name": n, "unit": "1", "meaning": "m", "low": 1e-9, "high": 1e9, "starts": [0.5, 2]} for n in ("a", "b")],
        "source": "s",
        "equation": "e",
        "validity": "v",
        "caveats": ["c"],
        "example": {"parameters": {"a": 2, "b": 3}, "at": {"k": 1}, "value": 6},
    }
    law = catalogue.read_law(own, "own")
    data = with_noise(Observations({"k": np.linspace(1, 5, 30)}, 6 * np.linspace(1, 5, 30)), 0.05)
    fit = fitting.fit(law, data, settings=Settings(replicates=50))
    assert not fit.certificate.certified
    assert fit.certificate.flat == ("only a combination is fixed: a up, b down leave the fit as it is",) or fit.certificate.flat == (
        "only a combination is fixed: b up, a down leave the fit as it is",
    )
    held = fitting.fit(law, data, {"a": 2.0}, Settings(replicates=50))
    assert held.certificate.certified
    assert held.values["b"] == pytest.approx(3, abs=0.05)
    assert held.fixed == {"a": 2.0}


def test_plateau_that_the_data_never_reach_is_refused():
    law = LAWS["budget-forcing"]
    budget = np.geomspace(256, 2048, 30)
    data = with_noise(Observations({"T": budget}, -0.5 + 0.13 * np.log(budget)), 0.005)
    fit = fitting.fit(law, data, settings=Settings(replicates=50))
    assert not fit.certificate.certified
    assert any("A_max" in reason for reason in fit.certificate.reasons)


def test_a_parameter_on_its_limit_is_refused():
    law = LAWS["coverage"]
    k = np.geomspace(1, 100, 30)
    fit = fitting.fit(law, with_noise(Observations({"k": k}, np.full(30, 0.4) - 0.02 * np.log(k)), 0.002), settings=QUICK)
    assert fit.certificate.at_limit == ("b",)
    assert not fit.certificate.certified


def test_refits_of_a_bootstrap_end_at_their_own_minimum():
    law = LAWS["hoffmann"]
    data = with_noise(points(law, 60), 0.01)
    problem, _, theta = fitting.optimum(law, data, {}, Settings(random_starts=64))
    weights = np.random.default_rng(0).multinomial(60, np.full(60, 1 / 60), 40).astype(float)
    refits = minimise(problem, np.tile(theta, (40, 1)), weights, near=True)
    assert (relative_gradient(problem, refits.theta, weights) < 1e-6).mean() > 0.9
    again = minimise(problem, refits.theta + 0.01, weights, near=True)
    assert (refits.value <= again.value * (1 + 1e-3)).all()


OWN = LAWS["kappa-log-p"].to_data() | {
    "id": "mine",
    "formula": "a*sqrt(k)",
    "variables": [{"name": "k", "unit": "samples", "meaning": "samples"}],
    "parameters": [{"name": "a", "unit": "share", "meaning": "size", "low": 1e-6, "high": 10, "starts": [0.1, "y_mid"]}],
    "example": {"parameters": {"a": 0.5}, "at": {"k": 4}, "value": 1.0},
}
GOOD = pd.DataFrame({"k": [1, 2, 4, 8, 16, 32], "c": [0.30, 0.42, 0.50, 0.61, 0.68, 0.74], "n": [50.0] * 6})


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (
            {"c": [-0.3, 0.4, 0.5, 0.6, 0.7, 0.8]},
            ["--objective", "huber-log"],
            "c: 1 values are not above 0, and huber-log takes logarithms",
        ),
        ({"k": [-1, 2, 4, 8, 16, 32]}, [], "k: 1 values are not above 0, and the law takes its logarithm"),
        ({"c": [0.3, None, 0.5, 0.6, 0.7, 0.8]}, [], "c: 1 of 6 values are no finite numbers"),
        ({"c": ["a", 0.4, 0.5, 0.6, 0.7, 0.8]}, [], "c: 1 of 6 values are no finite numbers"),
        ({"k": [4] * 6}, [], "k: is constant (4)"),
        ({"k": [1, 1, 4, 8, 16, 32], "c": [0.3, 0.3, 0.5, 0.6, 0.7, 0.8]}, [], "c: 1 rows are exact duplicates"),
        ({}, ["--map", "k=samples"], "--map k: 'samples': unknown symbol 'samples'"),
        ({}, ["--map", "k=__import__('os')"], "unknown symbol '__import__'"),
        ({}, ["--map", "q=k"], "the law has no 'q'"),
        ({}, ["--map", "k"], "write VAR=COLUMN_OR_ARITHMETIC"),
        ({}, ["--map", "k=k", "--map", "k=n"], "k stands twice"),
        ({}, ["--objective", "r2"], "--objective 'r2': unknown"),
        ({}, ["--delta", "0", "--objective", "huber-log"], "--delta 0.0: must be a positive number"),
        ({}, ["--confidence", "1"], "--confidence 1.0: must lie between"),
        ({}, ["--objective", "binomial"], "add --map trials=COLUMN"),
        ({}, ["--objective", "binomial", "--map", "trials=0*n"], "trials: every value must be at least 1"),
        ({"c": [1.3, 0.4, 0.5, 0.6, 0.7, 0.8]}, ["--objective", "binomial", "--map", "trials=n"], "binomial wants shares between 0 and 1"),
        ({}, ["--fix", "gamma=1"], "--fix gamma: law coverage has no such parameter"),
        ({}, ["--fix", "a"], "--fix 'a': write PARAMETER=NUMBER"),
        ({}, ["--fix", "a=-1", "--fix", "b=-1"], "every parameter is held"),
        ({}, ["--fix", "a=inf"], "not a finite number"),
        ({}, ["--drop-highest", "c"], "write COLUMN:n"),
        ({}, ["--drop-highest", "c:5"], "1 points for 2 parameters; at least 3 are needed"),
        ({}, ["--law", "coverge"], "law 'coverge': unknown"),
        ({}, ["--leave-out", "k"], "--leave-out: judges rivals"),
        ({}, ["--rivals", "hoffmann"], "--rivals hoffmann: has variables N, D"),
        ({}, ["--rivals", "coverage-log", "--leave-out", "N"], "--leave-out 'N': no variable of law coverage"),
    ],
)
def test_bad_data_end_with_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, change, arguments, message):
    path = tmp_path / "d.csv"
    GOOD.assign(**change).to_csv(path, index=False)
    law = [] if "--law" in arguments else ["--law", "coverage"]
    code, told = run(monkeypatch, capsys, "fit", *law, "--data", path, "--replicates", 20, *arguments, "--out", tmp_path / "F.json")
    assert code == 2
    assert told.out == ""
    assert len(told.err.splitlines()) == 1
    assert message in told.err
    assert not (tmp_path / "F.json").exists()


@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe", b"a,b\n1,2,3\n4", None])
def test_a_file_that_is_no_table_is_refused(tmp_path, monkeypatch, capsys, content):
    path = tmp_path / "d.csv"
    if content is not None:
        path.write_bytes(content)
    code, told = run(monkeypatch, capsys, "fit", "--law", "coverage", "--data", path)
    assert (code, len(told.err.splitlines())) == (2, 1)


def test_the_command_writes_a_fit_and_takes_a_law_of_the_study(tmp_path, monkeypatch, capsys):
    path, study, out = tmp_path / "d.csv", tmp_path / "s.yaml", tmp_path / "F.json"
    GOOD.to_csv(path, index=False)
    study.write_text(yaml.safe_dump({"laws": [OWN]}), encoding="utf-8")
    config = ["--config", ROOT / "config" / "config.yaml", "--config", study]
    code, told = run(monkeypatch, capsys, "fit", *config, "--law", "mine", "--data", path, "--map", "A=c", "--replicates", 50, "--out", out)
    assert code == 0, told.err
    found = json.loads(out.read_text(encoding="utf-8"))
    assert {"law", "parameters", "objective", "certificate", "starts_at_optimum", "n", "data_hash"} <= set(found)
    assert {"value", "se", "low", "high"} <= set(found["parameters"]["a"])
    assert found["law"] == "mine"
    code, told = run(monkeypatch, capsys, "laws", "mine", *config)
    assert "gives A = 1 share" in told.out
    code, _ = run(monkeypatch, capsys, "fit", "--law", "mine", "--data", path, "--map", "A=c")
    assert code == 2


def test_options_change_the_fit(tmp_path, monkeypatch, capsys):
    path = tmp_path / "d.csv"
    GOOD.to_csv(path, index=False)

    def fit(*arguments):
        code, told = run(monkeypatch, capsys, "fit", "--law", "coverage", "--data", path, "--replicates", 30, "--json", *arguments)
        assert code == 0, told.err
        return json.loads(told.out)

    plain = fit()
    assert fit()["parameters"] == plain["parameters"]
    assert fit("--seed", 1)["parameters"]["a"]["low"] != plain["parameters"]["a"]["low"]
    assert fit("--objective", "mse-log")["parameters"]["a"]["value"] != plain["parameters"]["a"]["value"]
    assert fit("--objective", "huber-log", "--delta", 1)["objective"] != fit("--objective", "huber-log")["objective"]
    assert fit("--random-starts", 16)["certificate"]["starts"] == 16
    assert fit("--confidence", 0.8)["parameters"]["a"]["profile_low"] > plain["parameters"]["a"]["profile_low"]
    assert fit("--drop-highest", "k:1")["n"] == 5
    assert fit("--fix", "b=-0.3")["fixed"] == {"b": -0.3}
    assert fit("--replicates", 0)["replicates"] == []
    assert fit("--objective", "binomial", "--map", "trials=n")["objective_name"] == "binomial"
    GOOD.loc[[0, 0, 1, 2, 3, 4]].to_csv(path, index=False)
    assert fit("--keep-duplicates")["n"] == 6
