"""Spending: each cost column of a cell against a case worked by hand, ratio intervals, and what is missing with its reason."""

import dataclasses

import numpy as np
import pytest

from flopstat import bootstrap, spending, tables
from flopstat.columns import TABLES
from flopstat.costs import Flops, memory_bytes
from flopstat.kinetics import Traffic, eflops
from flopstat.latency import Decode, Device, Latency, Prefill
from flopstat.models import ImportedCard
from flopstat.prices import TokenPrice
from flopstat.spending import ArmFacts, Chains, Spending, Verifier, per_correct, provisioned, unknown_costs

DEVICE = Device("d", 1e9, 1e8, "f")
LATENCY = Latency(DEVICE, Prefill(0.5, 0.0, 0.25, 0.0), Decode(1.0, 0.5, 0.0, 0.1), 0.0, max_batch=4, form="line", chain_s=0.2)
IMPORTED = ImportedCard(
    name="m",
    source="import",
    stored="log",
    log_sha256="0",
    n_params=1000,
    tokens_per_solution=None,
    external_samples=10,
    dropped={},
    unknown={},
)


@pytest.fixture(scope="module")
def facts(shipped):
    return ArmFacts(shipped("ladder-30k"), "fp32", 32.0, 2.0, (3.0, 2.5, 3.5), LATENCY, 32, usd_per_hour=7.2)


def chains(card, prompt, tokens) -> Chains:
    prompt, tokens, flops = np.array(prompt, dtype=float), np.array(tokens, dtype=float), Flops.of(card)
    return Chains(prompt, tokens, flops.prefill(prompt), flops.decode(prompt[:, None], tokens).mean(axis=1))


def test_one_problem_worked_by_hand(facts):
    """Prompt 5, chains of 3 and 2 tokens, both drawn: 0.2 s to enter, steps at contexts 6 and 7 in a batch of 4 of 1 + 2 + 0.4·c s."""
    card = facts.card
    cost = Spending(facts, chains(card, [5], [[3, 2]]), budget=10).at(2)
    flops = Flops.of(card)
    assert cost["flops"][0] == float(flops.prefill(5) + flops.decode(5, 3) + flops.decode(5, 2))
    prefill, at_6, at_7 = 0.5 + 0.25 * 5, 3 + 0.4 * 6, 3 + 0.4 * 7
    assert cost["device_s"][0] == pytest.approx(prefill + 2 * 0.2 + (at_6 + at_7 + at_6) / 4)
    assert cost["usd"][0] == pytest.approx(cost["device_s"][0] * 7.2 / 3600)
    assert cost["memory_bytes"][0] == float(memory_bytes(card, 32.0, 2, 5, 10, 32))
    assert "joules" not in cost


def test_expected_eflops_are_the_mean_over_all_subsets(facts):
    tokens = np.array([2.0, 9.0, 4.0, 4.0])
    cost = Spending(facts, chains(facts.card, [6], [tokens]), budget=10).at(2)["eflops"][0]
    traffic = Traffic(facts.card, 32.0, 32)
    pairs = [(i, j) for i in range(4) for j in range(i)]
    each = [eflops(traffic, DEVICE.intensity, 6, tokens[list(pair)]) for pair in pairs]
    assert cost == pytest.approx(np.mean(each))


def test_watts_make_joules(facts):
    device = dataclasses.replace(DEVICE, watts=50.0)
    measured = dataclasses.replace(facts, latency=dataclasses.replace(LATENCY, device=device))
    cost = Spending(measured, chains(facts.card, [5], [[3, 2]]), budget=10).at(1)
    np.testing.assert_allclose(cost["joules"], 50 * cost["device_s"])


def test_costs_rise_with_chains(facts):
    rng = np.random.default_rng(0)
    spent = Spending(facts, chains(facts.card, [5, 8, 6], rng.integers(1, 30, size=(3, 8))), budget=30)
    few, many = spent.at(1), spent.at(8)
    assert set(few) == {"flops", "eflops", "device_s", "memory_bytes", "usd"}
    assert all((many[name] > few[name]).all() for name in few)
    assert (many["eflops"] < 8 * few["eflops"]).all()  # weights and prompt are shared
    w = bootstrap.weights(np.zeros(3, dtype=int), 200, rng)
    assert spent.waiting(1, w, 0.95)["latency_p50_s"] < spent.waiting(8, w, 0.95)["latency_p90_s"]


