"""The exhaustive check: same keys give the same ids, independent draws give the same accuracy, and a biased pool is found."""

import dataclasses
import itertools
import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from flopstat import models, precisions, problems, strategies, tables, validation
from flopstat.engine import GREEDY, Request, SamplingSettings
from flopstat.errors import InputError
from flopstat.estimators import NO_ANSWER
from flopstat.forcing import Plan
from flopstat.pool import Pool
from flopstat.sampling import eos_ids, prompt_ids
from flopstat.validation import Cell, compare, decide, left_out_values

LADDER = ("ladder-30k", "ladder-160k")
CELLS = [Cell("m@fp32", 64, p, b) for p, b in ((1, 1), (2, 1), (4, 1), (1, 2), (2, 2))]
N, K = 40, 16


def plan(config):
    return Plan.of(config["sampling"], config["budgets"], 5)


def evaluate(cell, pool, permutations):
    """What the project's own estimator says of a cell."""
    return strategies.evaluate(strategies.strategy(cell.strategy, cell.b), pool, [cell.p * cell.b], permutations)[0]


# --- deciding -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chains", "p", "b", "u", "answer"),
    [
        ([("7", -0.3)], 1, 1, 0.9, "7"),
        ([(None, -0.1)], 1, 1, 0.0, None),
        ([("7", -0.3), ("8", -0.2)], 1, 2, 0.0, "8"),
        ([("7", -0.3), (None, -0.1)], 1, 2, 0.0, "7"),
        ([("7", -9), ("8", -1), ("7", -9)], 3, 1, 0.0, "7"),
        ([("7", -9), (None, -1), (None, -1)], 3, 1, 0.0, "7"),
        ([("7", -1), ("8", -1)], 2, 1, 0.49, "7"),
        ([("7", -1), ("8", -1)], 2, 1, 0.51, "8"),
        ([("7", -1), ("8", -2), ("9", -3), ("8", -1)], 2, 2, 0.99, "8"),
    ],
)
def test_decide(chains, p, b, u, answer):
    assert decide(chains, p, b, u) == answer


def test_decide_is_the_rule_that_the_pool_averages():
    """Over all orders of a small pool, with ties split, it gives the exact estimates of the strategies."""
    answers, scores = ["0", "5", None, "0", "5"], [-0.4, -0.2, -0.1, -0.6, -0.9]
    codes = np.array([[{"0": 0, "5": 1, None: NO_ANSWER}[a] for a in answers]])
    pool = strategies.Pool(codes, {validation.SCORE: np.array([scores])})
    for cell in [*CELLS, Cell("m", 1, 3, 1), Cell("m", 1, 1, 4)]:
        hits = [
            decide([(answers[i], scores[i]) for i in order], cell.p, cell.b, u) == "0"
            for order in itertools.permutations(range(5), cell.p * cell.b)
            for u in (0.25, 0.75)
        ]
        every = np.array(list(itertools.permutations(range(5))))
        assert np.mean(hits) == pytest.approx(evaluate(cell, pool, every).accuracy[0], abs=1e-12)


# --- choosing -----------------------------------------------------------------------------------------------------------


def _there(arms, budgets):
    rows = [
        {"arm": arm, "T": t, "P": p, "B": b, "strategy": Cell(arm, t, p, b).strategy}
        for arm in arms
        for t in budgets
        for p in (1, 2, 4, 8, 16)
        for b in (1, 2, 4)
    ]
    return pd.DataFrame(rows)


def test_cells_are_chosen_from_what_the_study_has():
    there = _there(("a@fp32", "b@fp32", "c@fp32"), (16, 24, 32, 48, 64, 128))
    cells = validation.choose_cells(["a@fp32", "b@fp32"], there, 32)
    assert len(cells) == 32
    assert {c.t for c in cells} == {32, 64}
    assert {c.arm for c in cells} == {"a@fp32", "b@fp32"}
    assert {(c.p, c.b) for c in cells} == set(validation.SHAPES)
    assert len({c.stream("p") for c in cells}) == len(cells)
    few = validation.choose_cells(["a@fp32"], there, 8)
    assert max(c.p * c.b for c in few) == 4
    assert len(few) >= validation.MIN_CELLS
    assert len(validation.choose_cells(["a@fp32"], there[there["T"] == 16], 32)) == 8
    with pytest.raises(InputError, match=r"sampling.samples = 1; raise it"):
        validation.choose_cells(["a@fp32"], there, 1)


