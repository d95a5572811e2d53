"""Shapes: parameters in closed form, and FLOPs of prefill and decoding, against real models of every family."""

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from flopstat import models
from flopstat.costs import Flops
from flopstat.errors import InputError
from flopstat.shape import FAMILIES, Shape, shape_of

SMALL = {
    "vocab_size": 69,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}
EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
SMOLLM2 = {  # SmolLM2-135M-Instruct's config.json
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
    "pad_token_id": 2,
}
CASES = {
    "Qwen2, tied, biases, grouped queries": ("Qwen2", {"tie_word_embeddings": True}),
    "Qwen2, untied, one head a query": ("Qwen2", {"tie_word_embeddings": False, "num_key_value_heads": 4}),
    "Qwen2, its upper layer slides": ("Qwen2", {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}),
    "Qwen3, norms of heads": ("Qwen3", {"head_dim": 16}),
    "Llama": ("Llama", {}),
    "Llama with biases and heads of its own": ("Llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 24}),
    "SmolLM2-135M": ("Llama", SMOLLM2),
    "SmolLM3": ("SmolLM3", {}),
    "Gemma, one key for all": ("Gemma", {"num_key_value_heads": 1, "head_dim": 16}),
    "Gemma2, every other layer slides": ("Gemma2", {"head_dim": 16, "sliding_window": 7, "num_hidden_layers": 3}),
    "Gemma3, five of six slide": ("Gemma3Text", {"head_dim": 16, "sliding_window": 7, "num_hidden_layers": 7}),
    "Mistral, all slide": ("Mistral", {"sliding_window": 7}),
    "Mistral, none slides": ("Mistral", {"sliding_window": None}),
    "Phi3, fused matrices": ("Phi3", {}),
    "Starcoder2, no gate": ("Starcoder2", {}),
    "Mixtral": ("Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "Qwen2-MoE, shared expert": ("Qwen2Moe", EXPERTS | {"shared_expert_intermediate_size": 40}),
    "Qwen2-MoE, dense layers among them": (
        "Qwen2Moe",
        EXPERTS | {"shared_expert_intermediate_size": 40, "num_hidden_layers": 5, "decoder_sparse_step": 2, "mlp_only_layers": [3]},
    ),
    "Qwen3-MoE": ("Qwen3Moe", EXPERTS | {"head_dim": 16, "mlp_only_layers": [0]}),
}


def make(name: str) -> transformers.PreTrainedModel:
    """A model of a case: on the meta device if dense; real, with eager experts, if a token's way depends on values."""
    kind, given = CASES[name]
    config = getattr(transformers, f"{kind}Config")(**(SMALL | given))
    sparse = shape_of(config.to_dict()).n_experts > 0
    config._attn_implementation = "eager"
    if sparse:
        config._experts_implementation = "eager"
    with torch.device("cpu" if sparse else "meta"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return getattr(transformers, f"{kind.removesuffix('Text')}ForCausalLM")(config).eval()


@pytest.fixture(scope="module", params=CASES)
def case(request):
    model = make(request.param)
    return model, shape_of(model.config.to_dict())


def counted(model, tokens: int, **kwargs) -> int:
    """FLOPs that torch counts; always with a cache, since without one the mask is computed from values, which meta tensors have not."""
    counter = FlopCounterMode(display=False)
    kwargs = {"past_key_values": transformers.DynamicCache(config=model.config)} | kwargs
    with counter, torch.no_grad():
        model(input_ids=torch.ones((1, tokens), dtype=torch.long, device=model.device), use_cache=True, **kwargs)
    return int(counter.get_total_flops())


def test_parameters_in_closed_form(case):
    model, shape = case
    assert shape.n_params == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("tokens", [1, 5, 19])
def test_forward_and_prefill_equal_torchs_counter(case, tokens):
    model, shape = case
    flops = Flops.of(shape)
    assert counted(model, tokens) == pytest.approx(flops.forward(tokens), rel=1e-2)
    assert counted(model, tokens, logits_to_keep=1) == pytest.approx(flops.prefill(tokens), rel=1e-2)


@pytest.mark.parametrize("prompt", [3, 19])
def test_decoding_steps_equal_torchs_counter(case, prompt):
    """Below and beyond the windows."""
    model, shape = case
    flops = Flops.of(shape)
    cache = transformers.DynamicCache(config=model.config)
    counted(model, prompt, past_key_values=cache)
    steps = [counted(model, 1, past_key_values=cache) for _ in range(3)]
    for t, step in enumerate(steps, start=1):
        assert step == pytest.approx(flops.step(prompt + t), rel=1e-2)
    assert sum(steps) == pytest.approx(flops.decode(prompt, 4), rel=1e-2)


def test_worked_parameters():
    config = {"model_type": "llama", "vocab_size": 10, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2}
    shape = shape_of(config | {"num_key_value_heads": 1, "intermediate_size": 6})
    assert (shape.n_params, shape.head_dim) == (212, 2)


def test_worked_layer_weights_of_experts():
    shape = Shape(
        n_params=1000,
        n_layers=2,
        hidden_size=4,
        n_heads=2,
        n_kv_heads=1,
        head_dim=2,
        intermediate_size=6,
        vocab_size=10,
        tied=True,
        n_experts=4,
        experts_per_token=2,
        moe_intermediate_size=3,
        shared_expert_intermediate_size=5,
        n_moe_layers=1,
    )
    assert Flops.of(shape).layer_weights == 320


@pytest.mark.parametrize("name", ["ladder-30k", "ladder-160k", "ladder-900k"])
def test_card_of_a_shipped_model_is_its_shape(shipped, name, tmp_path):
    card = shipped(name)
    (tmp_path / "card.json").write_text(card.to_json())
    assert models.ModelCard.read(tmp_path / "card.json") == card
    assert Flops.of(card).layer_weights > 0


@pytest.mark.parametrize(
    "missing", ["hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size", "num_attention_heads", "model_type"]
)
def test_a_config_that_lacks_a_field_is_refused_by_name(missing):
    config = SMALL | {"model_type": "llama"}
    del config[missing]
    with pytest.raises(InputError, match=rf"lacks {missing}"):
        shape_of(config)


@pytest.mark.parametrize("missing", ["num_experts", "num_experts_per_tok", "moe_intermediate_size", "shared_expert_intermediate_size"])
def test_a_config_of_experts_that_lacks_a_field_is_refused_by_name(missing):
    config = SMALL | EXPERTS | {"model_type": "qwen2_moe", "shared_expert_intermediate_size": 40}
    del config[missing]
    with pytest.raises(InputError, match=rf"lacks {missing}"):
        shape_of(config)


@pytest.mark.parametrize("value", [0, -3, 2.5, "32", True])
def test_a_field_that_is_no_whole_number_is_refused(value):
    with pytest.raises(InputError, match=r"hidden_size is .*whole number"):
        shape_of(SMALL | {"model_type": "llama", "hidden_size": value})


def test_a_kind_that_is_not_known_is_refused_with_those_that_are():
    with pytest.raises(InputError, match=r"'mamba'.*llama.*qwen2") as refused:
        shape_of({"model_type": "mamba"})
    assert all(name in str(refused.value) for name in FAMILIES)


def test_weights_that_the_config_does_not_make_are_refused(saved_model, tmp_path):
    folder = saved_model()
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"intermediate_size": 48', '"intermediate_size": 480'))
    with pytest.raises(InputError, match=r"weights, but config.json makes"):
        models.describe({"name": "m", "source": "local", "path": str(folder)}, tmp_path)
