"""Costs: the closed form agrees with torch's counter and with the docstrings' worked cases."""

import numpy as np
import pytest

from flopstat.calibration import count_flops
from flopstat.costs import (
    Flops,
    c_counted,
    flops_nominal,
    flops_seed,
    flops_verifier,
    kv_bytes,
    kv_bytes_per_token,
    memory_bytes,
    weight_bytes,
    weight_bytes_read,
)
from flopstat.models import describe
from flopstat.shape import Shape

SHAPES = {
    "tied, grouped queries": {},
    "untied": {"tie_word_embeddings": False},
    "one head a query": {"num_key_value_heads": 4},
    "one key for all": {"num_key_value_heads": 1, "num_hidden_layers": 1},
    "wide": {"hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 3},
}


def shape(**given) -> Shape:
    default = {"n_params": 1000, "n_layers": 2, "hidden_size": 4, "n_heads": 1, "n_kv_heads": 1, "head_dim": 4, "intermediate_size": 6}
    return Shape(**({"vocab_size": 10, "tied": True} | default | given))


def test_worked_cases():
    flops = Flops(layer_weights=100, head_weights=10, attention=8)
    assert flops.decode(5, 3) == 544
    assert flops.decode(5, 1) == flops.decode(5, 0) == 0  # the first token comes from the prefill
    assert flops.prefill(5) == 1220
    assert flops.forward(5) == 2 * 110 * 5 + 8 * 25
    assert flops_seed(2, 100, 1000, 3) == 600_000
    assert flops_nominal(2, 2, 100, 10, 1000, 2) == 880_000
    assert flops_verifier(3, 1000, 50) == 300_000


def test_worked_cases_of_sliding_layers():
    assert Flops(100, 10, 4, 4, window=6).decode(5, 3) == 540
    assert Flops(100, 10, 8, 4, window=3).step(5) == 272
    assert Flops(100, 10, 4, 4, window=2).prefill(5) == 1220  # the full square: masked products are computed, too


def test_worked_bytes():
    assert weight_bytes(shape(), 4.5) == 562.5
    assert kv_bytes_per_token(shape(), 16) == 32
    assert kv_bytes(shape(sliding_window=3, n_sliding_layers=1), 5, 16) == 128
    assert memory_bytes(shape(), 8, 4, 5, 10, 16) == 2920
    assert memory_bytes(shape(), 8, np.array([1, 4]), 5, 10, 16).tolist() == [1000 + 15 * 32, 2920]
    experts = shape(n_moe_layers=1, n_experts=4, experts_per_token=2, moe_intermediate_size=25, gated=False, hidden_size=2)
    assert [weight_bytes_read(experts, 8, streams) for streams in (1, 2)] == [800, 900]
    assert weight_bytes_read(shape(tied=False), 8, 1) == 1000 - 40  # of the embedding only a row is read


@pytest.mark.parametrize(("prompt", "tokens"), [(1, 1), (7, 2), (40, 17)])
def test_decode_is_the_sum_of_its_passes(prompt, tokens):
    flops = Flops(100, 10, 8)
    by_hand = sum(2 * 110 + 8 * (prompt + t - 1) for t in range(2, tokens + 1))
    assert flops.decode(prompt, tokens) == by_hand
    sliding = Flops(100, 10, 8, 4, window=9)
    assert sliding.decode(prompt, tokens) == sum(float(sliding.step(prompt + t - 1)) for t in range(2, tokens + 1))
    assert flops.decode(np.array([prompt] * 2), np.array([tokens, 1])).tolist() == [by_hand, 0]


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("tokens", [1, 23])
def test_forward_equals_torchs_counter(saved_model, tmp_path, name, tokens):
    card = describe({"name": "m", "source": "local", "path": str(saved_model(**SHAPES[name]))}, tmp_path)
    assert Flops.of(card).forward(tokens) == count_flops(card, tokens)
    assert c_counted(card, tokens) == pytest.approx(count_flops(card, tokens) / (tokens * card.n_params))


def test_head_dimension_of_its_own(saved_model, tmp_path):
    folder = saved_model("Llama", head_dim=24)
    card = describe({"name": "m", "source": "local", "path": str(folder)}, tmp_path)
    assert card.head_dim == 24
    assert Flops.of(card).forward(9) == count_flops(card, 9)


def test_a_model_with_experts_is_counted_in_closed_form(saved_model, tmp_path):
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "shared_expert_intermediate_size": 40}
    card = describe({"name": "m", "source": "local", "path": str(saved_model("Qwen2Moe", **experts))}, tmp_path)
    assert card.n_experts == 4
    assert count_flops(card, 9) == Flops.of(card).forward(9)


@pytest.mark.parametrize("name", ["ladder-30k", "ladder-160k", "ladder-900k"])
def test_shipped_models(shipped, name):
    card = shipped(name)
    assert Flops.of(card).forward(40) == count_flops(card, 40)
    assert 1.5 < c_counted(card, 40) < 4  # near 2, above it where attention weighs more than the embedding saves
