"""Models: cards from files alone, refusals, what says that weights changed, which devices are there."""

import json
import os
import pickle
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM

from flopstat import models, precisions
from flopstat.errors import InputError

LADDER = ("ladder-30k", "ladder-160k")


@pytest.mark.parametrize("name", LADDER)
def test_card_of_a_shipped_model_agrees_with_torch(shipped, name):
    card = shipped(name)
    model = precisions.load(card, "fp32", "float32", "cpu")
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


def test_pickle_beside_the_weights_is_never_run(folder, tmp_path):
    """A pickle can run any code when it is read; whatever its name, nobody reads it."""
    marker = tmp_path / "it_ran"

    class Malicious:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    before = describe(folder)
    for name in ("pytorch_model.bin", "model.pt", "tokenizer.pkl", "training_args.bin", "optimizer.pth"):
        (folder / name).write_bytes(pickle.dumps(Malicious()))
    (folder / "modeling_qwen2.py").write_text(f"import os; os.system('touch {marker}')", encoding="utf-8")
    card = describe(folder)
    assert card == before
    precisions.load(card, "fp32", "float32", "cpu")
    models.load_tokenizer(card)
    assert not marker.exists()
    pickle.loads((folder / "model.pt").read_bytes())
    assert marker.exists()  # it would have


def test_weights_that_changed_since_they_were_described_are_refused(folder):
    card, weights = describe(folder), folder / "model.safetensors"
    models.verify_weights(card)
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(InputError, match=rf"^{folder}: the weights of m changed since it was described; run again$"):
        models.verify_weights(card)
    weights.unlink()
    with pytest.raises(InputError, match="changed since it was described"):
        models.verify_weights(card)


def test_stored_identity_sees_weights_of_the_same_size(folder):
    entry = {"name": "m", "source": "local", "path": str(folder)}
    weights = folder / "model.safetensors"
    before, stat = models.stored_identity(entry), weights.stat()
    weights.write_bytes(weights.read_bytes())
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert models.stored_identity(entry) != before
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert models.stored_identity(entry) == before


def test_devices_without_torch(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "nvidia-smi").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert models.device_present("cuda")
    assert models.likely_device("auto") == "cuda"
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert not models.device_present("cuda")
    for system, machine, there in (("darwin", "arm64", True), ("darwin", "x86_64", False), ("linux", "aarch64", False)):
        monkeypatch.setattr(models.sys, "platform", system)
        monkeypatch.setattr(models.platform, "machine", lambda machine=machine: machine)
        assert models.device_present("mps") is there
        assert models.likely_device("auto") == ("mps" if there else "cpu")
    assert models.device_present("cpu")
    assert models.device_present("auto")
    assert models.likely_device("cuda") == "cuda"  # taken at its word


def test_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"^sampling\.device cuda: not available on this machine; set it to auto or cpu$"):
        models.pick_device("cuda")
