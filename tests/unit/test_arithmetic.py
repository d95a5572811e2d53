"""Exact arithmetic: what it computes, and what it refuses."""

import contextlib
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopstat.arithmetic import MAX_DEPTH, MAX_LENGTH, evaluate


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1+2*3", Fraction(7)),
        ("(1+2)*3", Fraction(9)),
        ("8-3-2", Fraction(3)),  # left to right
        ("8/4/2", Fraction(1)),
        ("1/3*3", Fraction(1)),  # exact, not 0.999...
        ("0.1+0.2", Fraction(3, 10)),
        (".5*4", Fraction(2)),
        ("5.", Fraction(5)),
        ("20%*50", Fraction(10)),
        ("1,234,567+1", Fraction(1234568)),
        ("1,000.5*2", Fraction(2001)),
        ("2x3×4", Fraction(24)),
        ("9÷3−1", Fraction(2)),
        ("--5", Fraction(5)),
        ("2*-3", Fraction(-6)),
        ("-(2+3)", Fraction(-5)),
        (" 1 + 1 ", Fraction(2)),
        ("(" * MAX_DEPTH + "7" + ")" * MAX_DEPTH, Fraction(7)),
        ("9" * MAX_LENGTH, Fraction(10**MAX_LENGTH - 1)),
    ],
)
def test_value(text, value):
    assert evaluate(text) == value


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "1+", "*2", "()", "(1", "1)", "1 2", "1..2", ".", "1,0000", "1,00", "1/0", "1/(2-2)", "5%/0%"),
        *("2**3", "2^3", "1e9", "0b1", "1_000", "x", "abc", "__import__('os')", "1;2", "1=1", "½", "²", "\x00", "1\x001"),
        "(" * (MAX_DEPTH + 1) + "7" + ")" * (MAX_DEPTH + 1),
        "(" * MAX_LENGTH,
        "1" * (MAX_LENGTH + 1),
        "1+" * 10**6 + "1",
    ],
)
def test_refused(text):
    with pytest.raises(ValueError, match=r"expression|zero|bracket|number expected"):
        evaluate(text)


def _join(parts):
    """A bracketed expression and its value; a division by zero keeps its value as None."""
    (left, a), op, (right, b) = parts
    text = f"({left}{op}{right})"
    if a is None or b is None or (op == "/" and b == 0):
        return text, None
    return text, {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else None}[op]


_LEAF = st.decimals(min_value=-999, max_value=999, places=2).map(lambda d: (f"{d}", Fraction(str(d))))
_EXPRESSION = st.recursive(_LEAF, lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(_join), max_leaves=12)


@given(_EXPRESSION)
def test_agrees_with_fractions(case):
    text, value = case
    if value is None:
        with pytest.raises(ValueError, match="zero"):
            evaluate(text)
    else:
        assert evaluate(text) == value


@given(st.text(max_size=60))
def test_any_text_gives_a_fraction_or_a_value_error(text):
    with contextlib.suppress(ValueError):
        assert isinstance(evaluate(text), Fraction)
