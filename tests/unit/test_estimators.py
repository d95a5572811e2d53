"""Estimators against brute-force enumeration of all subsets, with ties and chains without an answer."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopstat.estimators import (
    NO_ANSWER,
    best_of_k,
    best_of_k_variance,
    majority_at_all_k,
    majority_variance,
    pass_at_k,
    pass_at_k_variance,
)

CODES = st.lists(st.integers(NO_ANSWER, 3), min_size=1, max_size=10)
SCORES = st.lists(st.sampled_from([-np.inf, -2.0, -1.0, 0.0]), min_size=10, max_size=10)


def subsets(n, k):
    return list(itertools.combinations(range(n), k))


def vote(codes, gold=0):
    """Chance that the plurality is gold, ties uniform, chains without an answer silent."""
    counts = {c: codes.count(c) for c in codes if c != NO_ANSWER}
    tops = [c for c, n in counts.items() if n == max(counts.values())]
    return (gold in tops) / len(tops) if tops else 0.0


def best(correct, score, subset):
    top = max(score[i] for i in subset)
    winners = [i for i in subset if score[i] == top]
    return sum(correct[i] for i in winners) / len(winners)


@given(st.lists(st.booleans(), min_size=1, max_size=10))
def test_pass_at_k(correct):
    n = len(correct)
    for k in range(1, n + 1):
        expected = np.mean([any(correct[i] for i in s) for s in subsets(n, k)])
        assert pass_at_k(np.array([correct]), k)[0] == pytest.approx(expected, abs=1e-12)
    assert pass_at_k(np.array([correct]), 1)[0] == pytest.approx(np.mean(correct))


@given(CODES)
def test_majority(codes):
    n = len(codes)
    got = majority_at_all_k(np.array([codes]), np.array([0]))[0]
    for k in range(1, n + 1):
        expected = np.mean([vote([codes[i] for i in s]) for s in subsets(n, k)])
        assert got[k - 1] == pytest.approx(expected, abs=1e-12)
    assert majority_at_all_k(np.array([codes]), np.array([0]), 1)[0, 0] == pytest.approx(codes.count(0) / n)


@given(st.lists(st.booleans(), min_size=1, max_size=10), SCORES)
def test_best_of(correct, score):
    n = len(correct)
    for k in range(1, n + 1):
        expected = np.mean([best(correct, score, s) for s in subsets(n, k)])
        assert best_of_k(np.array([correct]), np.array([score[:n]]), k)[0] == pytest.approx(expected, abs=1e-10)


@pytest.fixture(scope="module")
def pool():
    """200 problems × 12 samples, with ties in the scores and some chains without an answer (score -inf)."""
    rng = np.random.default_rng(3)
    codes = np.where(rng.random((200, 12)) < rng.random((200, 1)), 0, rng.integers(1, 5, (200, 12)))
    codes[rng.random(codes.shape) < 0.1] = NO_ANSWER
    score = np.where(codes == NO_ANSWER, -np.inf, np.round(rng.normal(size=codes.shape), 1))
    return codes, np.zeros(200, dtype=int), score


def test_pass_at_1_is_flat_and_estimates_are_unbiased(pool):
    """The average over all smaller pools is the estimate of the whole pool, for every k (U-statistics)."""
    codes, gold, score = pool
    correct = codes == 0
    left_out = [[i for i in range(12) if i != out] for out in range(12)]
    for estimate in (
        lambda idx: np.column_stack([pass_at_k(correct[:, idx], k) for k in range(1, 12)]),
        lambda idx: np.column_stack([best_of_k(correct[:, idx], score[:, idx], k) for k in range(1, 12)]),
        lambda idx: majority_at_all_k(codes[:, idx], gold, 11),
    ):
        whole = estimate(list(range(12)))
        np.testing.assert_allclose(np.mean([estimate(idx) for idx in left_out], axis=0), whole, atol=1e-10)
        np.testing.assert_allclose(whole[:, 0], correct.mean(axis=1), atol=1e-12)


def test_a_vote_of_two_is_one_sample_without_no_answers(pool):
    codes, gold, _ = pool
    full = (codes != NO_ANSWER).all(axis=1)
    assert 20 < full.sum() < 200
    curve = majority_at_all_k(codes, gold, 2)
    np.testing.assert_allclose(curve[full, 1], curve[full, 0], atol=1e-12)
    assert (curve[:, 1] >= curve[:, 0] - 1e-12).all()  # a silent chain leaves the vote to the other


@pytest.mark.parametrize("k", [0, -1, 13])
def test_k_outside_the_pool_is_refused(pool, k):
    codes, gold, score = pool
    for call in (
        lambda: pass_at_k(codes == 0, k),
        lambda: best_of_k(codes == 0, score, k),
        lambda: majority_at_all_k(codes, gold, k),
    ):
        with pytest.raises(ValueError, match=r"between 1 and the pool's size"):
            call()


def test_pools_of_a_thousand_are_finite_and_right():
    rng = np.random.default_rng(0)
    codes = rng.choice([0, 1, 2, NO_ANSWER], p=[0.4, 0.35, 0.2, 0.05], size=(3, 1000))
    codes[2] = NO_ANSWER
    gold = np.zeros(3, dtype=int)
    curve = majority_at_all_k(codes, gold, 40)
    assert np.isfinite(curve).all()
    assert (curve[2] == 0).all()
    draws = np.array([rng.permutation(1000)[:33] for _ in range(4000)])
    votes = codes[0][draws]
    right, others = (votes == 0).sum(axis=1), np.max([(votes == c).sum(axis=1) for c in (1, 2)], axis=0)
    expected = (right > others) + (right == others) / 2  # three equal tops are too rare to matter
    assert curve[0, 32] == pytest.approx(expected.mean(), abs=5 * expected.std() / np.sqrt(4000))
    correct, score = codes == 0, rng.normal(size=(3, 1000))
    for k in (1, 500, 999, 1000):
        assert np.isfinite(pass_at_k(correct, k)).all()
        assert np.isfinite(best_of_k(correct, score, k)).all()
    assert pass_at_k(correct, 1)[0] == pytest.approx(correct[0].mean())
    top = best_of_k(correct, score, 1000)
    np.testing.assert_allclose(top, correct[np.arange(3), score.argmax(axis=1)], atol=1e-9)


@given(CODES.filter(lambda codes: len(codes) > 1), SCORES)
def test_jackknife_variances_equal_leaving_out_each_sample(codes, score):
    """(n-1)/n · sum of squares of the n leave-one-out estimates, computed one by one."""
    n = len(codes)
    codes, gold = np.array([codes]), np.array([0])
    score = np.array([score[:n]])
    left = [[i for i in range(n) if i != out] for out in range(n)]

    def jackknife(estimate):
        values = np.array([estimate(idx)[0] for idx in left])
        return (n - 1) / n * ((values - values.mean()) ** 2).sum()

    for k in range(1, n):
        expected = jackknife(lambda idx, k=k: majority_at_all_k(codes[:, idx], gold, k)[:, -1])
        assert majority_variance(codes, gold, [k])[0, 0] == pytest.approx(expected, abs=1e-12)
        expected = jackknife(lambda idx, k=k: best_of_k(codes[:, idx] == 0, score[:, idx], k))
        assert best_of_k_variance(codes == 0, score, k)[0] == pytest.approx(expected, abs=1e-12)
        expected = jackknife(lambda idx, k=k: pass_at_k(codes[:, idx] == 0, k))
        assert pass_at_k_variance(codes == 0, k)[0] == pytest.approx(expected, abs=1e-12)


@given(CODES, st.randoms(use_true_random=False))
def test_invariants(codes, random):
    """Order of samples and names of the wrong answers do not matter; pass@k rises with k and bounds the vote of k."""
    n = len(codes)
    shuffled = random.sample(codes, n)
    renamed = [{1: 7, 2: 5, 3: 9}.get(c, c) for c in shuffled]
    gold = np.array([0])
    first, second = (majority_at_all_k(np.array([c]), gold)[0] for c in (codes, renamed))
    np.testing.assert_allclose(first, second, atol=1e-12)
    coverage = np.array([pass_at_k(np.array([codes]) == 0, k)[0] for k in range(1, n + 1)])
    assert (np.diff(coverage) >= -1e-12).all()
    assert (first <= coverage + 1e-12).all()
    assert coverage[-1] == float(0 in codes)


def test_variance_at_the_whole_pool_is_refused(pool):
    codes, gold, score = pool
    for call in (
        lambda: majority_variance(codes, gold, [4, 12]),
        lambda: best_of_k_variance(codes == 0, score, 12),
        lambda: pass_at_k_variance(codes == 0, 12),
    ):
        with pytest.raises(ValueError, match=r"between 1 and the pool's size"):
            call()
