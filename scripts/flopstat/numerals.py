"""Numbers as people and models write them, and one canonical form of each. Nothing is evaluated, every pattern runs in linear time."""

from __future__ import annotations

import re
import sys
import unicodedata
from fractions import Fraction
from functools import lru_cache

MAX_DIGITS = 40  # digits of an answer that is still taken for a number
MAX_EXPONENT = 40

# One character each of what Unicode has for digits, minus, separators and fractions; characters without width are dropped.
_ASCII: dict[int, str] = {
    **{c: str(unicodedata.digit(chr(c))) for c in range(128, sys.maxunicode + 1) if unicodedata.category(chr(c)) == "Nd"},
    **dict.fromkeys((0x2212, 0xFF0D, 0xFE63, 0x2012, 0x2013, 0x2010, 0x2011, 0x207B), "-"),
    **{0xFF0B: "+", 0xFF0C: ",", 0xFF0E: ".", 0xFF05: "%", 0x066A: "%", 0xFF04: "$", 0xFF1A: ":", 0xFF1D: "=", 0xFF03: "#"},
    **{0x066B: ".", 0x066C: ",", 0x2044: "/", 0x2215: "/", 0x2019: "'", 0x00D7: "*", 0x22C5: "*", 0x00B7: "*", 0x00F7: "/"},
    **dict.fromkeys((0x200B, 0x200C, 0x200D, 0x200E, 0x200F, 0x2060, 0xFEFF, 0x00AD), ""),
    **dict.fromkeys((0x202F, 0x2009, 0x2007, 0x3000), "\u00a0"),
}
for _code in (0xBC, 0xBD, 0xBE, *range(0x2150, 0x215F)):
    _value = Fraction(unicodedata.numeric(chr(_code))).limit_denominator(10)
    _ASCII[_code] = f" {_value.numerator}/{_value.denominator}"

# Groups of three, or more where a model slipped; India's groups of two; Switzerland's apostrophe and SI's narrow space.
_GROUPED = r"\d++(?:,\d{3}\d*+)++|\d{1,2}(?:,\d{2}(?!\d))++,\d{3}(?!\d)|\d{1,3}(?:[\xa0']\d{3}(?!\d))++"
_PLAIN = rf"(?:(?:{_GROUPED}|\d++)(?:\.\d++)?|(?<!\d)\.\d++)"
_MAGNITUDES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
NUMBER = (
    r"(?:(?<![\w)\]}%.])(?P<sign>[-+]))?(?:(?:US|CA|AU|HK|[CA])?[$€£¥₹₽₩¢]\s?|(?:USD|EUR|GBP|INR|Rs)\b\.?\s?)?(?P<minus>(?<=[$€£¥₹₽₩¢])-)?"
    rf"(?P<value>{_PLAIN})"
    r"(?:/(?P<under>\d++)|[ \xa0](?P<over>\d{1,9})/(?P<below>\d{1,9})(?![\d/])|[eE](?P<e>[-+]?\d++)(?![\w.])"
    r"|\s?\*\s?10\s?(?:\^|\*\*)\s?[{(]?(?P<power>[-+]?\d++)[)}]?)?"
    rf"(?:[ \xa0](?P<magnitude>{'|'.join(_MAGNITUDES)})\b)?(?:[ \xa0]?%)?"
)
_NUMBER = re.compile(NUMBER, re.ASCII)
_LAST = re.compile(rf"(?<![A-Za-z_\d])(?<!\d\.)(?:{NUMBER})", re.ASCII)
_CANONICAL = re.compile(r"0|-?[1-9]\d{0,38}", re.ASCII)
_LATEX = (
    (re.compile(r"\\[dtc]?frac\s?(?:\{\s?(\d{1,40})\s?\}\s?\{\s?(\d{1,40})\s?\}|(\d)\s?(\d))", re.ASCII), r" \1\3/\2\4"),
    (re.compile(r"\{([,.])\}|\\!"), r"\1"),
    (re.compile(r"\\[,;: ](?=\d{3}(?!\d))"), "\u00a0"),
    (re.compile(r"\\times(?![a-z])|\\cdot(?![a-z])"), "*"),
    (re.compile(r"\\div(?![a-z])"), "/"),
    (
        re.compile(
            r"\\(?:text|textbf|textit|mathbf|mathrm|mathit|mathsf|mbox|bm|bf|rm|displaystyle|left|right|quad|qquad|approx)(?![a-z])"
        ),
        " ",
    ),
    (re.compile(r"\\([$%#&])"), r"\1"),
    (re.compile(r"\\[,;: ()\[\]]"), " "),
    (re.compile(r"-\s(?=\d{1,40}/)"), "-"),
)


