"""Models: cards from files alone, refusals, what says that weights changed, which devices are there."""

import dataclasses
import io
import json
import os
import pickle
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoModelForCausalLM

from flopstat import models, precisions
from flopstat.config import section
from flopstat.errors import InputError
from flopstat.forcing import Plan
from flopstat.sampling import open_arm, pool_key

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


RUNS_CODE = "from pathlib import Path; Path({!r}).touch()\nclass A: pass\n"


def small_gguf(path: Path) -> Path:
    """A Llama of one layer with a tokenizer of 256 bytes and a few tokens, in one GGUF file."""
    import gguf

    tokens = [*sorted(ByteLevel.alphabet()), "ab", "<s>", "</s>"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(48)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(1e4)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(257)
    writer.add_eos_token_id(258)
    matrices = {"token_embd": (len(tokens), 32), "output": (len(tokens), 32)}
    matrices |= {f"blk.0.attn_{name}": (32, 32) for name in ("q", "k", "v", "output")}
    matrices |= {"blk.0.ffn_gate": (48, 32), "blk.0.ffn_up": (48, 32), "blk.0.ffn_down": (32, 48)}
    numbers = np.random.default_rng(5)
    for name, shape in matrices.items():
        writer.add_tensor(f"{name}.weight", numbers.normal(size=shape).astype(np.float32))
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(32, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_what_lies_beside_a_gguf_file_has_no_say(folder, tmp_path, monkeypatch):
    """transformers asked on standard input whether to run tok.py, and a "y" ran it."""
    marker, file = tmp_path / "it_ran", small_gguf(folder / "m.gguf")
    (folder / "model.safetensors").unlink()
    (folder / "tok.py").write_text(RUNS_CODE.format(str(marker)), encoding="utf-8")
    for name, classes in (("tokenizer_config.json", {"AutoTokenizer": ["tok.A", "tok.A"]}), ("config.json", {"AutoConfig": "tok.A"})):
        values = json.loads((folder / name).read_text(encoding="utf-8"))
        (folder / name).write_text(json.dumps(values | {"auto_map": classes}), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
    card = models.describe({"name": "m", "source": "gguf", "path": str(file)}, tmp_path / "store")
    assert not marker.exists()
    assert (card.architecture, card.vocab_size, card.stored_bits) == ("LlamaForCausalLM", 259, 32.0)
    assert precisions.load(card, "fp32", "float32", "cpu").config.vocab_size == 259
    file.write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(InputError, match=rf"^{file}: can't be loaded \("):
        models.describe({"name": "m", "source": "gguf", "path": str(file)}, tmp_path / "store")


def with_index(folder, names):
    """Put an index in the place of model.safetensors, which becomes x.safetensors."""
    (folder / "model.safetensors").rename(folder / "x.safetensors")
    (folder / models.INDEX).write_text(names if isinstance(names, str) else json.dumps({"metadata": {}, "weight_map": names}))


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ({"a": "evil.bin"}, "names 'evil.bin', no safetensors file's name"),
        ({"a": "x.safetensors", "b": "sub/y.safetensors"}, "names 'sub/y.safetensors', no"),
        ({"a": "../outside.safetensors"}, r"names '\.\./outside\.safetensors', no"),
        ({"a": "/tmp/outside.safetensors"}, "names '/tmp/outside.safetensors', no"),
        ({"a": 5}, "names 5, no"),
        ({"a": "x.safetensors", "b": "y.safetensors"}, r"names y\.safetensors, which is missing"),
        ({"a": ["x.safetensors"]}, "no index of weights"),
        ({}, "names nothing"),
        ([], "no index of weights"),
        ("{", "no index of weights"),
        ("[]", "no index of weights"),
        ("[" * 100_000, "no index of weights"),
        ("{}", "no index of weights"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_index_that_names_anything_but_shards_beside_it_is_refused(folder, names, found):
    """transformers loads what the index names, a pickle too."""
    (folder / "sub").mkdir()
    for elsewhere in ("evil.bin", "sub/y.safetensors", "../outside.safetensors"):
        shutil.copy(folder / "model.safetensors", folder / elsewhere)
    with_index(folder, names)
    with pytest.raises(InputError, match=f"^{folder / models.INDEX}: {found}.*; save the model with save_pretrained") as error:
        describe(folder)
    assert len(str(error.value).splitlines()) == 1


def test_the_weights_that_run_are_those_that_are_hashed(folder):
    """Two shards by their index, links as in the hub's cache, and a stray file that neither counts nor runs."""
    weights, whole = load_file(folder / "model.safetensors"), describe(folder)
    (folder / "model.safetensors").unlink()
    (folder.parent / "blobs").mkdir()
    halves = {"one.safetensors": sorted(weights)[::2], "two.safetensors": sorted(weights)[1::2]}
    for file, names in halves.items():
        save_file({name: weights[name] for name in names}, folder.parent / "blobs" / file, {"format": "pt"})
        (folder / file).symlink_to(folder.parent / "blobs" / file)
    index = {name: file for file, names in halves.items() for name in names}
    (folder / models.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}), encoding="utf-8")
    card = describe(folder)
    assert (card.n_params, card.tokenizer_sha256) == (whole.n_params, whole.tokenizer_sha256)
    assert card.weights_sha256 == models.sha256_of_files([folder / file for file in halves])
    loaded = precisions.load(card, "fp32", "float32", "cpu").state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in weights.items())
    save_file({"stray": torch.ones(5)}, folder / "consolidated.safetensors")
    assert describe(folder) == card
    models.verify_weights(card)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})  # goes before an index
    with pytest.raises(InputError, match="changed since it was described"):
        models.verify_weights(card)


