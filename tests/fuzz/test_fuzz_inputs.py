"""Hostile configs, problem files, sample files and model folders: a value as documented, or one InputError; nothing else gets out."""

import contextlib
import json
import struct
from pathlib import Path

import pytest
import yaml
from hostile import changed, damaged, fuzz, texts, values
from hypothesis import given
from hypothesis import strategies as st

from flopstat import config, models, precisions, problems, submissions
from flopstat.columns import STATES
from flopstat.errors import InputError

DEFAULT = yaml.safe_load((config.ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))
FULL = config.resolve(DEFAULT)
QUESTION = {"question": "Ann has 2 pens and buys 3. How many?", "answer": "2+3=<<2+3=5>>5\n#### 5"}
SAMPLE = {"problem_id": "0", "model": "m", "n_params": 5, "precision": "fp32", "sample": 0, "text": "#### 5"} | {
    "n_tokens": 3, "token_ids": [1, 2, 3], "prompt_tokens": 4, "mean_logprob": -0.5, "finish_reason": "stop",
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@fuzz
@given(changed(FULL) | changed(DEFAULT) | values)
def test_configs(wanted):
    with contextlib.suppress(InputError):
        resolved = config.resolve(wanted)
        assert config.resolve(resolved) == resolved
        assert config.arms(resolved)
        assert config.shards(resolved)
        precisions.check_models(resolved)


@fuzz
@given(damaged((config.ROOT / "config" / "config.yaml").read_bytes()))
def test_config_files(place, data):
    (place / "study.yaml").write_bytes(data)
    with contextlib.suppress(InputError):
        config.load(place / "study.yaml")


@fuzz
@given(st.lists(changed(QUESTION) | changed(QUESTION | {"problem_id": "a"}), max_size=3), damaged(b"\n"))
def test_problem_files(place, rows, tail):
    text = "\n".join(json.dumps(row) for row in rows).encode() + tail
    (place / "problems.jsonl").write_bytes(text)
    dataset = {"source": "local", "path": str(place / "problems.jsonl"), "n_study": 1, "n_calibration": 0, "filter": "deterministic"}
    with contextlib.suppress(InputError):
        selection = problems.select_problems(dataset, [{"system": "", "instruction": "{question}", "answer_cue": ""}], 3)
        assert len(selection.problems) == 1
        selection.problems.to_parquet(place / "problems.parquet")


@fuzz
@given(texts)
def test_gold_answers(answer):
    for judge in (problems.judge, problems.judge_gold):
        reason, gold, steps = judge(answer)
        assert reason is None or isinstance(reason, str)
        assert isinstance(gold, int)
        assert steps >= 0


@fuzz
@given(changed(SAMPLE), texts)
def test_samples_to_be_graded(place, row, text):
    (place / "golds.jsonl").write_text(json.dumps(QUESTION) + "\n", encoding="utf-8")
    submissions._start(place / "golds.jsonl", "gsm8k")
    for value in (row, SAMPLE | {"text": text}):
        with contextlib.suppress(InputError):
            (graded,) = submissions._grade_block(("f.jsonl", 1, [json.dumps(value).encode()])) or [None]
            assert graded is None or graded[4] in range(len(STATES))


@fuzz
@given(damaged(json.dumps(SAMPLE).encode()))
def test_damaged_lines_to_be_graded(place, line):
    (place / "golds.jsonl").write_text(json.dumps(QUESTION) + "\n", encoding="utf-8")
    submissions._start(place / "golds.jsonl", "gsm8k")
    with contextlib.suppress(InputError):
        submissions._grade_block(("f.jsonl", 1, [line]))


LADDER = config.ROOT / "workflow" / "resources" / "ladder" / "ladder-30k"
SHAPE = json.loads((LADDER / "config.json").read_text(encoding="utf-8"))
_RAW = (LADDER / "model.safetensors").read_bytes()
HEADER = json.loads(_RAW[8 : 8 + struct.unpack("<Q", _RAW[:8])[0]])


def described(folder: Path):
    return models.describe({"name": "m", "source": "local", "path": str(folder)}, folder)


@fuzz
@given(changed(SHAPE), changed(HEADER), st.none() | st.integers(0, 2**64 - 1))
def test_model_folders(place, shape, header, length):
    folder = place / "model"
    folder.mkdir(exist_ok=True)
    data = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(data) if length is None else length) + data)
    (folder / "config.json").write_text(json.dumps(shape), encoding="utf-8")
    (folder / "tokenizer.json").write_bytes(b"{}")
    with contextlib.suppress(InputError):
        card = described(folder)
        assert models.ModelCard(**json.loads(card.to_json())) == card


@fuzz
@given(changed({"metadata": {"total_size": 1}, "weight_map": {"a": "model-1.safetensors", "b": "../b.bin"}}) | values)
def test_indexes_of_shards(place, index):
    folder = place / "sharded"
    folder.mkdir(exist_ok=True)
    (folder / "model-1.safetensors").write_bytes(_RAW)
    (folder / "config.json").write_text(json.dumps(SHAPE), encoding="utf-8")
    (folder / "tokenizer.json").write_bytes(b"{}")
    (folder / models.INDEX).write_text(json.dumps(index), encoding="utf-8")
    with contextlib.suppress(InputError):
        described(folder)
        assert models.weight_files(folder) == [folder / "model-1.safetensors"]


@fuzz
@given(damaged((LADDER / "config.json").read_bytes()), damaged(_RAW[:3000]))
def test_damaged_model_folders(place, shape, weights):
    folder = place / "damaged"
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_bytes(shape)
    (folder / "tokenizer.json").write_bytes(b"{}")
    with contextlib.suppress(InputError):
        described(folder)


@fuzz
@given(st.sampled_from(["pytorch_model.bin", "model.pt", "model.pkl", "weights.ckpt", "x.pth"]), st.binary(max_size=20))
def test_pickles_are_refused_unread(tmp_path_factory, name, content):
    folder = tmp_path_factory.mktemp("pickled")
    (folder / name).write_bytes(content)
    (folder / "config.json").write_text(json.dumps(SHAPE), encoding="utf-8")
    (folder / "tokenizer.json").write_bytes(b"{}")
    with pytest.raises(InputError, match="pickles are refused"):
        described(folder)


@fuzz
@given(damaged(models.describe({"name": "ladder-30k", "source": "ladder"}, LADDER).to_json().encode()))
def test_model_cards(place, data):
    (place / "card.json").write_bytes(data)
    with contextlib.suppress(InputError):
        models.read_card(place / "card.json")
    with contextlib.suppress(InputError):
        models.ModelCard.read(place / "card.json")
