"""The catalogue: every entry is complete, says what its paper says, and its example is worked out again by hand."""

import copy
import itertools
import json
import math
import sys

import numpy as np
import pytest
import yaml
from scipy.special import beta as beta_function

from flopstat import cli
from flopstat.errors import InputError
from flopstat.lawbook import catalogue
from flopstat.lawbook.optimum import with_inference

LAWS = catalogue.laws()
WANTED = (
    "kaplan-n kaplan-d kaplan-c kaplan-nd hoffmann sardana henighan bnsl precision alpha-q kappa-log-p parscale coverage ttspm "
    "budget-forcing bon-reward k-bit surface"
).split()


def chinchilla(p, N, D):
    return p["E"] + p["A"] / N ** p["alpha"] + p["B"] / D ** p["beta"]


def _effective(p, N, **bits):
    return N * math.prod(1 - math.exp(-b / p[f"gamma_{x}"]) for x, b in bits.items())


def _joint(p, N, D, P_w, P_post):
    n = _effective(p, N, w=P_w)
    added = p["C_T"] * D ** p["gamma_D"] / n ** p["gamma_N"] * math.exp(-P_post / p["gamma_post"])
    return chinchilla(p, n, D) + added * (1 - math.exp(-p["C_w"] * (P_w - P_post)))


def _surface(p, N, T, P, B, q):
    def saturating(x, half):
        return math.log(x * half / (x + half))

    z = p["a"] + p["b_N"] * math.log(N * (1 - math.exp(-q / p["gamma"])) / 1e6) + p["b_B"] * math.log(B)
    z += p["b_T"] * saturating(T, p["T_s"]) + p["b_P"] * saturating(P, p["P_s"])
    return p["A_max"] / (1 + math.exp(-z))


# Each law written a second time, from its paper's words rather than from the catalogue's formula.
BY_HAND = {
    "kaplan-n": lambda p, N: math.exp(p["alpha"] * (math.log(p["N_c"]) - math.log(N))),
    "kaplan-d": lambda p, D: math.exp(p["alpha"] * (math.log(p["D_c"]) - math.log(D))),
    "kaplan-c": lambda p, C: math.exp(p["alpha"] * (math.log(p["C_c"]) - math.log(C))),
    "kaplan-nd": lambda p, N, D: ((p["N_c"] / N) ** (p["alpha_N"] / p["alpha_D"]) + p["D_c"] / D) ** p["alpha_D"],
    "henighan": lambda p, x: p["L_inf"] + (p["x_0"] / x) ** p["alpha"],
    "hoffmann": chinchilla,
    "sardana": chinchilla,
    "bnsl": lambda p, x: p["a"] + p["b"] * x ** -p["c_0"] / (1 + (x / p["d_1"]) ** (1 / p["f_1"])) ** (p["c_1"] * p["f_1"]),
    "precision": lambda p, N, D, P_w, P_a, P_kv: chinchilla(p, _effective(p, N, w=P_w, a=P_a, kv=P_kv), D),
    "precision-post": lambda p, N, D, P_post: p["C_T"] * D ** p["gamma_D"] * N ** -p["gamma_N"] / math.exp(P_post / p["gamma_post"]),
    "precision-joint": _joint,
    "alpha-q": lambda p, q: math.expm1(-q / p["gamma"]) / math.expm1(-16 / p["gamma"]),
    "k-bit": lambda p, N, q: p["a"] + p["b"] * math.log(N * q, 2),
    "k-bit-saturating": lambda p, N, q: p["A_max"] - (N * q / p["b_0"]) ** -p["beta"],
    "kappa-log-p": lambda p, P: p["A_1"] + p["kappa"] * math.log(P),
    "parscale": lambda p, N, P: p["E"] + (N * (1 + p["k"] * math.log(P)) / p["A"]) ** -p["alpha"],
    "coverage": lambda p, k: math.exp(p["a"] * k ** p["b"]),
    "coverage-beta": lambda p, k: (
        1 - beta_function(p["s"] * p["m"], p["s"] * (1 - p["m"]) + k) / beta_function(p["s"] * p["m"], p["s"] * (1 - p["m"]))
    ),
    "coverage-log": lambda p, k: p["a"] + p["b"] * math.log(k),
    "ttspm": lambda p, n: p["F_max"] * sum(p["p"] * (1 - p["p"]) ** i for i in range(round(n))),
    "budget-forcing": lambda p, T: min(p["a"] + p["b"] * math.log(T), p["A_max"]),
    "bon-reward": lambda p, d: p["alpha"] * d - p["beta"] * d * d,
    "rl-reward": lambda p, d: p["alpha"] * d - p["beta"] * d * math.log(d),
    "surface": _surface,
}