def to_ascii(text: str) -> str:
    """Digits, minus signs, separators and vulgar fractions of all scripts in their plain form; other characters as they are."""
    return text if text.isascii() else text.translate(_ASCII)


def without_latex(text: str) -> str:
    """A short text with LaTeX's fractions, thin spaces, escapes and font commands written plainly."""
    if "\\" not in text and "{" not in text:
        return text
    for pattern, plain in _LATEX:
        text = pattern.sub(plain, text)
    return text


def number_at(text: str, start: int) -> re.Match[str] | None:
    """The number that begins at `start` of a plain text, with its currency, magnitude and percent sign."""
    return _NUMBER.match(text, start)


def last_number(text: str) -> re.Match[str] | None:
    """The last number of a plain text.

    Windows that end behind the last digit and grow tenfold are searched, so that a long text whose end holds a number costs no more than a
    short one; a number that begins at a window's edge may have begun before it.
    """
    last = max(text.rfind(digit) for digit in "0123456789")
    if last < 0:
        return None
    size = 400
    while True:
        start = max(0, last - size)
        found = None
        for found in _LAST.finditer(text, start, last + 40):  # noqa: B007
            pass
        if start == 0 or (found is not None and found.start() > start + MAX_DIGITS + 20):
            return found
        size *= 10


def canonical(match: re.Match[str]) -> str | None:
    """Canonical form of a number that was found; None if it has more than 40 digits or divides by zero."""
    if match.end() - match.start() > 200:
        return None
    return _canonical(match[0])


def normalize(number: str) -> str:
    """Canonical form of a text that is one number: no separators, currency or leading zeros; 18.0 is 18, -0 is 0, 2/4 is 0.5, 2/6 is 1/3.

    Raises
    ------
    ValueError
        If the text is no number, has more than 40 digits, or divides by zero.
    """
    plain = to_ascii(number).strip()
    match = _NUMBER.fullmatch(plain)
    value = canonical(match) if match else None
    if value is None:
        raise ValueError(f"{number[:60]!r} is no number of at most {MAX_DIGITS} digits")
    return value


@lru_cache(maxsize=100_000)
def _canonical(number: str) -> str | None:
    plain = number.replace(",", "").removeprefix("$").removesuffix(".00")
    if _CANONICAL.fullmatch(plain):  # most answers, at a tenth of the time
        return plain
    parts = _NUMBER.fullmatch(number)
    if parts is None or sum(c.isdigit() for c in number) > MAX_DIGITS:
        return None
    value = Fraction(re.sub(r"[,'\xa0]", "", parts["value"]))
    if parts["under"]:
        if not int(parts["under"]):
            return None
        value /= int(parts["under"])
    if parts["below"]:
        if not int(parts["below"]) or "." in parts["value"]:
            return None
        value += Fraction(int(parts["over"]), int(parts["below"]))
    exponent = int(parts["e"] or parts["power"] or 0) + _MAGNITUDES.get(parts["magnitude"] or "", 0)
    if abs(exponent) > MAX_EXPONENT:
        return None
    value *= Fraction(10) ** exponent
    return _written(-value if (parts["sign"] == "-") != (parts["minus"] == "-") else value)


def _written(value: Fraction) -> str | None:
    """A fraction as a decimal if that ends, else as p/q in lowest terms."""
    rest, places = value.denominator, 0
    for prime in (2, 5):
        power = 0
        while rest % prime == 0:
            rest, power = rest // prime, power + 1
        places = max(places, power)
    if rest > 1:
        return f"{value.numerator}/{value.denominator}"
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    if len(digits) > 2 * MAX_DIGITS:
        return None
    whole = f"{digits[:-places]}.{digits[-places:]}" if places else digits
    return f"-{whole}" if value < 0 else whole
