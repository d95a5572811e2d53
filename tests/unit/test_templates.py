"""Chat templates: the text that transformers makes, the same every day, and one line for any that fails or never ends."""

import random

import pytest

from flopstat import models, templates
from flopstat.errors import InputError

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1=? <b>"}]


@pytest.fixture
def tokenizer(shipped):
    return models.load_tokenizer(shipped("ladder-30k"))


def test_the_text_is_transformers_own(tokenizer, qwen_like):
    for one in (tokenizer, models.load_tokenizer(qwen_like)):
        assert templates.render(one, MESSAGES) == one.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
    tokenizer.chat_template = "{{ eos_token }}{{ messages | tojson }}{{ add_generation_prompt }}{% generation %}x{% endgeneration %}"
    assert templates.render(tokenizer, MESSAGES) == tokenizer.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)


def test_neither_the_clock_nor_chance_changes_a_prompt(tokenizer):
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y %H:%M:%S') }} {{ range(99999) | random }}"
    first = templates.render(tokenizer, MESSAGES)
    assert first.startswith("26 Jul 2024 00:00:00 ")
    templates._child.stop()
    random.seed(7)
    assert templates.render(tokenizer, MESSAGES) == first


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ("{{ 1 + 'a' }}", "TypeError"),
        ("{{ 1/0 }}", "ZeroDivisionError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{% for a in range(99999999999) %}{% endfor %}", "OverflowError"),
        ("{% include '/etc/passwd' %}", "TypeError"),
        ("{{ (1).__class__ | tojson }}", "TypeError"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "SecurityError"),
        ("{{ raise_exception('no\nsystem') }}", r"\(no system\)"),
        ("{{ '\\ud800' }}", "UnicodeEncodeError"),
        ("{{ 'x' * 20000000 }}", "a prompt of 20000000 characters"),
        (
            "{% set n = namespace(s='x' * 1000) %}{% for a in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
            "MemoryError|takes more than",
        ),
        ("{{ 9 ** (9 ** 9) }}", "takes more than 0.5 s for a prompt; check its chat_template"),
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "takes more than 0.5 s for a prompt"),
    ],
    ids=lambda value: value[:30],
)
def test_a_template_that_fails_or_never_ends_is_one_line(tokenizer, template, found, monkeypatch):
    templates.render(tokenizer, MESSAGES)
    tokenizer.chat_template = template
    if found.startswith("takes"):
        monkeypatch.setattr(templates, "TIMEOUT_S", 0.5)
    with pytest.raises(InputError, match=f"^the chat template of .*{found}") as error:
        templates.render(tokenizer, MESSAGES)
    assert len(str(error.value).splitlines()) == 1