def test_every_wanted_law_is_there():
    assert set(WANTED) <= set(LAWS)
    assert set(LAWS) == set(BY_HAND)


@pytest.mark.parametrize("law", LAWS.values(), ids=lambda law: law.id)
def test_example_and_formula_agree_with_the_law_written_by_hand(law):
    example = law.example
    assert BY_HAND[law.id](example.parameters, **example.at) == pytest.approx(example.value, rel=1e-4)
    rng = np.random.default_rng(1)
    for _ in range(5):
        at = {v.name: float(round(v.range[0] * (v.range[1] / v.range[0]) ** rng.random(), 0) or 1) for v in law.variables}
        if "P_post" in at:
            at["P_post"] = min(at["P_post"], at.get("P_w", 99))
        assert float(law.predict(example.parameters, at)) == pytest.approx(BY_HAND[law.id](example.parameters, **at), rel=1e-9)


@pytest.mark.parametrize("law", LAWS.values(), ids=lambda law: law.id)
def test_entry_is_complete(law):
    assert all(text.strip() for text in (law.title, law.latex, law.source, law.equation, law.validity))
    assert law.caveats
    assert all(q.unit and q.meaning for q in (law.response, *law.variables, *law.parameters))
    assert all(v.range and v.range[0] < v.range[1] for v in law.variables)
    for p in law.parameters:
        assert p.low <= law.example.parameters[p.name] <= p.high
    assert catalogue.read_law(law.to_data(), "again") == law


@pytest.mark.parametrize("law", LAWS.values(), ids=lambda law: law.id)
def test_derived_numbers_are_worked_out_again(law):
    for derived in law.derived:
        assert float(law.derive(derived.name, law.example.parameters, derived.at)) == pytest.approx(derived.value, rel=1e-4)


@pytest.mark.parametrize("name", ["kaplan-n", "kaplan-d", "kaplan-c", "henighan", "hoffmann", "parscale", "precision", "bnsl"])
def test_losses_fall_with_every_variable(name):
    law = LAWS[name]
    middle = {v.name: math.sqrt(v.range[0] * v.range[1]) for v in law.variables}
    for v in law.variables:
        along = {**{k: np.full(30, x) for k, x in middle.items()}, v.name: np.geomspace(*v.range, 30)}
        assert (np.diff(law.predict(law.example.parameters, along)) < 0).all()


def test_limits():
    p = LAWS["hoffmann"].example.parameters
    assert float(LAWS["hoffmann"].predict(p, {"N": 1e60, "D": 1e60})) == pytest.approx(p["E"])
    assert float(LAWS["alpha-q"].predict({"gamma": 2.5}, {"q": 16.0})) == 1.0
    assert float(LAWS["coverage-beta"].predict({"m": 0.3, "s": 2.0}, {"k": 1.0})) == pytest.approx(0.3)
    assert float(LAWS["ttspm"].predict({"F_max": 0.8, "p": 0.2}, {"n": 1e4})) == pytest.approx(0.8)


def test_chinchilla_optimum_is_the_least_loss_of_its_compute_and_has_about_twenty_tokens_per_parameter():
    law = LAWS["hoffmann"]
    p, c = law.example.parameters, 5.76e23
    n, d = (float(law.derive(name, p, {"C": c})) for name in ("N_opt", "D_opt"))
    assert 6 * n * d == pytest.approx(c)
    assert float(law.derive("D_opt/N_opt", p, {"C": c})) == pytest.approx(d / n)
    assert 15 < d / n < 25
    sizes = n * np.geomspace(0.5, 2, 101)
    losses = law.predict(p, {"N": sizes, "D": c / 6 / sizes})
    assert losses.argmin() == 50


def test_sardana_trains_a_smaller_model_longer_the_more_it_is_used():
    p = LAWS["sardana"].example.parameters
    plain = with_inference(p, 2.0, 0)
    c = plain.flops
    assert plain.n_params == pytest.approx(float(LAWS["hoffmann"].derive("N_opt", p, {"C": c})), rel=1e-9)
    used = [with_inference(p, 2.0, tokens) for tokens in (0, 1e12, 1e13, 1e14)]
    assert all(a.n_params > b.n_params and a.tokens < b.tokens for a, b in itertools.pairwise(used))
    for optimum, tokens in zip(used, (0, 1e12, 1e13, 1e14), strict=True):
        assert chinchilla(p, optimum.n_params, optimum.tokens) == pytest.approx(2.0)
        for factor in (0.98, 1.02):  # any other size on the contour costs more
            n = optimum.n_params * factor
            d = (p["B"] / (2.0 - p["E"] - p["A"] * n ** -p["alpha"])) ** (1 / p["beta"])
            assert 6 * n * d + 2 * n * tokens > optimum.flops
    with pytest.raises(InputError, match="not above the irreducible"):
        with_inference(p, 1.8, 0)
    with pytest.raises(InputError, match="0 or more"):
        with_inference(p, 2.0, -1)