def test_provisioned_costs():
    card = dataclasses.replace(IMPORTED, tokens_per_solution=100)
    plain = provisioned(ArmFacts(card, "fp16", None, None, None), 3, 1, 64, 0, np.nan)
    assert plain == {"flops_nominal": (6_000_000.0,) * 3}
    judged = ArmFacts(card, "fp16", None, None, None, verifier=Verifier(n_params=500, tokens=40))
    assert provisioned(judged, 3, 1, 64, 0, np.nan)["flops_nominal"][0] == 6_000_000 + 30 * 2 * 500 * 40
    as_large = ArmFacts(card, "fp16", None, None, None, verifier=Verifier(None, None))
    assert provisioned(as_large, 3, 1, 64, 0, np.nan)["flops_nominal"][0] == 2 * 6_000_000
    alone = dataclasses.replace(as_large, card=dataclasses.replace(card, external_samples=1))
    assert provisioned(alone, 3, 1, 64, 0, np.nan)["flops_nominal"][0] == 600_000  # nothing to judge


def test_hosted_models_are_charged_by_token():
    facts = ArmFacts(IMPORTED, "fp16", None, None, None, token_price=TokenPrice(0.1, 0.4))
    nothing = np.full(2, np.nan)
    cost = Spending(facts, Chains(np.array([2000.0, 0.0]), np.array([[1000.0], [500.0]]), nothing, nothing), 64).at(2)
    np.testing.assert_allclose(cost["usd"], [0.0002 + 2 * 0.0004, 2 * 0.0002])
    assert set(cost) == {"usd", "flops"}
    unknown = Spending(facts, Chains(np.array([np.nan, 1.0]), np.ones((2, 1)), nothing, nothing), 64).at(2)
    assert set(unknown) == {"flops"}


def test_worked_cost_of_a_right_answer():
    flops, accuracy = np.array([[10.0], [20.0], [30.0]]), np.array([[1.0], [0.0], [0.5]])
    w = bootstrap.weights(np.zeros(3, dtype=int), 400, np.random.default_rng(0))
    value, low, high = per_correct(flops, accuracy, np.full((1, 2), np.nan), w, 0.95)[0]
    assert value == 40
    assert low < 40 < high == np.inf  # one replicate in 27 draws the second problem alone


def test_nothing_right_costs_infinitely_much_and_small_counts_take_the_accuracys_limits():
    flops, accuracy = np.full((20, 2), 10.0), np.zeros((20, 2))
    accuracy[0, 1] = 1
    w = bootstrap.weights(np.zeros(20, dtype=int), 200, np.random.default_rng(0))
    found = per_correct(flops, accuracy, np.array([[0.0, 0.16], [0.01, 0.24]]), w, 0.95)
    np.testing.assert_allclose(found, [[np.inf, 62.5, np.inf], [200, 10 / 0.24, 1000]])


def test_ratio_intervals_cover():
    rng = np.random.default_rng(1)
    hits, studies = 0, 1000
    w = bootstrap.weights(np.zeros(100, dtype=int), 300, rng)
    for _ in range(studies):
        p = rng.beta(2, 2, size=100)
        flops = 10 + 20 * (1 - p) + rng.normal(0, 1, 100)  # harder problems cost more
        _, low, high = per_correct(flops[:, None], p[:, None], np.full((1, 2), np.nan), w, 0.95)[0]
        hits += low <= 20 / 0.5 <= high
    low, high = bootstrap.wilson(hits / studies, studies, 0.95)
    assert high >= 0.93
    assert low <= 0.97


def test_infinite_costs_survive_a_round_trip(study, tmp_path):
    table = study["tables"]["configurations"].copy()
    table.loc[table.index[:3], ["flops_per_correct", "flops_per_correct_high"]] = np.inf
    for suffix in ("csv", "parquet"):
        tables.write(table, "configurations", tmp_path / f"t.{suffix}")
        again = tables.read("configurations", tmp_path / f"t.{suffix}")
        assert np.isinf(again["flops_per_correct_high"]).sum() >= 3
        np.testing.assert_allclose(again["flops_per_correct"], table["flops_per_correct"], rtol=1e-9)


def test_what_is_missing_has_a_reason(study, facts):
    configurations = study["tables"]["configurations"]
    found = {row["cost"]: row["reason"] for row in unknown_costs(facts, configurations)}
    assert set(found) == {"joules"}
    assert "not measured" in found["joules"]
    bare = configurations.assign(usd=np.nan, device_s=np.nan)
    uncalibrated = {row["cost"]: row["reason"] for row in unknown_costs(dataclasses.replace(facts, latency=None, usd_per_hour=None), bare)}
    assert uncalibrated == dict.fromkeys(("device_s", "joules"), "the arm was not calibrated") | {"usd": "costs.price_device is not set"}


def test_every_column_of_the_table_is_made():
    made = spending.columns({"flops": (1.0, 0.5, 2.0)})
    wanted = [c for c in TABLES["configurations"] if c.removesuffix("_low").removesuffix("_high") in spending.COLUMNS]
    assert sorted(made) == sorted(wanted)
    assert (made["flops"], made["flops_low"], made["flops_high"]) == (1.0, 0.5, 2.0)
    assert np.isnan(made["usd"])