# --- (a) ids --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chosen(study_config):
    dataset = study_config["dataset"] | {"n_study": 6, "n_calibration": 6}
    table = problems.select_problems(dataset, [study_config["prompt"]], 3).problems
    return table[table["split"] == "study"]


SETTINGS = SamplingSettings(seed=17, temperature=1.0, top_p=1.0, top_k=0, max_tokens=48)


@pytest.mark.parametrize("name", LADDER)
def test_the_plain_loop_draws_the_pool_s_ids(shipped, chosen, name):
    rows = validation.check_ids(chosen, shipped(name), "fp32", SETTINGS, 8)
    assert [(r["dtype"], r["kind"], r["chains"]) for r in rows] == [
        (dtype, kind, n) for dtype in ("float32", "float64") for kind, n in (("greedy", 6), ("sampled", 12))
    ]
    assert validation.ids_agree(rows)
    assert all(r["equal"] == r["chains"] for r in rows if r["dtype"] == "float64")


def test_other_ids_are_counted(shipped, chosen, monkeypatch):
    card = shipped("ladder-160k")
    tokenizer, model = models.load_tokenizer(card), precisions.load(card, "fp32", "float32", "cpu")
    eos = eos_ids(tokenizer, model.generation_config, card.vocab_size)
    messages = zip(chosen["problem_key"], chosen["messages"], strict=True)
    requests = [Request(key, prompt_ids(tokenizer, problems.messages_of(m)[0]), i) for key, m in messages for i in (GREEDY, 0)]
    real = validation.uniforms
    monkeypatch.setattr(validation, "uniforms", lambda seed, *rest: real(seed + 1, *rest))
    counts = validation.compare_ids(model, requests, SETTINGS, eos, 64)
    assert (counts.chains, counts.equal + counts.near_tie + counts.other) == (12, 12)
    assert counts.equal >= 6  # the greedy chains have no uniforms
    assert counts.other >= 4
    row = dataclasses.asdict(counts) | {"dtype": "float32"}
    assert not validation.ids_agree([row])
    assert validation.ids_agree([row | {"other": 0, "near_tie": 1}])
    assert not validation.ids_agree([row | {"other": 0, "near_tie": 1, "dtype": "float64"}])


# --- (b) accuracies ---------------------------------------------------------------------------------------------------------


def _world(rng):
    """Probabilities of four answers (0 is right, 3 is none) per problem, and the mean score of each answer; some problems are certain."""
    p = rng.dirichlet([1.5, 1.0, 0.5, 0.4], size=N)
    p[:3] = [1.0, 0.0, 0.0, 0.0]
    return p, np.array([0.5, 0.0, -0.3, 0.0])


def _draw(p, mean, shape, rng):
    """Codes and scores of independent chains, (problems, *shape)."""
    kind = (rng.random((N, *shape))[..., None] > p.cumsum(axis=1).reshape(N, *[1] * len(shape), 4)).sum(axis=-1).clip(0, 3)
    return np.where(kind == 3, NO_ANSWER, kind), mean[kind] + rng.normal(size=kind.shape)


def _pool_side(p, mean, cells, rng, permutations):
    codes, score = _draw(p, mean, (K,), rng)
    pool = strategies.Pool(codes, {validation.SCORE: score})
    value = np.column_stack([evaluate(cell, pool, permutations).accuracy for cell in cells])
    return value, left_out_values(pool, cells)


def _exhaustive_side(p, mean, cells, rng):
    out = np.empty((N, len(cells)))
    for j, cell in enumerate(cells):
        codes, score = _draw(p, mean, (cell.p * cell.b,), rng)
        for r in range(N):
            chains = [(None if c == NO_ANSWER else str(c), s) for c, s in zip(codes[r], score[r], strict=True)]
            out[r, j] = decide(chains, cell.p, cell.b, rng.random()) == "0"
    return out


