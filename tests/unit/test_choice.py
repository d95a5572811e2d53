"""The engine's draw: what the plain definitions give, whatever the size of the vocabulary, the truncation and the chunks."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from flopstat import choice
from flopstat.choice import choose
from flopstat.randomness import inverse_cdf, truncated_probabilities, uniforms

TRUNCATIONS = [
    (1.0, 0, 0.0),
    (0.8, 0, 0.0),
    (0.999, 0, 0.0),
    (1.0, 7, 0.0),
    (0.9, 40, 0.0),
    (1.0, 0, 0.05),
    (0.95, 100, 0.01),
    (1.0, 10**6, 0.0),
]


def draw(logits, u, temperature=1.0, top_p=1.0, top_k=0, min_p=0.0, greedy=False):
    rows = len(logits)
    return choose(
        logits, torch.as_tensor(u), torch.full((rows,), temperature, dtype=torch.float64), torch.full((rows,), greedy), top_p, top_k, min_p
    )


@pytest.mark.parametrize(("top_p", "top_k", "min_p"), TRUNCATIONS)
@pytest.mark.parametrize("vocabulary", [1, 3, 69, 255, 256, 257, 5000, 49152])
def test_tokens_and_margins_equal_the_definition(vocabulary, top_p, top_k, min_p):
    rng = np.random.default_rng(vocabulary)
    logits = torch.from_numpy(rng.normal(size=(24, vocabulary)) * rng.uniform(0.1, 6, size=(24, 1)))  # from flat to peaked
    u = torch.from_numpy(np.concatenate([rng.random(21), [0.0, np.nextafter(1, 0), 0.5]]))
    p = truncated_probabilities(logits, 0.7, top_p, top_k, min_p)
    ids, margin = inverse_cdf(p, u)
    step = draw(logits, u, 0.7, top_p, top_k, min_p)
    assert step.tokens.tolist() == ids.tolist()
    np.testing.assert_allclose(step.margin, margin, atol=1e-12)
    assert (p.gather(1, step.tokens[:, None]) > 0).all()


@given(st.integers(0, 10**9), st.integers(1, 600), st.sampled_from(TRUNCATIONS), st.booleans())
def test_tokens_equal_the_definition_with_ties_and_masked_tokens(seed, vocabulary, truncation, half):
    """Rounded logits have many ties; minus infinity marks tokens that a model never gives."""
    rng = np.random.default_rng(seed)
    z = np.round(rng.normal(size=(5, vocabulary)) * 3) / 2
    z[rng.random(z.shape) < 0.3] = -np.inf
    z[:, rng.integers(vocabulary)] = 1.5
    logits = torch.from_numpy(z).to(torch.bfloat16 if half else torch.float64)
    u = torch.from_numpy(rng.random(5))
    p = truncated_probabilities(logits.double(), 1.3, *truncation)
    ids, margin = inverse_cdf(p, u)
    step = draw(logits, u, 1.3, *truncation)
    clear = margin > 1e-6  # bfloat16 is widened to float32
    assert (step.tokens[clear] == ids[clear]).all()
    assert (p.gather(1, step.tokens[:, None]) > 0).all()


def test_values_equal_their_formulas():
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(6, 3000)) * 3)
    step = draw(logits, np.linspace(0, 0.99, 6), temperature=0.5)
    log_p = torch.log_softmax(logits, -1)
    expected = torch.stack(
        [
            log_p.gather(1, step.tokens[:, None]).squeeze(1),
            -(log_p.exp() * log_p).sum(-1),
            -log_p.mean(-1) - np.log(3000),
            -log_p.sort(dim=-1, descending=True).values[:, :20].mean(-1),
        ]
    )
    torch.testing.assert_close(step.values.double(), expected, rtol=1e-5, atol=1e-5)


def test_greedy_rows_take_the_first_of_the_largest():
    logits = torch.zeros(2, 600)
    logits[1, [17, 400]] = 5.0
    step = draw(logits, [0.9, 0.9], greedy=True)
    assert step.tokens.tolist() == [0, 17]
    assert step.margin.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_row_that_is_not_finite_is_marked_and_its_neighbours_are_not(bad):
    logits = torch.from_numpy(np.random.default_rng(1).normal(size=(3, 700)))
    good = draw(logits, [0.2, 0.5, 0.8])
    logits[1, 333] = bad
    step = draw(logits, [0.2, 0.5, 0.8])
    assert step.tokens[1] == -1
    assert step.tokens[[0, 2]].tolist() == good.tokens[[0, 2]].tolist()
    masked = torch.full((1, 700), float("-inf"))
    assert draw(masked, [0.5]).tokens.tolist() == [-1]


def test_chunks_change_nothing(monkeypatch):
    logits = torch.from_numpy(np.random.default_rng(2).normal(size=(50, 400))).float()
    u = np.random.default_rng(3).random(50)
    whole = draw(logits, u, 0.9, 0.9)
    monkeypatch.setattr(choice, "CHUNK", 1200)
    parts = draw(logits, u, 0.9, 0.9)
    assert torch.equal(whole.tokens, parts.tokens)
    torch.testing.assert_close(whole.values, parts.values)


@pytest.mark.parametrize(("temperature", "top_p", "top_k", "min_p"), [(1.0, 1.0, 0, 0.0), (0.7, 0.9, 0, 0.0), (1.4, 0.95, 50, 0.02)])
def test_hundred_thousand_draws_follow_the_exact_distribution(temperature, top_p, top_k, min_p):
    """Chi-square over all tokens with an expectation of at least 5; the rest are one class."""
    n = 100_000
    logits = torch.from_numpy(np.random.default_rng(4).normal(size=(1, 1000)) * 2)
    p = truncated_probabilities(logits, temperature, top_p, top_k, min_p)[0].numpy()
    p = p / p.sum()
    step = draw(logits.expand(n, -1).float(), uniforms(3, "chi", 0, n), temperature, top_p, top_k, min_p)
    counts = np.bincount(step.tokens.numpy(), minlength=1000)
    assert (counts[p == 0] == 0).all()
    often = n * p >= 5
    observed, expected = np.append(counts[often], counts[~often].sum()), np.append(n * p[often], n * p[~often].sum())
    used = expected > 0
    assert chisquare(observed[used], expected[used]).pvalue > 1e-3