OWN = {
    "id": "mine",
    "title": "A square root",
    "formula": "a*sqrt(k)",
    "latex": r"a\sqrt{k}",
    "response": {"name": "A", "unit": "share", "meaning": "accuracy"},
    "variables": [{"name": "k", "unit": "samples", "meaning": "samples"}],
    "parameters": [{"name": "a", "unit": "share", "meaning": "size", "low": 1e-6, "high": 10, "starts": [0.1, "y_mid"]}],
    "source": "here",
    "equation": "1",
    "validity": "few samples",
    "caveats": ["none"],
    "example": {"parameters": {"a": 0.5}, "at": {"k": 4}, "value": 1.0},
}


def test_a_study_adds_a_law():
    law = catalogue.laws([OWN])["mine"]
    assert float(law.predict({"a": 2}, {"k": 9})) == 6
    assert law.objective == "mse"


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("formula",), "a*k.real", "'.' at character 4 is not arithmetic"),
        (("formula",), "a*k*b", "unknown symbol 'b'"),
        (("formula",), "a", "does not use k"),
        (("id",), "hoffmann", "'hoffmann' is taken"),
        (("variables", 0, "name"), "exp", "no usable name"),
        (("variables", 0, "name"), "a", "a name of its own"),
        (("variables", 0, "colour"), "red", "unknown key 'colour'"),
        (("parameters", 0, "low"), -1, "do not fit scale log"),
        (("parameters", 0, "high"), float("inf"), "a finite number is wanted"),
        (("parameters", 0, "scale"), "cubic", "'cubic' is unknown"),
        (("parameters", 0, "starts"), [], "a list of numbers or formulas"),
        (("parameters", 0, "starts"), ["k_most"], "unknown symbol 'k_most'"),
        (("example", "value"), 2.0, "the formula gives 1, not 2"),
        (("example", "at"), {}, "lacks k"),
        (("objective",), "r2", "'r2' is unknown"),
        (("caveats",), "none", "a list is wanted"),
        (("response",), "A", "a mapping is wanted"),
    ],
)
def test_a_broken_law_is_refused_with_one_line(where, value, message):
    broken = copy.deepcopy(OWN)
    place = broken
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    with pytest.raises(InputError) as error:
        catalogue.laws([broken])
    assert message in str(error.value)


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match="law 'chinchila': unknown; choose one of kaplan-n"):
        catalogue.find("chinchila")
    with pytest.raises(InputError, match="derives no 'x'"):
        LAWS["hoffmann"].derive("x", {}, {})


def test_the_command_lists_and_explains(capsys, monkeypatch):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["flopstat", *arguments])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return left.value.code, capsys.readouterr()

    code, told = run("laws", "--json")
    assert code == 0
    assert [row["id"] for row in json.loads(told.out)] == list(LAWS)
    code, told = run("laws")
    assert code == 0
    assert "parscale" in told.out
    code, told = run("laws", "hoffmann")
    assert "gives L = 1.97284 nat/token" in told.out
    assert "18.3503 tokens/parameter" in told.out
    assert "arXiv:2203.15556" in told.out
    code, told = run("laws", "hoffmann", "--json")
    assert catalogue.read_law(json.loads(told.out), "json") == LAWS["hoffmann"]
    code, told = run("laws", "sardana")
    used = with_inference(LAWS["sardana"].example.parameters, 2.0, 1e12)
    assert f"1e+12: N = {used.n_params:.4g} parameters, D = {used.tokens:.4g} tokens" in told.out
    code, told = run("laws", "nothing")
    assert (code, told.err.count("\n")) == (2, 1)


@pytest.mark.parametrize("title", ["[bold red]RED[/bold red] [/nope]", "[link=https://x.y]here[/link] :bomb:", "back\u202eward\u2028line"])
def test_a_law_of_a_study_is_shown_and_not_obeyed(root, tmp_path, monkeypatch, capsys, title):
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump({"laws": [OWN | {"title": title, "caveats": [title]}]}), encoding="utf-8")
    monkeypatch.setenv("COLUMNS", "300")
    for name in ([], ["mine"]):
        monkeypatch.setattr(
            sys, "argv", ["flopstat", "laws", *name, "--config", str(root / "config" / "config.yaml"), "--config", str(file)]
        )
        with pytest.raises(SystemExit) as left:
            cli.main()
        out = capsys.readouterr().out
        assert left.value.code == 0
        assert title.encode("unicode_escape").decode() in out
        assert out.replace("\n", "").isprintable()