def test_left_out_values_are_the_estimates_without_a_sample():
    rng = np.random.default_rng(4)
    p, mean = _world(rng)
    codes, score = _draw(p, mean, (K,), rng)
    left = left_out_values(strategies.Pool(codes, {validation.SCORE: score}), CELLS)
    for i in (0, 7, K - 1):
        rest = strategies.Pool(np.delete(codes, i, axis=1), {validation.SCORE: np.delete(score, i, axis=1)})
        many = strategies.permutations_for(K - 1, 400, 1)
        for j, cell in enumerate(CELLS):
            outcome = evaluate(cell, rest, many)
            tolerance = 1e-12 if outcome.monte_carlo is None else 0.06
            np.testing.assert_allclose(left[:, i, j], outcome.accuracy, atol=tolerance)


@pytest.fixture(scope="module")
def comparisons():
    """220 simulated checks: pools and exhaustive draws from the same distributions."""
    rng = np.random.default_rng(20)
    p, mean = _world(rng)
    permutations = strategies.permutations_for(K, 16, 0)
    return [(_pool_side(p, mean, CELLS, rng, permutations), _exhaustive_side(p, mean, CELLS, rng)) for _ in range(220)]


def test_the_joint_p_value_is_uniform(comparisons):
    results = [compare(*pool, outcomes, 0.95) for pool, outcomes in comparisons]
    assert all(r.dof == len(CELLS) for r in results)
    p = [r.p for r in results]
    assert stats.kstest(p, "uniform").pvalue > 0.001
    assert np.mean([r.chi2 for r in results]) == pytest.approx(len(CELLS), rel=0.12)
    # Each cell's interval holds 0 in 95% of the 220, the outcomes being discrete only about so.
    covered = np.mean([(r.low <= 0) & (r.high >= 0) for r in results], axis=0)
    assert ((covered >= 0.9) & (covered <= 0.99)).all()


@pytest.mark.parametrize("bias", ["shifted", "ties for gold"])
def test_a_biased_pool_is_found(comparisons, bias):
    """Accuracies 15 points too high; a vote of two that a tie never loses."""
    p = []
    for (value, left_out), outcomes in comparisons:
        if bias == "shifted":
            value = np.minimum(value + 0.15, 1.0)
        else:
            value = value.copy()
            value[:, 1] += value[:, 0] * (1 - value[:, 0])  # P(at least one right) instead of P(right)
        p.append(compare(value, left_out, outcomes, 0.95).p)
    assert np.mean(np.array(p) < 0.05) > 0.5


def test_certain_cells_stay_out_of_the_test_but_keep_an_interval():
    value, outcomes = np.tile([1.0, 0.5], (20, 1)), np.tile([1.0, 1.0], (20, 1))
    left_out = np.repeat(value[:, None], 8, axis=1)
    result = compare(value, left_out, outcomes, 0.95)
    assert result.tested.tolist() == [False, True]
    assert result.dof == 1
    assert result.chi2 == pytest.approx(20 * 0.25 / 0.25)
    assert (result.low < result.high).all()
    assert result.low[0] < 0 < result.high[0]
    alone = compare(value[:, :1], left_out[:, :, :1], outcomes[:, :1], 0.95)
    assert (alone.dof, alone.chi2) == (0, 0.0)
    assert np.isnan(alone.p)


# --- the whole ----------------------------------------------------------------------------------------------------------------


def test_an_interrupted_check_goes_on_and_gives_the_same(shipped, chosen, study_config, tmp_path, monkeypatch):
    card = shipped("ladder-30k")
    cells = [Cell("ladder-30k@fp32", t, p, b) for t in (8, 24) for p, b in ((1, 1), (2, 2))]
    arguments = (cells, chosen, card, "fp32", study_config["sampling"], plan(study_config))
    whole = validation.draw_arm(*arguments, tmp_path / "whole")
    assert whole.shape == (6, 4)
    assert np.isin(whole, (0, 1)).all()

    real, calls = validation.plain_chain, []

    def dying(*rest):
        calls.append(1)
        if len(calls) == 30:
            raise KeyboardInterrupt
        return real(*rest)

    monkeypatch.setattr(validation, "BLOCK", 8)
    monkeypatch.setattr(validation, "plain_chain", dying)
    with pytest.raises(KeyboardInterrupt):
        validation.draw_arm(*arguments, tmp_path / "killed")
    assert len(calls) == 30
    again = validation.draw_arm(*arguments, tmp_path / "killed")
    assert len(calls) == 60 + 30 % 8  # 24 chains had been stored, the open block is drawn again
    assert np.array_equal(again, whole)
    validation.draw_arm(*arguments, tmp_path / "killed")
    assert len(calls) == 60 + 30 % 8


