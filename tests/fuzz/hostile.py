"""What fuzz tests are made of: how many examples, hostile texts, values of any type, and changes to things that are right."""

import copy
import os
import pickle
from typing import Any

import hypothesis
from hypothesis import strategies as st

SHORT = 40
EXAMPLES = int(os.environ.get("FLOPSTAT_FUZZ_EXAMPLES", SHORT))
# The short run is the same every time; a long one follows --hypothesis-seed.
fuzz = hypothesis.settings(
    max_examples=EXAMPLES, derandomize=EXAMPLES <= SHORT, database=None, deadline=None, suppress_health_check=list(hypothesis.HealthCheck)
)

FRAGMENTS = [
    *(
        "#### ",
        "####",
        "A:",
        "\\boxed{",
        "\\boxed{\\frac{1}{",
        "}",
        "the answer is ",
        "<<1+1=2>>",
        "<<",
        ">>",
        "$",
        "\\(",
        "\\text{",
        "\\left(",
    ),
    *("12", "-3", "1,000", "3.5", "1/2", "1e9", "9" * 400, "٣", "½", "∞", "NaN", "inf", "1" + ",000" * 50, "0" * 50, "²", "−7", "0x10"),
    *("\n", "\r\n", "\0", "\x1b[2J", "\x1b]0;x\x07", "\u202e", "\u2028", "\ud800", "\U0001f600", "\ufeff", " ", "  \t"),
    *(
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "{{ 7*7 }}",
        "{% x %}",
        "%s%n",
        "{question}",
        "{0}",
        "\\input{/etc/passwd}",
    ),
    *(
        "\\write18{id}",
        "^^5c",
        "\\end{document}",
        "_",
        "&",
        "~",
        "../../x",
        "/etc/passwd",
        "C:\\x",
        "__import__('os')",
        "!!python/object:x",
        "'",
        '"',
    ),
]


def woven(free: str, numbers: bytes) -> str:
    """A text with fragments put in, one per number: two in four at its end, one at its start, one anywhere, inside other fragments too."""
    out = free
    for number in numbers:
        where, which = divmod(number, len(FRAGMENTS))
        at = len(out) if where < 2 else 0 if where == 2 else 7 * number % (len(out) + 1)
        out = out[:at] + FRAGMENTS[which] + out[at:]
    return out


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return scalars | st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)


# A draw takes Hypothesis some 40 us, so a value is made of few: a text of two, whatever the number of its fragments.
texts = st.tuples(st.text(max_size=12), st.binary(max_size=8)).map(lambda parts: woven(*parts))
scalars = (
    st.none() | st.booleans() | st.integers(-3, 40) | st.sampled_from([2**31, 2**63, 2**64, -(2**63) - 1, 10**400]) | st.floats() | texts
)
values = nested(nested(nested(scalars)))
# Made once: a strategy that is made anew for each draw costs more than the draw.
_STUFFING = st.binary(max_size=8) | texts.map(lambda text: text.encode("utf-8", "surrogatepass"))


def places(value: Any) -> list[tuple]:
    """Paths to all parts of a value but the whole."""
    found: list[tuple] = []
    waiting: list[tuple[tuple, Any]] = [((), value)]
    while waiting:
        path, holder = waiting.pop()
        items = holder.items() if isinstance(holder, dict) else enumerate(holder) if isinstance(holder, list) else ()
        for key, inner in items:
            found.append((*path, key))
            if isinstance(inner, dict | list):
                waiting.append((found[-1], inner))
    return found


def changed(base: Any, times: int = 3) -> st.SearchStrategy[Any]:
    """Copies of a value with some of its parts replaced, left out, doubled or swapped for another of its parts."""
    return _changed(pickle.dumps(base), times)  # a copy of hundreds of parts is made by pickle in a tenth of deepcopy's time


@st.composite
def _changed(draw, base: bytes, times: int) -> Any:
    out = pickle.loads(base)
    for _ in range(draw(st.integers(0, times))):
        there = places(out)
        if not there:
            return draw(values)
        at, what = divmod(draw(st.integers(0, 5 * len(there) - 1)), 5)
        path, holder = there[at], out
        for key in path[:-1]:
            holder = holder[key]
        match what:
            case 0:
                del holder[path[-1]]
            case 1 if isinstance(holder, dict):
                holder[draw(texts)] = draw(values)
            case 2 if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[path[-1]]))
            case 3:
                other: Any = out
                for key in there[draw(st.integers(0, len(there) - 1))]:
                    try:
                        other = other[key]
                    except (KeyError, IndexError, TypeError):
                        break
                holder[path[-1]] = copy.deepcopy(other)
            case _:
                holder[path[-1]] = draw(values)
    return out


@st.composite
def damaged(draw, base: bytes, times: int = 6) -> bytes:
    """A copy of some bytes with a few of them changed, cut out, doubled or put in."""
    out = bytearray(base)
    size = 5 * draw(st.integers(0, times))
    for *place, what, number in zip(*[iter(draw(st.binary(min_size=size, max_size=size)))] * 5, strict=True):
        at = int.from_bytes(place) % (len(out) + 1)
        match what % 5:
            case 0 if at < len(out):
                out[at] = number
            case 1:
                del out[at : at + 1 + number % 64]
            case 2:
                out[at:at] = out[at : at + 1 + number % 64]
            case 3:
                out[at:at] = draw(_STUFFING)
            case _:
                del out[at:]
    return bytes(out)
