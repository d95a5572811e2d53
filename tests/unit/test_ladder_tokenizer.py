"""The ladder's tokenizer: any ids are a text that gives the same ids back."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopstat.ladder.generator import generate
from flopstat.ladder.tokenizer import ASSISTANT, EOS, PAD, USER, VOCABULARY, build_tokenizer, encode_fast

TOKENIZER = build_tokenizer()
SPECIAL = {VOCABULARY.index(t) for t in (PAD, EOS, USER, ASSISTANT, "<|unk|>")}
PLAIN = [i for i in range(len(VOCABULARY)) if i not in SPECIAL]
PROBLEMS = list(itertools.islice(generate(np.random.default_rng(4), "fresh", distractors=1), 60))


def encode(text):
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


@given(st.lists(st.sampled_from(PLAIN), min_size=1, max_size=40))
def test_ids_to_text_to_ids_is_the_identity(ids):
    assert encode(TOKENIZER.decode(ids)) == ids


def test_fast_encoding_equals_the_tokenizer():
    for problem in PROBLEMS:
        for text in (problem.question, problem.solution):
            assert encode_fast(text) == encode(text)
            assert not SPECIAL & set(encode(text))


def test_every_prefix_of_a_solution_round_trips():
    for problem in PROBLEMS[:20]:
        ids = encode(problem.solution)
        assert TOKENIZER.decode(ids) == problem.solution
        for cut in range(1, len(ids)):
            prefix = TOKENIZER.decode(ids[:cut])
            assert encode(prefix) == ids[:cut]
            assert problem.solution.startswith(prefix.rstrip())


def test_chat_template_is_the_training_format():
    messages = [{"role": "user", "content": PROBLEMS[0].question}]
    text = TOKENIZER.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    user, assistant = VOCABULARY.index(USER), VOCABULARY.index(ASSISTANT)
    assert encode(text) == [user, *encode_fast(PROBLEMS[0].question), assistant]


@pytest.mark.parametrize("name", ["ladder-30k", "ladder-160k"])
def test_shipped_tokenizer_is_this_one(root, name):
    folder = root / "workflow" / "resources" / "ladder" / name
    shipped = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    assert shipped == json.loads(TOKENIZER.backend_tokenizer.to_str())
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["vocab_size"] == len(VOCABULARY)
