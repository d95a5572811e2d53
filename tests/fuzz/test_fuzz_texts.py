"""Hostile texts: graders give a verdict whatever a model wrote, and nothing of it is obeyed by LaTeX, a browser or a terminal."""

import contextlib
import re

import pandas as pd
import pytest
from hostile import fuzz, texts
from hypothesis import given
from hypothesis import strategies as st

from flopstat import graders
from flopstat.columns import STATES
from flopstat.errors import InputError, printable
from flopstat.grading import excerpt
from flopstat.latex import escape, number
from flopstat.numerals import normalize

COMMANDS = re.compile(r"\\text[a-z]+\{\}|\\[&%$#_{}]")
PLAIN = set(map(chr, range(32, 127))) - set('\\&%$#_{}~^<>|"`')


def judged(name, text, finished, gold):
    state, answer, correct = graders.GRADERS[name].grade(text, finished, gold)
    assert state in STATES
    assert (answer is not None) == (state == "answered")
    assert not correct or state == "answered"
    if state != "answered":
        assert not correct


@fuzz
@given(texts, st.booleans(), st.sampled_from(sorted(set(graders.GRADERS) - {"math"})), st.sampled_from(["5", "12", "-3", "1/2"]))
def test_graders(text, finished, name, gold):
    judged(name, text, finished, graders.gold_of(name, f"#### {gold}", "here"))


@fuzz
@given(texts, st.booleans())
def test_math_grader(text, finished):
    judged("math", text, finished, graders.gold_of("math", "#### 5", "here"))


@fuzz
@given(texts, st.sampled_from(sorted(graders.GRADERS)))
def test_gold_answers_of_graders(text, name):
    with contextlib.suppress(InputError):
        assert isinstance(graders.gold_of(name, text, "problem 1"), str)


@fuzz
@given(texts)
def test_numbers_in_texts(text):
    with contextlib.suppress(ValueError):  # no number
        once = normalize(text)
        assert normalize(once) == once


@fuzz
@given(texts | st.text())
def test_latex_prints_a_text_and_obeys_nothing_in_it(text):
    assert set(COMMANDS.sub("", escape(text))) <= PLAIN


@fuzz
@given(st.floats())
def test_numbers_in_latex(value):
    assert re.fullmatch(r"--|-?[0-9.]+|\$-?[0-9.]+\\times10\^\{-?[0-9]+\}\$", number(value))


@fuzz
@given(texts | st.text())
def test_terminals_print_a_text_and_obey_nothing_in_it(text):
    assert excerpt(text).isprintable()
    shown = printable(text)
    assert shown.replace("\n", "").isprintable()
    assert printable(shown) == shown
    shown.encode("utf-8")
    if text.isprintable():
        assert shown == text


@pytest.mark.filterwarnings("ignore")
@fuzz
@given(texts)
def test_a_summary_can_not_steer_a_terminal(text):
    from flopstat.summary import _cell, _lead

    row = pd.Series({"arm": text, "T": 1, "P": 1, "B": 1, "strategy": text, "runner_up": text, "lead": 0.1, "lead_low": 0, "lead_high": 1})
    row = pd.concat([row, pd.Series({"more_problems": 1, "more_samples": float("nan")})])
    assert printable(_cell(row) + _lead(row)).replace("\n", "").isprintable()
