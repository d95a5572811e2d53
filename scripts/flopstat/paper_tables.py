r"""Bodies of the paper's tables, rows of LaTeX; every number in them is a \FS{name} of the ledger."""

from __future__ import annotations

from itertools import groupby

import numpy as np

from flopstat.paper_text import PERCENT, PLAIN, arm_rows, chosen, frontier_rows, strategy, with_limits
from flopstat.sourced import Ledger, Row

BEST_ROWS = 6
KAPPA = "times 100 ln 2, 2 decimals"
END = r" \\"
BLOCK, PAIRS = 3, 2  # parameters side by side: of several arms, of one
AXES = ("N", "T", "P", "B", "q")


def _line(*cells: str) -> str:
    return " & ".join(cells) + END


def best(ledger: Ledger) -> str:
    """The frontier's cell for a few budgets, evenly spaced in log cost."""
    edge = frontier_rows(ledger)
    values = np.array([row.value("value") for row in edge])
    picked: list[Row] = []
    for budget in np.geomspace(values.min(), values.max(), BEST_ROWS) * (1 + 1e-9):
        row = edge[int(np.flatnonzero(values <= budget)[-1])]
        if row not in picked:
            picked.append(row)
    return "\n".join(
        _line(
            ledger.show(PLAIN, row.cell("value")),
            ledger.show("text", row.cell("arm")),
            *(ledger.show("integer", row.cell(axis)) for axis in ("T", "P", "B")),
            strategy(row["strategy"]),
            chosen(ledger, row),
            ledger.show("times 100, whole", row.cell("p_on_frontier")) + r"\,\%",
        )
        for row in picked
    )


def arms(ledger: Ledger) -> str:
    """Size, bits, accuracy at the largest T, κ, the gain of the last doubling of votes, and α of every arm."""
    return "\n".join(
        _line(
            ledger.show("text", row.cell("arm")),
            ledger.show(PLAIN, row.cell("n_params")),
            ledger.show("2 decimals", row.cell("bits_effective")),
            with_limits(ledger, row, "accuracy", PERCENT, "accuracy_low", "accuracy_high"),
            _parameter(ledger, row, "kappa", KAPPA),
            _last_doubling(ledger, row),
            _parameter(ledger, row, "alpha", "2 decimals"),
        )
        for row in arm_rows(ledger)
    )


def _parameter(ledger: Ledger, arm: Row, name: str, operation: str) -> str:
    found = ledger.sources.rows("laws.csv", arm=arm["arm"], T=arm["T"], parameter=name)
    if not found:
        return "--"
    if found[0]["estimate"]:
        return with_limits(ledger, found[0], "estimate", operation)
    limit, sign = (("high", "<"), ("low", ">"))[not found[0]["high"]]
    return f"${sign}$ {ledger.show(operation, found[0].cell(limit))}" if found[0][limit] else "not identified"


def _last_doubling(ledger: Ledger, arm: Row) -> str:
    found = ledger.sources.rows("local_kappa.csv", arm=arm["arm"], T=arm["T"])
    return with_limits(ledger, max(found, key=lambda row: row.value("P")), "kappa", KAPPA) if found else "--"


def models(ledger: Ledger, names: list[str]) -> str:
    """Size and shape of every model that was sampled here."""
    rows = []
    for name in names:
        card = {row["key"]: row for row in ledger.sources.rows(f"models/{name}.json")}
        if "n_layers" not in card:
            continue  # imported samples: no shape is known
        shape = ("n_params", "n_params_non_embedding", "n_layers", "hidden_size", "n_heads", "n_kv_heads", "vocab_size")
        cells = [ledger.show("text", card[key].cell("value")) for key in ("name", "architecture")]
        cells += [ledger.show("integer", card[key].cell("value")) for key in shape]
        rows.append(_line(*cells))
    return "\n".join(rows)


def weight_bits(ledger: Ledger) -> str:
    return "\n".join(
        _line(
            ledger.show("text", row.cell("arm")),
            ledger.show(PLAIN, row.cell("weight_bits")),
            ledger.show("2 decimals", row.cell("bits_effective")),
            with_limits(ledger, row, "accuracy", PERCENT, "accuracy_low", "accuracy_high"),
            ledger.show("times 100, whole", row.cell("p_on_frontier")) + r"\,\%",
        )
        for row in ledger.sources.rows("weight_bits.csv")
    )


def exponents(ledger: Ledger) -> str:
    return "\n".join(
        _line(
            rf"\texttt{{{ledger.show('text', row.cell('law'))}}}",
            ledger.show("text", row.cell("exponent")),
            with_limits(ledger, row, "estimate", PLAIN),
            "yes" if row["certified"] == "True" else "no",
            ledger.show("text", row.cell("source")),
        )
        for row in ledger.sources.rows("exponents.csv")
    )