def test_no_cell_shares_a_uniform_and_nothing_is_longer_than_its_budget(shipped, chosen, study_config, tmp_path):
    cells = [Cell("ladder-160k@fp32", t, p, b) for t in (8, 24) for p, b in ((1, 1), (2, 1))]
    validation.draw_arm(cells, chosen, shipped("ladder-160k"), "fp32", study_config["sampling"], plan(study_config), tmp_path)
    pool = Pool(tmp_path, json.loads(next(tmp_path.glob("*/key.json")).read_text(encoding="utf-8")))
    drawn = pool.rows([cell.stream(key) for cell in cells for key in chosen["problem_key"]], 1).to_pandas()
    assert len(list(tmp_path.iterdir())) == 1
    assert len(drawn) == 6 * (1 + 2) * 2
    assert not drawn.duplicated(["problem_key", "sample"]).any()
    budget = drawn["problem_key"].str.extract(r"/T(\d+)/")[0].astype(int)
    assert (drawn["n_tokens"] <= budget).all()
    first = [validation.uniforms(0, stream, i, 1)[0] for stream, i in zip(drawn["problem_key"], drawn["sample"], strict=True)]
    assert len(set(first)) == len(drawn)


def test_what_the_plain_loop_does_not_know_is_refused(study_config, study, tmp_path):
    forced = study_config | {"budgets": study_config["budgets"] | {"forcing": "force_answer"}}
    with pytest.raises(InputError, match="no forcing and no variants"):
        validation.validate_study(forced, study["tables"]["problems"], study["tables"]["cells"], {}, {}, tmp_path)


def test_the_whole_check_on_a_small_study(study, study_config, tmp_path, monkeypatch):
    """On the synthetic study, against outcomes that are all wrong: the tables are valid, and so large a difference is found."""
    monkeypatch.setattr(validation, "ID_SAMPLES", (GREEDY,))
    monkeypatch.setattr(validation, "draw_arm", lambda cells, chosen, *_rest: np.zeros((len(chosen), len(cells))))
    grades = {arm: study["grades"][arm] for arm in ("ladder-160k@fp32", "ladder-30k@fp32")}
    cards = {card.name: card for card in study["cards"]}
    table, ids = validation.validate_study(study_config, study["tables"]["problems"], study["tables"]["cells"], cards, grades, tmp_path)
    checked = tables.validate(table, "validation")
    assert list(dict.fromkeys(checked["arm"])) == ["ladder-30k@fp32", "ladder-160k@fp32"]  # smaller first
    assert len(checked) == 2 * 2 * 6
    assert checked["largest"].sum() == 1
    assert checked.loc[checked["largest"], "difference"].abs().item() == checked["difference"].abs().max()
    cells = study["tables"]["configurations"].query("split == 'study'").set_index(["arm", "T", "P", "B", "strategy"])["accuracy"]
    keys = list(zip(*(checked[c] for c in ("arm", "T", "P", "B", "strategy")), strict=True))
    np.testing.assert_allclose(checked["pool"], cells.loc[keys], atol=1e-12)
    assert (checked["exhaustive"] == 0).all()
    assert checked["p"].iloc[0] < 0.01
    said = validation.summary(checked, ids)
    assert f"chi2 = {checked['chi2'].iloc[0]:.1f} on {checked['dof'].iloc[0]} degrees of freedom" in said
    assert "12 of 12 chains equal" in said
    assert "largest difference, pool - exhaustive: " in said
    json.dumps(ids)
