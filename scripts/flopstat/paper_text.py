r"""Sentences of the paper. What a sentence says depends on the tables; every number in it is a \FS{name} of the ledger."""

from __future__ import annotations

from flopstat.latex import joined
from flopstat.sourced import Cell, Ledger, Row

PERCENT = "times 100, 1 decimal"
PLAIN = "significant, 3 digits"
NO_LAWS = "The study has no calibration problems, so no law is fitted or claimed."
STRATEGIES = {"best_of_mean_logprob": "best of $B$", "majority": "vote", "majority_of_best_of": "vote of best of $B$"}
HEADLINE = "flops"


def strategy(name: str) -> str:
    """A strategy in words; names are the code's own and hold no digits."""
    return STRATEGIES.get(name, name.replace("_", " "))


def with_limits(ledger: Ledger, row: Row, column: str, operation: str, low: str = "low", high: str = "high") -> str:
    """A value with its limits in brackets, if it has any; `low` and `high` are the columns that hold them."""
    if not row[low] and not row[high]:
        return f"{ledger.show(operation, row.cell(column))} (no limits)"
    value, *limits = (ledger.show(operation, row.cell(name)) for name in (column, low, high))
    return f"{value} [{limits[0]}, {limits[1]}]"


def chosen(ledger: Ledger, row: Row) -> str:
    """Accuracy of a frontier cell in percent, corrected for the choice where there are halves to correct with."""
    name = "accuracy_chosen" if row["accuracy_chosen"] else "accuracy"
    return with_limits(ledger, row, name, PERCENT, f"{name}_low", f"{name}_high")


def frontier_rows(ledger: Ledger) -> list[Row]:
    """The frontier over counted FLOP, by rising cost."""
    return sorted(ledger.sources.rows("frontier.csv", cost=HEADLINE), key=lambda row: row.value("value"))


def arm_rows(ledger: Ledger) -> list[Row]:
    """The row of each arm that holds its single chains on study problems at the arm's largest T."""
    found: dict[str, Row] = {}
    for row in ledger.sources.rows("configurations.csv", split="study", strategy="single"):
        if row["arm"] not in found or row.value("T") > found[row["arm"]].value("T"):
            found[row["arm"]] = row
    return list(found.values())


def largest_t(ledger: Ledger) -> str:
    return max((row["T"] for row in arm_rows(ledger)), key=int)


def arm_list(ledger: Ledger) -> str:
    return joined([ledger.show("text", row.cell("arm")) for row in arm_rows(ledger)])


def abstract(ledger: Ledger) -> str:
    """The two ends of the frontier."""
    first, *_, last = [*frontier_rows(ledger)[:1], *frontier_rows(ledger)]
    costs = [ledger.show(PLAIN, row.cell("value")) for row in (first, last)]
    return (
        f"The cheapest configuration of the frontier costs {costs[0]} FLOP per problem and answers {chosen(ledger, first)}\\,\\% right, "
        f"the dearest {costs[1]} and {chosen(ledger, last)}\\,\\%."
    )


def crossovers(ledger: Ledger) -> str:
    """One sentence for each pair of models, of the larger one's single pass."""
    seen: dict[tuple[str, str], Row] = {}
    for row in ledger.sources.rows("crossovers.csv", cost=HEADLINE):
        seen.setdefault((row["small"], row["large"]), row)  # the single pass comes first
    return " ".join(crossover(ledger, row) for row in seen.values())


def crossover(ledger: Ledger, row: Row) -> str:
    large, small = (ledger.show("text", row.cell(name)) for name in ("large", "small"))
    at, low, high = (ledger.show(PLAIN, row.cell(name)) for name in ("at", "at_low", "at_high"))
    kind = {"single": "A single pass", "greedy": "A greedy pass", "best": "The best configuration"}[row["kind"]]
    subject = f"{kind} of {large}"
    if row["status"] == "found":
        return f"{subject} overtakes the best of {small} at {at} FLOP per problem (interval {low} to {high})."
    if row["status"] == "at_entry":
        return f"{subject} is ahead of the best of {small} as soon as it is affordable, at {at} FLOP per problem."
    if row["status"] == "none_in_range":
        return f"{subject} is behind the best of {small} at every cost of the measured range, beyond the simultaneous limits."
    if row["status"] == "unknown_cost":
        return f"{large} and {small} are not compared, for one of them has no counted cost."
    if row["status"] == "one_model":
        return "The study has one model, so no crossover is asked for."
    more = f"; about {ledger.show('integer', row.cell('n_more'))} more problems would settle it" if row["n_more"] else ""
    if row["at_high"]:
        return (
            f"{subject} is ahead of the best of {small} from {high} FLOP per problem on; from {low}, where it becomes affordable, up to "
            f"there the two are not separable{more}."
        )
    return f"{subject} and the best of {small} are not separable on these problems{more}."


def _count(ledger: Ledger, row: Row, **where: str) -> str:
    """How many rows of a row's file hold these texts."""
    return ledger.show("number of rows", Cell(row.file, tuple(where.items()), ""))