def gradients(ledger: Ledger) -> str:
    """Points per doubling of each axis by each type of surface, from one unquantised chain at the largest T, for every size."""
    rows = ledger.sources.rows("surface_gradients.csv", P="1", B="1")
    if not rows:
        return ""
    t, q = (max((row[axis] for row in rows), key=float) for axis in ("T", "q"))
    here = [row for row in rows if (row["T"], row["q"]) == (t, q)]
    out = []
    for kind in dict.fromkeys((row["type"], row["N"]) for row in here):
        by_axis = {row["axis"]: row for row in here if (row["type"], row["N"]) == kind}
        first = next(iter(by_axis.values()))
        shown = [_gradient(ledger, by_axis[axis]) if axis in by_axis else "--" for axis in AXES]
        out.append(_line(ledger.show("text", first.cell("type")), ledger.show("integer", first.cell("N")), *shown))
    return "\n".join(out)


def _gradient(ledger: Ledger, row: Row) -> str:
    mark = "" if row["inside"] == "True" else r"\rlap{*}"
    return with_limits(ledger, row, "gradient", "times 100, 1 decimal") + mark


def laws(ledger: Ledger) -> str:
    """A table for each law: arms by parameters where there are several arms, else parameters one below the other."""
    top = max((row["T"] for row in ledger.sources.rows("laws.csv") if row["T"]), key=int, default="")
    rows = [row for row in ledger.sources.rows("laws.csv") if row["T"] in ("", top)]
    by_law: dict[str, list[Row]] = {}
    for row in rows:
        by_law.setdefault(row["law"], []).append(row)
    return "\n".join(_law(ledger, part) for part in by_law.values())


class _Notes:
    """Letters for the verdicts of a law, in the order in which they are met."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.letters: dict[str, str] = {}
        self.texts: list[str] = []

    def estimate(self, row: Row | None) -> str:
        """A parameter with its limits and the letter of its verdict; a dagger where it is not certified."""
        if row is None:
            return ""
        if row["verdict"] not in self.letters:
            letter = _letter(len(self.letters))
            self.letters[row["verdict"]] = letter
            self.texts.append(rf"\textsuperscript{{{letter}}}\,{self.ledger.show('text', row.cell('verdict'))}")
        mark = self.letters[row["verdict"]] + ("" if row["certified"] == "True" else r"\dag")
        return with_limits(self.ledger, row, "estimate", PLAIN) + rf"\textsuperscript{{{mark}}}"


def _letter(i: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    return (_letter(i // 26 - 1) if i >= 26 else "") + chr(ord("a") + i % 26)


def _law(ledger: Ledger, rows: list[Row]) -> str:
    notes = _Notes(ledger)
    by_arm: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_arm.setdefault(row["arm"], {})[row["parameter"]] = row
    parameters = list(dict.fromkeys(row["parameter"] for row in rows))
    if len(by_arm) > 2:
        body = [_block(notes, by_arm, parameters[i : i + BLOCK]) for i in range(0, len(parameters), BLOCK)]
    else:
        body = [_pairs(notes, rows)]
    title = rf"\lawtable{{{ledger.show('text', rows[0].cell('law'))}}}"
    return "\n".join([title, *body, rf"\lawnotes{{{'; '.join(notes.texts)}}}"])


def _block(notes: _Notes, by_arm: dict[str, dict[str, Row]], parameters: list[str]) -> str:
    """Arms by a few parameters, arms that have none of them left out."""
    show = notes.ledger.show
    heads = {p: next(row[p] for row in by_arm.values() if p in row) for p in parameters}
    lines = [_line("arm", *(show("text", heads[p].cell("parameter")) for p in parameters)) + r" \midrule\endhead"]
    for mine in by_arm.values():
        found = [mine.get(p) for p in parameters]
        there = [row for row in found if row is not None]
        if there:
            lines.append(_line(show("text", there[0].cell("arm")), *(notes.estimate(row) for row in found)))
    return "\n".join([rf"\begin{{lawblock}}{{l{'r' * len(parameters)}}}", *lines, r"\end{lawblock}"])


def _pairs(notes: _Notes, rows: list[Row]) -> str:
    """Parameters of one arm or two, PAIRS side by side."""
    show = notes.ledger.show
    several = len({row["arm"] for row in rows}) > 1
    cells = []
    for row in rows:
        name = show("text", row.cell("parameter"))
        cells.append((f"{show('text', row.cell('arm'))}: {name}" if several else name) + " & " + notes.estimate(row))
    lines = [_line(*cells[i : i + PAIRS]) for i in range(0, len(cells), PAIRS)]
    return "\n".join([rf"\begin{{lawblock}}{{{'lr' * min(PAIRS, len(cells))}}}", *lines, r"\end{lawblock}"])


def assumptions(ledger: Ledger) -> str:
    """The assumptions of the code, grouped by what they are about, each with its file and line."""
    out = []
    for _, part in groupby(ledger.sources.rows("paper/assumptions.csv"), key=lambda row: row["topic"]):
        group = list(part)
        out.append(rf"\topic{{{ledger.show('text', group[0].cell('topic'))}.}}\nopagebreak")
        for row in group:
            text, file, line = (ledger.show("text", row.cell(name)) for name in ("text", "file", "line"))
            out.append(rf"\assumption{{{text}}}{{{file}}}{{{line}}}")
    return "\n".join(out)
