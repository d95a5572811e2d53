"""Exact arithmetic on untrusted expressions: a small parser, never `eval`.

Grammar (whitespace ignored)::

    sum     = product (("+" | "-") product)*
    product = factor (("*" | "x" | "/" | "÷") factor)*
    factor  = ("+" | "-")* (number | "(" sum ")") "%"*
    number  = digits with optional thousands separators and decimals, or a bare fraction part (".5")

Values are `fractions.Fraction`, so 1/3*3 is 1.
"""

from __future__ import annotations

import re
from fractions import Fraction

_TOKEN = re.compile(r"\s*(?:(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)|([-+*/()%x÷×−]))")
_SAME_SIGN = {"x": "*", "×": "*", "÷": "/", "−": "-"}
MAX_LENGTH = 400
MAX_DEPTH = 40


def _tokens(text: str) -> list[str]:
    if len(text) > MAX_LENGTH:
        raise ValueError(f"expression of {len(text)} characters: at most {MAX_LENGTH}")
    out: list[str] = []
    at = 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"unexpected {text[at:].lstrip()[:1]!r} in expression")
        sign = match.group(2)
        out.append(_SAME_SIGN.get(sign, sign) if sign else match.group(1).replace(",", ""))
        at = match.end()
    return out


class _Parser:
    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self.at += 1
        return token

    def sum(self) -> Fraction:
        value = self.product()
        while self.peek() in ("+", "-"):
            value = value + self.product() if self.take() == "+" else value - self.product()
        return value

    def product(self) -> Fraction:
        value = self.factor()
        while self.peek() in ("*", "/"):
            if self.take() == "*":
                value *= self.factor()
            else:
                divisor = self.factor()
                if divisor == 0:
                    raise ValueError("division by zero")
                value /= divisor
        return value

    def factor(self) -> Fraction:
        sign = 1
        while self.peek() in ("+", "-"):
            sign = -sign if self.take() == "-" else sign
        token = self.take()
        if token == "(":
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise ValueError(f"brackets nested deeper than {MAX_DEPTH}")
            value = self.sum()
            if self.take() != ")":
                raise ValueError("unbalanced bracket")
            self.depth -= 1
        elif token and (token[0].isdigit() or token[0] == "."):
            value = Fraction(token.rstrip(".") if token != "." else "0")
        else:
            raise ValueError(f"number expected, found {token or 'the end'!r}")
        while self.peek() == "%":
            self.take()
            value /= 100
        return sign * value


def evaluate(text: str) -> Fraction:
    """Exact value of an arithmetic expression.

    Raises
    ------
    ValueError
        For anything outside the grammar, a division by zero, or an expression beyond the limits of length and depth.
    """
    parser = _Parser(_tokens(text))
    value = parser.sum()
    if parser.at < len(parser.tokens):
        raise ValueError(f"unexpected {parser.peek()!r} in expression")
    return value
