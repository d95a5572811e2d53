"""Text and numbers as LaTeX prints them. All that comes from models, configs and tables goes through `escape`."""

from __future__ import annotations

import math

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    # Letters of our own formulas, defined in paper/flopstat.tex.
    "α": r"\textsymalpha{}",
    "β": r"\textsymbeta{}",
    "γ": r"\textsymgamma{}",
    "κ": r"\textsymkappa{}",
    "·": r"\textperiodcentered{}",
}


def escape(text: str) -> str:
    """Text that LaTeX prints as it is; characters outside printable ASCII and our own letters become their code point in brackets."""
    return "".join(_ESCAPES.get(c, c if " " <= c <= "~" else f"[U+{ord(c):04X}]") for c in text)


def number(value: float, digits: int = 3) -> str:
    """A number to significant digits, in powers of ten where it is large or small; an en dash where it is missing."""
    if not math.isfinite(value):
        return "--"
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if -3 <= exponent < 5:
        return f"{value:.{max(0, digits - 1 - exponent)}f}"
    mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
    return rf"${mantissa}\times10^{{{int(power)}}}$"


def joined(parts: list[str]) -> str:
    """a, b and c."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
