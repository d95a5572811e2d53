"""Per-sample randomness and the draw from a distribution."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from flopstat.randomness import inverse_cdf, truncated_probabilities, uniforms, variant

GOLDEN = {
    "0": [0.6984517146643918, 0.8519924553741076, 0.9064878858977752],
    "7": [0.053656218414125045, 0.47713702546085823, 0.9587373687860744],
}
ALMOST_ONE = float(np.nextafter(1.0, 0.0))


def test_golden_uniforms():
    """Written down once: a change here changes every sample of every study."""
    assert uniforms(20261121, "0123456789abcdef", 0, 3).tolist() == GOLDEN["0"]
    assert uniforms(20261121, "0123456789abcdef", 7, 3).tolist() == GOLDEN["7"]


def test_streams_do_not_depend_on_their_length_and_differ_by_key():
    long = uniforms(1, "p", 0, 1000)
    assert (uniforms(1, "p", 0, 10) == long[:10]).all()
    assert ((long >= 0) & (long < 1)).all()
    others = [uniforms(2, "p", 0, 1000), uniforms(1, "q", 0, 1000), uniforms(1, "p", 1, 1000), uniforms(1, "p", 10, 1000)]
    for other in others:
        assert abs(np.corrcoef(long, other)[0, 1]) < 0.12
    assert uniforms(1, "p\0001", 2, 1)[0] != uniforms(1, "p", 12, 1)[0]


@given(st.integers(0, 2**32), st.integers(2, 60), st.floats(0, 0.9))
def test_inverse_cdf_is_searchsorted(seed, size, zeros):
    rng = np.random.default_rng(seed)
    p = rng.exponential(size=(8, size)) * (rng.random((8, size)) >= zeros)
    p[:, rng.integers(size)] += 0.5
    u = rng.random(8)
    ids, margin = inverse_cdf(torch.from_numpy(p), torch.from_numpy(u))
    for row in range(8):
        cdf = np.cumsum(p[row])
        expected = np.searchsorted(cdf, u[row] * cdf[-1], side="right")
        assert ids[row] == expected
        assert p[row, expected] > 0
        distances = np.abs(np.concatenate([[0.0], cdf])[[expected, expected + 1]] / cdf[-1] - u[row])
        assert margin[row] == pytest.approx(distances.min(), abs=1e-12)


@pytest.mark.parametrize("u", [0.0, 5e-324, 1e-17, 0.5, 1 - 1e-12, ALMOST_ONE])
def test_zero_probability_is_never_drawn(u):
    rows = [[0, 0.3, 0, 0.7, 0], [0, 0, 1, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 1e-300, 0, 1e-300, 0], [0.1] * 3 + [0, 0]]
    p = torch.tensor(rows, dtype=torch.float64)
    ids, _ = inverse_cdf(p, torch.full((len(rows),), u, dtype=torch.float64))
    assert (p.gather(1, ids[:, None]) > 0).all()
    if u < 1e-6:
        assert ids.tolist() == [1, 2, 0, 4, 1, 0]
    if u > 0.99:
        assert ids.tolist() == [3, 2, 0, 4, 3, 2]


def reference(logits, temperature, top_p, top_k, min_p=0.0):
    """The truncated distribution, one token at a time."""
    z = np.exp((logits - logits.max()) / temperature)
    p = z / z.sum()
    ranked = sorted(range(len(p)), key=lambda i: (-p[i], i))[: top_k or len(p)]
    total, kept, mass = p[ranked].sum(), np.zeros_like(p), 0.0
    for i in ranked:
        if mass >= top_p * total:
            break
        kept[i] = p[i] if p[i] >= min_p * p.max() else 0.0
        mass += p[i]
    return kept


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
@pytest.mark.parametrize(
    ("top_p", "top_k", "min_p"),
    [(1, 0, 0), (0.8, 0, 0), (1, 3, 0), (0.9, 4, 0), (1e-9, 0, 0), (1, 1, 0), (0.5, 500, 0), (1, 0, 0.1), (0.9, 6, 0.3), (1, 0, 1.0)],
)
def test_truncation_equals_the_definition(temperature, top_p, top_k, min_p):
    logits = np.random.default_rng(1).normal(size=(20, 30)) * 2
    got = truncated_probabilities(torch.from_numpy(logits), temperature, top_p, top_k, min_p).numpy()
    for row in range(20):
        np.testing.assert_allclose(got[row], reference(logits[row], temperature, top_p, top_k, min_p), atol=1e-12)
        assert (got[row] > 0).any()


def test_ties_keep_the_smaller_id():
    flat = torch.zeros(1, 4)
    assert (truncated_probabilities(flat, 1.0, 1.0, 2) > 0).tolist() == [[True, True, False, False]]
    assert (truncated_probabilities(flat, 1.0, 0.5, 0) > 0).tolist() == [[True, True, False, False]]
    assert (truncated_probabilities(flat, 1.0, 0.51, 0) > 0).tolist() == [[True, True, True, False]]


@pytest.mark.parametrize(("top_p", "top_k"), [(1.0, 0), (0.85, 0), (1.0, 5)])
def test_hundred_thousand_draws_follow_the_distribution(top_p, top_k):
    n = 100_000
    logits = np.random.default_rng(2).normal(size=12) * 1.5
    exact = reference(logits, 0.9, top_p, top_k)
    p = truncated_probabilities(torch.from_numpy(logits)[None], 0.9, top_p, top_k)
    u = torch.from_numpy(uniforms(3, "chi", 0, n))
    ids, _ = inverse_cdf(p.expand(n, -1), u)
    counts = np.bincount(ids.numpy(), minlength=12)
    assert (counts[exact == 0] == 0).all()
    there = exact > 0
    assert chisquare(counts[there], n * exact[there] / exact.sum()).pvalue > 1e-3


def test_forced_answers_and_variants_have_streams_of_their_own():
    chain = uniforms(3, "p", 0, 8)
    assert not np.isin(uniforms(3, "p", 0, 8, budget=16), chain).any()
    assert not np.isin(uniforms(3, "p", 0, 8, budget=32), uniforms(3, "p", 0, 8, budget=16)).any()
    picked = np.array([[variant(5, f"p{p}", i, [1, 3]) for i in range(50)] for p in range(80)])
    assert chisquare(np.bincount(picked.ravel()), 4000 * np.array([0.25, 0.75])).pvalue > 1e-3
    assert (np.corrcoef(picked[:, :4].T)[np.triu_indices(4, 1)] < 0.4).all()  # independent from sample to sample
    assert {variant(5, "p", i, [2.0]) for i in range(20)} == {0}