def votes(ledger: Ledger) -> str:
    kappa = ledger.sources.rows("laws.csv", parameter="kappa")
    if not kappa:
        return NO_LAWS
    top = {"parameter": "kappa", "T": max((row["T"] for row in kappa), key=int)}
    gains = _count(ledger, kappa[0], **top, **{"verdict ~": "votes gain"})
    rejected = _count(ledger, kappa[0], **top, **{"verdict ~": "log law rejected"})
    arms = _count(ledger, kappa[0], **top)
    level = ledger.show("times 100, whole", setting(ledger, "rejected"))
    flips = {"T": top["T"], "parameter": "lack_of_fit_p", "fragile": "True"}
    fragile = ledger.show("number of distinct values", Cell("law_sensitivity.csv", tuple(flips.items()), "arm"))
    return (
        f"At the largest $T$ votes gain accuracy in {gains} of {arms} arms (lower limit of $\\kappa$ above zero); the form $\\kappa\\ln P$ "
        f"is rejected at the {level}\\,\\% level in {rejected} of {arms}, a verdict that changes with the $P$ that are fitted in {fragile} "
        f"(\\texttt{{law\\_sensitivity.csv}}). Where it is rejected $\\kappa$ leans on the small $P$, whose "
        "gains are known best, and the gain of the last doubling in Table~\\ref{tab:arms} is the one to read."
    )


def setting(ledger: Ledger, key: str) -> Cell:
    return ledger.sources.one("paper/settings.csv", key=key).cell("value")


def coverage(ledger: Ledger) -> str:
    """How many arms each law of coverage survives on the k that it had not seen."""
    names = {
        "coverage": "$\\exp(ak^b)$",
        "coverage-beta": "the beta-binomial law",
        "ttspm": "$F_{\\max}(1-(1-p)^k)$",
    }
    parts = []
    for law, name in names.items():
        rows = ledger.sources.rows("laws.csv", law=law, parameter="rmse_unseen_k")
        if rows:
            key = {"law": law, "parameter": "rmse_unseen_k"}
            held, arms = (_count(ledger, rows[0], **key, **words) for words in ({"verdict ~": "holds"}, {}))
            parts.append(f"{name} holds in {held} of {arms} arms")
    return f"On the $k$ that the laws of coverage had not seen, {joined(parts)}." if parts else ""


def alphas(ledger: Ledger) -> str:
    rows = ledger.sources.rows("laws.csv", law="alpha-q", parameter="alpha")
    if not rows:
        return ""
    top = {"law": "alpha-q", "parameter": "alpha", "T": max((row["T"] for row in rows), key=int)}
    known = _count(ledger, rows[0], **top)
    lost = _count(ledger, rows[0], **top, **{"verdict ~": "not identified"})
    text = (
        f"Of {known} quantised arms at the largest $T$, $\\alpha(q)$ is not identified in {lost}: their accuracy lies outside that of the "
        "unquantised models, and only a limit is given."
    )
    gamma = ledger.sources.rows("laws.csv", law="alpha-q", parameter="gamma", T=top["T"])
    if gamma and gamma[0]["estimate"]:
        text += (
            f" The curve over bits has $\\gamma=$ {with_limits(ledger, gamma[0], 'estimate', PLAIN)} bits "
            f"({ledger.show('text', gamma[0].cell('verdict'))})."
        )
    return text


def surface(ledger: Ledger) -> str:
    best = ledger.sources.rows("laws.csv", law="surface", parameter="best_type")
    if not best or not best[0]["estimate"]:
        return ""
    errors = {r["parameter"].removeprefix("heldout_rmse."): r for r in ledger.sources.rows("laws.csv", law="surface")}
    words = {"logs": "additive in logarithms", "latent": "latent Beta", "bnsl": "broken power laws", "nearest": "the nearest measured cell"}
    parts = [f"{name} {with_limits(ledger, errors[kind], 'estimate', '2 decimals')}" for kind, name in words.items() if kind in errors]
    return (
        f"The surface $A(N,T,P,B,q)$, fitted to some cells and judged on others (a size, a precision, the largest $T$ or the largest $P$ "
        f"left out), errs by, in points of accuracy: {', '.join(parts)}; {ledger.show('text', best[0].cell('verdict'))}."
    )


def four_bits(ledger: Ledger) -> str:
    rows = [
        (name, ledger.sources.rows("laws.csv", law="k-bit", parameter=f"p_four_bit_{kind}_any"))
        for kind, name in (("nominal", "by its name"), ("effective", "by measured bits"))
    ]
    found = [f"{name}, {ledger.show('text', row[0].cell('verdict'))}" for name, row in rows if row]
    if not found:
        return ""
    return f"Whether a precision of four bits is most accurate for its weight bits (Table~\\ref{{tab:weightbits}}): {'; '.join(found)}."


def cost_per_answer(ledger: Ledger) -> str:
    rows = ledger.sources.rows("cost_per_correct.csv")
    if not rows:
        return ""
    alone, arms = _count(ledger, rows[0], P="1", P_high="1"), _count(ledger, rows[0])
    return (
        f"Counted FLOP per right answer is lowest without votes ($P=1$, with its whole interval) in {alone} of {arms} arms: there votes "
        "buy accuracy and do not pay for themselves."
    )


def latency(ledger: Ledger, references: dict[str, str]) -> str:
    """How long a vote of the largest model takes to be in, and what votes do to throughput."""
    rows = [
        r for r in ledger.sources.rows("latency_by_streams.csv", metric="latency_p50_s") if references.get(r["model"]) == r["precision"]
    ]
    if not rows:
        return ""
    arm = max(rows, key=lambda r: (r.value("n_params"), r["arm"]))["arm"]
    mine = sorted((r for r in rows if r["arm"] == arm), key=lambda r: r.value("P"))
    one, many = (f"{with_limits(ledger, r, 'value', PLAIN)}\\,s" for r in (mine[0], mine[-1]))
    text = f"The median wait of {ledger.show('text', mine[0].cell('arm'))} is {one} with one stream"
    if len(mine) > 1:
        text += f" and {many} until the slowest of {ledger.show('integer', mine[-1].cell('P'))} is in"
    return text + ", by the latency model of this machine."
