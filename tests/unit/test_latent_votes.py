"""Exact vote statistics of the latent model, against enumeration and against the estimators of pools."""

import itertools
import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import beta as beta_distribution

from flopstat.estimators import best_of_k, majority_at_all_k
from flopstat.latent_votes import best_of, beta_nodes, vote, win_table
from flopstat.surface_types import Points, _groups, _latent_votes


def partitions(n, most=None):
    """All partitions of n as falling tuples."""
    if n == 0:
        yield ()
        return
    for first in range(min(n, most or n), 0, -1):
        for rest in partitions(n - first, first):
            yield (first, *rest)


def ewens(partition, theta):
    """Probability of a partition under Ewens' formula."""
    n = sum(partition)
    value = math.factorial(n) / math.prod(theta + i for i in range(n))
    for size in set(partition):
        a = partition.count(size)
        value *= theta**a / (size**a * math.factorial(a))
    return value


@pytest.mark.parametrize("theta", [0.05, 0.7, 1.0, 12.0])
def test_the_win_table_equals_the_sum_over_all_partitions(theta):
    table = win_table(theta, 8)
    for j, w in itertools.product(range(1, 9), range(9)):
        expected = 0.0
        for partition in partitions(w):
            top = max(partition, default=0)
            expected += ewens(partition, theta) * (top < j) + ewens(partition, theta) * (top == j) / (1 + partition.count(j))
        assert table[j, w] == pytest.approx(expected, abs=1e-12)
    assert (table[0] == 0).all()


def test_alike_wrong_answers_make_a_two_way_vote_and_different_ones_lose_to_any_pair():
    alike, different = win_table(1e-9, 6), win_table(1e9, 6)
    assert alike[2, 3] == pytest.approx(0, abs=1e-6)
    assert alike[3, 3] == pytest.approx(0.5, abs=1e-6)
    assert different[2, 4] == pytest.approx(1, abs=1e-6)
    assert different[1, 4] == pytest.approx(1 / 5, abs=1e-6)


def test_a_vote_equals_the_sum_over_all_outcomes():
    """Three kinds of chain: right, wrong (all wrong ones alike), silent; 4 chains, 81 outcomes."""
    p, s = 0.45, 0.2
    chances = (p, (1 - p) * (1 - s), (1 - p) * s)
    expected = 0.0
    for outcome in itertools.product(range(3), repeat=4):
        right, wrong = outcome.count(0), outcome.count(1)
        if right and right >= wrong:
            expected += math.prod(chances[o] for o in outcome) * (0.5 if right == wrong else 1.0)
    got = vote(np.array([p]), np.array([chances[2]]), 4, win_table(1e-12, 4))
    assert got[0] == pytest.approx(expected, abs=1e-9)


def test_the_best_of_b_equals_simulated_scores():
    rng = np.random.default_rng(0)
    p, s, odds, b, draws = 0.3, 0.25, 2.5, 4, 400_000
    right = rng.random((draws, b)) < p
    silent = ~right & (rng.random((draws, b)) < s)
    score = np.log(rng.random((draws, b))) / np.where(right, odds, 1.0)  # right ones: the largest of `odds` wrong ones
    score[silent] = -np.inf
    best = score.argmax(axis=1)
    hit = right[np.arange(draws), best].mean()
    got, quiet = best_of(np.array([p]), np.array([s]), odds, b)
    assert got[0] == pytest.approx(hit, abs=0.003)
    assert quiet[0] == pytest.approx(((1 - p) * s) ** b, rel=1e-12)
    pair = score[right][:50_000], score[~right & ~silent][:50_000]
    auc = (rng.permutation(pair[0]) > rng.permutation(pair[1])).mean()
    assert auc == pytest.approx(odds / (1 + odds), abs=0.006)


@pytest.mark.parametrize(("mean", "spread"), [(0.02, 0.5), (0.5, 1.0), (0.5, 2.0), (0.9, 0.3), (0.3, 40.0)])
def test_the_nodes_integrate_powers_of_a_beta_variable_exactly(mean, spread):
    nodes, weights = beta_nodes(np.array([mean]), np.array([spread]))
    a = mean * spread
    for power in (0, 1, 2, 16, 32):
        expected = math.prod((a + i) / (spread + i) for i in range(power))
        assert (weights * nodes**power).sum() == pytest.approx(expected, rel=1e-9)


def test_the_latent_accuracy_equals_numerical_integration_and_pools_drawn_from_it():
    mean, spread, silent, theta, odds = 0.4, 1.5, 0.3, 2.0, 3.0
    wins = win_table(theta, 8)

    def at(p, votes, branches):
        right, quiet = best_of(np.array([p]), np.array([silent]), odds, branches)
        return float(vote(right, quiet, votes, wins)[0])

    def latent(votes, branches):
        cell = Points(np.array([1e5]), np.array([64.0]), np.array([votes]), np.array([branches]), np.array([16.0]))
        rule = beta_nodes(np.array([mean]), np.array([spread]))
        return _latent_votes(rule, np.array([silent]), wins, math.log(odds), _groups(cell))[0]

    density = beta_distribution(mean * spread, (1 - mean) * spread).pdf
    for votes, branches in ((1, 1), (4, 1), (8, 1), (1, 4), (4, 2)):
        expected = quad(lambda p, v=votes, b=branches: at(p, v, b) * density(p), 0, 1, limit=400)[0]
        assert latent(votes, branches) == pytest.approx(expected, abs=1e-6)

    rng = np.random.default_rng(1)
    problems, k = 20_000, 8
    p = rng.beta(mean * spread, (1 - mean) * spread, size=(problems, 1))
    right = rng.random((problems, k)) < p
    quiet = ~right & (rng.random((problems, k)) < silent)
    codes = np.zeros((problems, k), dtype=np.int64)
    fresh = np.zeros((problems, k), dtype=bool)
    for i in range(k):  # Chinese restaurant: a new wrong answer with θ / (θ + wrong ones so far), else a copy of an earlier one
        wrong = ~right[:, i] & ~quiet[:, i]
        before = (codes[:, :i] > 0).sum(axis=1)
        fresh[:, i] = rng.random(problems) < theta / (theta + before)
        for row in np.flatnonzero(wrong):
            earlier = codes[row, :i][codes[row, :i] > 0]
            codes[row, i] = i + 1 if fresh[row, i] or not earlier.size else rng.choice(earlier)
    codes[quiet] = -1
    votes = majority_at_all_k(codes, np.zeros(problems, dtype=np.int64)).mean(axis=0)
    for number in (1, 2, 4, 8):
        assert latent(number, 1) == pytest.approx(votes[number - 1], abs=0.01)
    score = np.where(quiet, -np.inf, np.log(rng.random((problems, k))) / np.where(right, odds, 1.0))
    assert latent(1, 4) == pytest.approx(best_of_k(right, score, 4).mean(), abs=0.01)