def test_a_safetensors_file_that_nobody_would_load_is_refused(folder):
    (folder / "model.safetensors").rename(folder / "x.safetensors")
    with pytest.raises(InputError, match=r"no safetensors weights \(found x\.safetensors: without an index\)"):
        describe(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("transformers_weights", "sub/y.safetensors"),
        ("attn_implementation", "evil/kernel"),
        ("_attn_implementation", "evil/kernel"),
        ("attn_implementation", {"": "evil/kernel"}),
        ("_attn_implementation_internal", "unknown"),
        ("experts_implementation", "evil/kernel"),
    ],
)
def test_a_config_that_leads_the_loader_elsewhere_is_refused(folder, key, value):
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(values | {key: value}), encoding="utf-8")
    with pytest.raises(InputError, match=rf"^{folder}/config\.json: {key} .*; delete it"):
        describe(folder)
    allowed = {"attn_implementation": "sdpa", "_attn_implementation": None, "auto_map": {"AutoModelForCausalLM": "modeling.A"}}
    (folder / "config.json").write_text(json.dumps(values | allowed), encoding="utf-8")
    precisions.load(describe(folder), "fp32", "float32", "cpu")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "elsewhere"}', encoding="utf-8")
    with pytest.raises(InputError, match=r"adapter_config\.json names further weights"):
        describe(folder)


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


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", lambda text: text.replace("10000.0", "3.0")),
        ("generation_config.json", lambda text: text.replace('"eos_token_id": 1', '"eos_token_id": [1, 2]')),
        ("tokenizer_config.json", lambda text: text.replace("1024", "1025")),
        ("chat_template.jinja", lambda text: text + "!"),
        ("special_tokens_map.json", lambda text: '{"eos_token": "<|user|>"}'),
        ("additional_chat_templates/default.jinja", lambda text: "!"),
    ],
)
def test_any_file_that_changes_the_chains_is_noticed(shipped, tmp_path, name, change):
    """Weights as described, and everything else: the card, the pool's key, the rule's parameters and loading know of it."""
    folder = tmp_path / "model"
    shutil.copytree(models.checkpoint(shipped("ladder-30k")), folder)
    entry, file = {"name": "m", "source": "local", "path": str(folder)}, folder / name
    card, identity = describe(folder), models.stored_identity(entry)
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    file.parent.mkdir(exist_ok=True)
    file.write_text(change(text), encoding="utf-8")
    assert file.read_text(encoding="utf-8") != text
    models.verify_weights(card)
    for load in (models.load_tokenizer, lambda card: precisions.load(card, "fp32", "float32", "cpu")):
        with pytest.raises(InputError, match=rf"^{folder}: tokenizer, chat template or config of m changed .*; run again$"):
            load(card)
    assert models.stored_identity(entry) != identity
    plan, now = Plan.of(SAMPLING, section("budgets", {"T": [16]}), 5), describe(folder)
    keys = [pool_key(one, "fp32", plan, "float32", "e") for one in (card, now, dataclasses.replace(now, config_sha256=""))]
    assert keys[0] != keys[1]
    assert "config" not in keys[2]  # as the pools of older versions, whose cards do not say


