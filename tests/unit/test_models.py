"""Models: cards from files alone, refusals, precisions."""

import json
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from flopstat import models
from flopstat.errors import InputError

LADDER = ("ladder-30k", "ladder-160k")


@pytest.mark.parametrize("name", LADDER)
def test_card_of_a_shipped_model_agrees_with_torch(shipped, name):
    card = shipped(name)
    model = models.load(card, "fp32", "float32", "cpu")
    assert card.n_params == sum(p.numel() for p in model.parameters())
    assert card.n_params_non_embedding == card.n_params - model.model.embed_tokens.weight.numel()
    assert (card.n_layers, card.hidden_size, card.vocab_size) == (len(model.model.layers), model.config.hidden_size, 69)
    assert card.tied
    assert models.ModelCard(**json.loads(card.to_json())) == card
    assert not card.path.startswith("/")  # relative to the repository, so that a moved clone still finds it
    assert models.checkpoint(card).is_dir()


def test_untied_head_is_counted_and_sharded_weights_are_added_up(saved_model, tmp_path):
    tied, untied = saved_model(), saved_model(tie_word_embeddings=False)
    cards = [models.describe({"name": "m", "source": "local", "path": str(p)}, tmp_path) for p in (tied, untied)]
    assert cards[1].n_params - cards[0].n_params == 69 * 32
    assert (cards[0].tied, cards[1].tied) == (True, False)
    assert cards[0].n_params_non_embedding == cards[1].n_params_non_embedding
    assert cards[0].weights_sha256 != cards[1].weights_sha256
    sharded = tmp_path / "sharded"
    shutil.copytree(tied, sharded)
    (sharded / "model.safetensors").unlink()
    AutoModelForCausalLM.from_pretrained(tied).save_pretrained(sharded, max_shard_size="20KB")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    assert models.describe({"name": "m", "source": "local", "path": str(sharded)}, tmp_path).n_params == cards[0].n_params


@pytest.fixture
def folder(saved_model, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(saved_model(), copy)
    return copy


def describe(folder):
    return models.describe({"name": "m", "source": "local", "path": str(folder)}, folder.parent)


def test_pickles_are_refused(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"no safetensors weights \(found pytorch_model\.bin: pickles are refused"):
        describe(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(InputError, match=r"no (config\.json|tokenizer\.json|safetensors weights)"):
        describe(folder)


def test_config_that_lacks_a_key_is_named(folder):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del config["num_hidden_layers"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(InputError, match="num_hidden_layers"):
        describe(folder)


@pytest.mark.parametrize(
    "content", [b"", b"abc", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", b"\x40" + b"\0" * 7 + b"{not json"]
)
def test_file_that_is_no_safetensors_is_an_input_error(folder, content):
    """A broken download or a git-lfs pointer."""
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors"):
        describe(folder)


@given(st.integers(0, 10**6), st.integers(2, 8), st.integers(1, 200))
def test_round_to_nearest(seed, bits, columns):
    weight = torch.randn((3, columns), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    weight[1] = 0
    out = models.round_to_nearest(weight, bits)
    top = 2 ** (bits - 1) - 1
    for start in range(0, columns, 64):
        part, rounded = weight[:, start : start + 64], out[:, start : start + 64]
        scale = part.abs().amax(dim=1, keepdim=True) / top
        assert ((part - rounded).abs() <= scale / 2 * (1 + 1e-9)).all()
        levels = rounded / scale.clamp(min=1e-30)
        assert (levels - levels.round()).abs().max() < 1e-6
        assert levels.abs().max() <= top + 1e-6
    assert (out[1] == 0).all()
    torch.testing.assert_close(models.round_to_nearest(out, bits), out, rtol=1e-12, atol=0)  # idempotent
    torch.testing.assert_close(models.round_to_nearest(-weight, bits), -out, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("precision", "low", "high"),
    [("fp32", 32, 32), ("bf16", 16, 16), ("int8", 8, 12), ("nf4", 4, 8), ("rtn8", 8, 10), ("rtn4", 4, 6), ("rtn3", 3, 5)],
)
def test_effective_bits_and_how_far_a_precision_moves_the_weights(shipped, precision, low, high):
    """Embeddings and scales are counted, so a small model lies above the nominal bits; coarser grids move more."""
    card = shipped("ladder-160k")
    model = models.load(card, precision, "float32", "cpu")
    bits = models.effective_bits(model, card, precision)
    assert low <= bits <= high
    if precision not in ("fp32", "bf16"):
        assert bits > low
    with torch.no_grad():
        logits = model(torch.tensor([[2, 40, 30, 6, 3]])).logits[0, -1]
        exact = models.load(card, "fp32", "float32", "cpu")(torch.tensor([[2, 40, 30, 6, 3]])).logits[0, -1]
    error = float((logits - exact).norm() / exact.norm())
    assert error == 0 if precision == "fp32" else 1e-4 < error < 0.9  # three bits nearly destroy this model


def test_effective_bits_of_rtn_by_hand(shipped):
    card = shipped("ladder-160k")
    model = models.load(card, "rtn3", "float32", "cpu")
    linear = [m.weight for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"]
    rounded = sum(w.numel() for w in linear)
    scales = sum(w.shape[0] * -(-w.shape[1] // 64) for w in linear)
    assert models.effective_bits(model, card, "rtn3") == pytest.approx(
        (3 * rounded + 16 * scales + 16 * (card.n_params - rounded)) / card.n_params
    )


def test_nf4_is_refused_where_it_does_not_fit(shipped):
    with pytest.raises(
        InputError, match=r"ladder-30k: nf4 needs matrices with a multiple of 64 inputs, found \[32, 96\]; use int8 or rtn4"
    ):
        models.load(shipped("ladder-30k"), "nf4", "float32", "cpu")
    models.check_precision(shipped("ladder-160k"), "nf4")
