"""The ladder's tokenizer: whole words, single digits, and a chat template.

Words carry their leading space (``▁Mia``), digits and signs are single tokens, ``####`` is one token. Every sequence of
ids decodes to a text that encodes to the same ids, so that a chain cut after any token is still what the model wrote.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from flopstat.ladder.generator import NAMES, OBJECTS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, EOS, USER, ASSISTANT = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"
_WORDS = "has more fewer than times as many half a third How does have".split()
_SIGNS = ["\n", ".", "?", "+", "-", "*", "/", "=", "####"]
VOCABULARY = [PAD, EOS, USER, ASSISTANT, *"0123456789", *_SIGNS, *(f"▁{w}" for w in (*_WORDS, *NAMES, *OBJECTS)), "<|unk|>"]

CHAT_TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>{{ m.content }}<|end|>"
    "{% else %}<|user|>{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

_IDS = {token: i for i, token in enumerate(VOCABULARY)}
_PIECES = re.compile(r"####|[A-Za-z]+|\S|\n")


def encode_fast(text: str) -> list[int]:
    """Ids of a generated text without the special tokens: what the tokenizer gives, faster for training."""
    return [_IDS[f"▁{p}"] if p[0].isalpha() else _IDS[p] for p in _PIECES.findall(text)]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer as transformers loads it from a folder."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel(_IDS, unk_token="<|unk|>"))
    core.normalizer = normalizers.Sequence(
        [
            normalizers.Prepend(" "),
            normalizers.Replace("\n", "\n "),
            normalizers.Replace(Regex(r" +(?=[A-Za-z])"), "▁"),
            normalizers.Replace(Regex(r"[ \t\r]+"), ""),
        ]
    )
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"####|▁[A-Za-z]+|\n|."), behavior="isolated")
    core.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.Replace("####", "#### "),
            decoders.Fuse(),
            decoders.Replace("\n ", "\n"),
            decoders.Replace(Regex(r"(?<=[A-Za-z])(?=\d)"), " "),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=EOS,
        unk_token="<|unk|>",
        additional_special_tokens=[USER, ASSISTANT],
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