def test_a_card_of_an_older_version_is_read_and_not_verified(folder, tmp_path):
    values = json.loads(describe(folder).to_json())
    del values["config_sha256"]
    (tmp_path / "card.json").write_text(json.dumps(values), encoding="utf-8")
    card = models.ModelCard.read(tmp_path / "card.json")
    (folder / "chat_template.jinja").write_text("other", encoding="utf-8")
    assert models.load_tokenizer(card).chat_template == "other"


SAMPLING = section("sampling", {"samples": 1, "device": "cpu"})


def used(folder, store):
    card = describe(folder)
    open_arm(card, "fp32", SAMPLING, Plan.of(SAMPLING, section("budgets", {"T": [16]}), 5), store)
    precisions.load(card, "fp32", "float32", "cpu")


def changed_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


ENDS, END = ("x", [[1]], 69, -1, True, 1.5), "model: eos_token_id .* not an id from 0 to 68|generation_config.json: can't be loaded"


@pytest.mark.parametrize(
    ("break_it", "found"),
    [
        (lambda folder: changed_json(folder / "config.json", hidden_act="__import__"), "model: can't be loaded .KeyError: "),
        (lambda folder: changed_json(folder / "config.json", rope_parameters={"rope_type": "evil"}), "model: can't be loaded .KeyError: "),
        (lambda folder: changed_json(folder / "config.json", layer_types=["x"] * 99), "model: can't be loaded .Strict"),
        (lambda folder: (folder / "generation_config.json").write_text("[]"), "generation_config.json: can't be loaded .TypeError: "),
        (lambda folder: (folder / "generation_config.json").write_text("{"), "generation_config.json: can't be loaded .OSError: "),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "tokenizer.json: can't be loaded .JSONDecodeError: "),
        (lambda folder: (folder / "tokenizer_config.json").write_text("[]"), "tokenizer.json: can't be loaded"),
        *((lambda folder, end=end: changed_json(folder / "generation_config.json", eos_token_id=end), END) for end in ENDS),
    ],
)
def test_a_folder_that_transformers_makes_nothing_of_ends_with_one_line(folder, tmp_path, break_it, found):
    break_it(folder)
    with pytest.raises(InputError, match=found) as error:
        used(folder, tmp_path / "pools")
    assert str(folder) in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_memory_that_ran_out_and_a_library_that_is_not_there_are_no_broken_folder():
    for error in (MemoryError(), RuntimeError("CUDA out of memory"), ImportError("no kernels"), InputError("a line")):
        with pytest.raises(type(error), match=f"^{error}$"), models.loading("m"):
            raise error


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


# Found by tests/fuzz: each of these ended in a traceback.
BROKEN_SHAPES = {
    "[]": "a JSON object is wanted, found list",
    "{": "not JSON",
    "[" * 100_000: "not JSON",
    "\x80": "not JSON",
    "{}": "config.json: lacks model_type",
    '{"model_type": ["llama"]}': "config.json: model_type a list is none that the cost model knows",
}

LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_attention_heads": 2,
    "vocab_size": 69,
    "num_hidden_layers": 2,
    "intermediate_size": 8,
}
MOE = LLAMA | {"model_type": "qwen3_moe", "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 4}
BROKEN_FIELDS = {
    "null": (LLAMA | {"hidden_size": None}, "lacks hidden_size"),
    "text": (LLAMA | {"hidden_size": "32"}, "hidden_size is '32'; a whole number"),
    "true": (LLAMA | {"hidden_size": True}, "hidden_size is True; a whole number"),
    "fraction": (LLAMA | {"hidden_size": 1e99}, "hidden_size is 1e.99; a whole number"),
    "huge": (LLAMA | {"hidden_size": 1 << 99}, "hidden_size is 6.*; a whole number"),
    "many layers": (LLAMA | {"num_hidden_layers": 1 << 39}, "num_hidden_layers is 5.*at most 100000"),
    "negative": (LLAMA | {"num_key_value_heads": -1}, "num_key_value_heads is -1"),
    "heads without width": (LLAMA | {"num_attention_heads": 64}, "num_attention_heads is 64, more than hidden_size 32"),
    "head of text": (LLAMA | {"head_dim": "x"}, "head_dim is 'x'"),
    "list": (LLAMA | {"head_dim": [[1]]}, "head_dim is a list"),
    "window": (LLAMA | {"sliding_window": "all"}, "sliding_window is 'all'"),
    "kinds": (LLAMA | {"model_type": "mistral", "sliding_window": 4, "layer_types": 5}, "layer_types is 5; a list"),
    "windows": (MOE | {"sliding_window": 4, "use_sliding_window": True, "max_window_layers": "x"}, "max_window_layers is 'x'"),
    "step": (MOE | {"decoder_sparse_step": 0.5}, "decoder_sparse_step is 0.5"),
    "dense": (MOE | {"mlp_only_layers": {}}, "mlp_only_layers is a dict; a list"),
    "experts": (MOE | {"num_experts": "2"}, "num_experts is '2'"),
    "context": (LLAMA | {"max_position_embeddings": 1.5}, "max_position_embeddings is 1.5"),
    "no context": (LLAMA, "lacks max_position_embeddings"),
    "architecture": (LLAMA | {"max_position_embeddings": 64, "architectures": [5]}, "names no architecture"),
}


def folder_of(place, shape: str, header: str) -> Path:
    place.mkdir()
    (place / "config.json").write_bytes(shape.encode("latin-1"))
    (place / "tokenizer.json").write_text("{}")
    (place / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header.encode())
    return place


@pytest.mark.parametrize("shape", BROKEN_SHAPES, ids=lambda s: s[:30])
def test_a_broken_config_of_a_model_ends_with_one_line(tmp_path, shape):
    folder = folder_of(tmp_path / "model", shape, "{}")
    with pytest.raises(InputError, match=BROKEN_SHAPES[shape]):
        models.describe({"name": "m", "source": "local", "path": str(folder)}, tmp_path)


@pytest.mark.parametrize("name", BROKEN_FIELDS)
def test_a_broken_field_of_a_models_config_is_named_in_one_line(tmp_path, name):
    values, message = BROKEN_FIELDS[name]
    folder = folder_of(tmp_path / "model", json.dumps(values), "{}")
    with pytest.raises(InputError, match=f"^{folder}/config.json: {message}") as error:
        models.describe({"name": "m", "source": "local", "path": str(folder)}, tmp_path)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    "header",
    [
        '{"a": {"shape": [1, 1, 1, 1, 1, 1, 1, 1, 1]}}',
        '{"a": {"shape": 5}}',
        '{"a": {"shape": [null]}}',
        '{"a": {"shape": [[1]]}}',
        '{"a": {"shape": [-1]}}',
        "[" * 9999,
    ],
)
def test_a_broken_header_of_weights_ends_with_one_line(tmp_path, shipped, header):
    shape = (models.checkpoint(shipped("ladder-30k")) / "config.json").read_text()
    folder = folder_of(tmp_path / "model", shape, header)
    with pytest.raises(InputError, match="not a safetensors file, or a torn one"):
        models.describe({"name": "m", "source": "local", "path": str(folder)}, tmp_path)


@pytest.mark.parametrize(
    "change", ["{", "[]", '"', '{"source": "import"}', b"\x80", {"n_params": "5"}, {"tied": 1}, {"more": 1}, {"name": None}]
)
def test_a_broken_card_ends_with_one_line(tmp_path, shipped, change):
    path = tmp_path / "card.json"
    if isinstance(change, dict):
        path.write_text(json.dumps(json.loads(shipped("ladder-30k").to_json()) | change))
    else:
        path.write_bytes(change if isinstance(change, bytes) else change.encode())
    for read in (models.read_card, models.ModelCard.read):
        with pytest.raises(InputError, match="not a model card; make it again"):
            read(path)
    with pytest.raises(InputError, match="no such model card"):
        models.read_card(tmp_path / "absent.json")
