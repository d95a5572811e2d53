"""Strategies: each rule against its words, closed forms against all subsets, cuts against enumeration, refusals."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopstat.errors import InputError
from flopstat.estimators import NO_ANSWER
from flopstat.strategies import CALIBRATED, SCORES, Pool, calibrated_scores, check, evaluate, permutations_for, strategy

ONE_ANSWER = (
    "single majority weighted_majority inverse_entropy_majority best_of_mean_logprob best_of_mean_entropy best_of_self_certainty "
    "best_of_lowest_window best_of_tail_confidence best_of_majority calibrated_best_of oracle majority_of_best_of"
).split()
N = st.integers(2, 6)


def random_pool(rng, n_problems, k, ties=True):
    codes = np.where(rng.random((n_problems, k)) < rng.random((n_problems, 1)), 0, rng.integers(1, 4, (n_problems, k)))
    codes[rng.random(codes.shape) < 0.15] = NO_ANSWER
    digits = 0 if ties else 9
    scores = {name: np.round(rng.normal(size=codes.shape), digits) for name in (*SCORES, CALIBRATED)}
    scores["mean_entropy"] = np.abs(scores["mean_entropy"])
    return Pool(codes, scores, rng.integers(0, 2, n_problems).astype(float))


def chosen(name, codes, columns=None, branches=1):
    rule = strategy(name, branches)
    columns = {k: np.array([v], dtype=float) for k, v in (columns or {}).items()}
    return rule.choose(np.array([codes]), columns)[0].tolist()


@pytest.mark.parametrize(
    ("codes", "share"),
    [
        ([0, 0, 1], [1 / 2, 1 / 2, 0]),  # two chains give the one answer
        ([0, 1], [1 / 2, 1 / 2]),
        ([0, 0, 1, 1, 2], [1 / 4, 1 / 4, 1 / 4, 1 / 4, 0]),
        ([NO_ANSWER, NO_ANSWER, 0], [0, 0, 1]),  # silent chains never win
        ([NO_ANSWER, NO_ANSWER], [0, 0]),  # unless all are: then there is no answer
        ([NO_ANSWER, 1, 0], [0, 1 / 2, 1 / 2]),
    ],
)
def test_majority(codes, share):
    assert chosen("majority", codes) == pytest.approx(share)


def test_weighted_votes_follow_their_weights():
    log = np.log([0.2, 0.3, 0.6])
    assert chosen("weighted_majority", [1, 1, 0], {"mean_logprob": log}) == [0, 0, 1]  # 0.5 against 0.6
    log = np.log([0.3, 0.4, 0.6])
    assert chosen("weighted_majority", [1, 1, 0], {"mean_logprob": log}) == [0.5, 0.5, 0]
    assert chosen("inverse_entropy_majority", [1, 1, 0], {"mean_entropy": [1.0, 1.0, 0.4]}) == [0, 0, 1]  # 2 against 2.5
    assert chosen("inverse_entropy_majority", [1, 1, 0], {"mean_entropy": [1.0, 1.0, 0.0]}) == [0, 0, 1]  # certain, not infinite
    nan = float("nan")
    assert chosen("weighted_majority", [NO_ANSWER, 1, 0], {"mean_logprob": [nan, -1.0, -2.0]}) == [0, 1, 0]


def test_best_of_takes_the_highest_score_and_the_lowest_entropy():
    assert chosen("best_of_self_certainty", [1, 0, NO_ANSWER], {"self_certainty": [1.0, 2.0, 9.0]}) == [0, 1, 0]
    assert chosen("best_of_mean_entropy", [1, 0, 0], {"mean_entropy": [1.0, 2.0, 1.0]}) == [0.5, 0, 0.5]


def test_best_of_majority_keeps_frequent_answers_only():
    log = [-0.1, -2.0, -3.0, -4.0, -5.0]
    assert chosen("best_of_majority", [5, 0, 0, 1, 1], {"mean_logprob": log}) == [0, 1, 0, 0, 0]  # one vote of five is too few
    assert chosen("best_of_majority", [5, 0, 0, 1], {"mean_logprob": log[:4]}) == [1, 0, 0, 0]  # one of four is enough
    assert chosen("best_of_majority", [5, 1, 2, 3, 4], {"mean_logprob": log}) == [1, 0, 0, 0, 0]  # nobody is frequent: all count


def test_round_robin_submits_the_largest_clusters():
    assert chosen("round_robin_2", [0, 0, 1, 1, 2]) == pytest.approx([0.5, 0.5, 0.5, 0.5, 0])
    assert chosen("round_robin_2", [0, 0, 1, 2]) == pytest.approx([0.5, 0.5, 0.5, 0.5])  # one place for two equal clusters
    assert chosen("round_robin_3", [0, NO_ANSWER, 1]) == pytest.approx([1, 0, 1])  # fewer clusters than places
    assert chosen("round_robin_1", [0, 0, 1]) == pytest.approx(chosen("majority", [0, 0, 1]))


def test_oracle_finds_the_right_answer():
    assert chosen("oracle", [1, 0, 2, 0]) == [0, 0.5, 0, 0.5]
    assert chosen("oracle", [1, NO_ANSWER]) == [1, 0]


def test_vote_over_the_best_of_each_group():
    log = [-1.0, -2.0, -2.0, -1.0, -1.0, -3.0]
    assert chosen("majority_of_best_of", [0, 1, 1, 0, 2, 2], {"mean_logprob": log}, 2) == pytest.approx([0.5, 0, 0, 0.5, 0, 0])
    silent = [NO_ANSWER, 1, 0, NO_ANSWER]
    assert chosen("majority_of_best_of", silent, {"mean_logprob": [0.0, -9, -9, 0]}, 2) == pytest.approx([0, 0.5, 0.5, 0])


@pytest.mark.parametrize("name", ONE_ANSWER)
def test_probabilities_of_a_draw_sum_to_one_answer(name):
    pool = random_pool(np.random.default_rng(0), 300, 6)
    share = strategy(name, 2).choose(pool.codes, pool.scores)
    silent = (pool.codes == NO_ANSWER).all(axis=1)
    assert (share >= 0).all()
    assert (share[pool.codes == NO_ANSWER] == 0).all()
    np.testing.assert_allclose(share.sum(axis=1), ~silent, atol=1e-12)


@given(N, st.integers(0, 10_000))
def test_closed_forms_equal_the_rule_over_all_subsets(k_pool, seed):
    pool = random_pool(np.random.default_rng(seed), 3, k_pool)
    for name in ("majority", "oracle", CALIBRATED + "_best_of", *(f"best_of_{s}" for s in SCORES)):
        rule = strategy(name)
        for k in range(1, k_pool + 1):
            index = np.array(list(itertools.combinations(range(k_pool), k)))
            exact = evaluate(rule, pool, [k], np.arange(k_pool)[None])[0].accuracy
            for r in range(3):
                share = rule.choose(pool.codes[r][index], {c: pool.scores[c][r][index] for c in rule.needs})
                expected = (share * (pool.codes[r][index] == 0)).sum(axis=1).mean()
                assert exact[r] == pytest.approx(expected, abs=1e-9), (name, k)


def test_all_permutations_give_the_average_over_all_draws():
    """With every order of four chains the cuts are an enumeration, for a rule without a closed form."""
    pool = random_pool(np.random.default_rng(5), 6, 4, ties=False)
    every = np.array(list(itertools.permutations(range(4))))
    outcome = evaluate(strategy("majority_of_best_of", 2), pool, [4], every)[0]
    score = pool.scores["mean_logprob"]
    for r in range(6):
        total = 0.0
        for order in every:
            winners = []
            for group in (order[:2], order[2:]):
                valid = [i for i in group if pool.codes[r][i] != NO_ANSWER]
                winners += [pool.codes[r][max(valid, key=lambda i: score[r][i])]] if valid else []
            tops = [c for c in set(winners) if winners.count(c) == max(winners.count(x) for x in winners)]
            total += (0 in tops) / len(tops) if tops else 0.0
        assert outcome.accuracy[r] == pytest.approx(total / len(every))


def test_cuts_meet_the_closed_forms_of_vote_and_best():
    pool = random_pool(np.random.default_rng(3), 200, 12)
    permutations = permutations_for(12, 400, 1)
    for k in (2, 3, 4, 6):
        for composite, plain in (
            (strategy("majority_of_best_of", 1), "majority"),
            (strategy("majority_of_best_of", k), "best_of_mean_logprob"),
        ):
            cut = evaluate(composite, pool, [k], permutations)[0]
            exact = evaluate(strategy(plain), pool, [k], permutations)[0]
            assert abs(cut.accuracy.mean() - exact.accuracy.mean()) < 4 * np.sqrt((cut.monte_carlo**2).sum()) / 200 + 1e-12
            # the two estimates of the sampling variance: jackknife, and projection from cuts
            assert cut.sampling_variance.sum() == pytest.approx(exact.sampling_variance.sum(), rel=0.15)


def test_changed_is_the_chance_to_differ_from_one_chain():
    pool = Pool(np.array([[0, 0, 0, 1]]))
    every = np.array(list(itertools.permutations(range(4))))
    rule = strategy("round_robin_1")  # the plain vote, from cuts
    assert evaluate(rule, pool, [1], every)[0].changed[0] == 0
    assert evaluate(rule, pool, [2], every)[0].changed[0] == pytest.approx(0.25)  # ties in half of the pairs, then a coin
    assert evaluate(rule, pool, [4], every)[0].changed[0] == pytest.approx(0.25)  # the vote is 0, one chain in four is not
    silent = Pool(np.full((1, 4), NO_ANSWER))
    assert evaluate(rule, silent, [4], every)[0].changed[0] == 0


def test_fewer_permutations_are_the_first_of_more():
    assert np.array_equal(permutations_for(7, 3, 9), permutations_for(7, 10, 9)[:3])
    assert not np.array_equal(permutations_for(7, 3, 9), permutations_for(7, 3, 10))


def test_calibrated_scores_find_the_column_that_tells():
    rng = np.random.default_rng(8)
    train, new = (random_pool(rng, 150, 8, ties=False) for _ in range(2))
    signal = {"mean_logprob": 3, "tail_confidence": 0}
    made = []
    for pool in (train, new):
        scores = {name: rng.normal(size=pool.codes.shape) + weight * pool.correct for name, weight in signal.items()}
        made.append(Pool(pool.codes, scores))
    p = calibrated_scores(*made)
    answered = made[1].codes != NO_ANSWER
    right, wrong = p[answered & made[1].correct], p[answered & ~made[1].correct]
    assert np.mean(right) > 0.8
    assert np.mean(wrong) < 0.2
    assert p[answered].mean() == pytest.approx(made[1].correct[answered].mean(), abs=0.05)  # calibrated, not only ranked
    with pytest.raises(InputError, match="no confidence column"):
        calibrated_scores(Pool(train.codes), new)


def test_refusals_name_the_strategy_and_the_column():
    pool = Pool(np.array([[0, 1]]), {"mean_logprob": np.array([[-1.0, np.nan]])})
    with pytest.raises(InputError, match=r"here: best_of_self_certainty needs self_certainty, which is not there"):
        check(strategy("best_of_self_certainty"), pool, "here")
    with pytest.raises(InputError, match=r"weighted_majority needs mean_logprob, which is missing for some"):
        check(strategy("weighted_majority"), pool, "here")
    with pytest.raises(InputError, match=r"needs calibrated.*calibration split"):
        check(strategy("calibrated_best_of"), pool, "here")
    for name in ("best_of_luck", "round_robin_0", "round_robin_", ""):
        with pytest.raises(InputError, match="unknown; choose from greedy, single, majority"):
            strategy(name)
    for k in (0, 3):
        with pytest.raises(ValueError, match="between 1 and the pool's size"):
            evaluate(strategy("majority"), pool, [k], np.array([[0, 1]]))
