"""What the command line prints of laws and fits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flopstat.errors import printable
from flopstat.lawbook.catalogue import Law
from flopstat.lawbook.optimum import with_inference
from flopstat.lawbook.refutation import Sensitivity
from flopstat.lawbook.result import Fit
from flopstat.lawbook.rivals import Comparison

SARDANA_LOSS, SARDANA_TOKENS = 2.0, (0.0, 1e12, 1e13)  # of the worked example: nat/token, and tokens that the model will serve


def listed(laws: Iterable[Law]) -> list[dict[str, Any]]:
    """One row per law for `flopstat laws --json`."""
    return [
        {
            "id": law.id,
            "title": law.title,
            "formula": f"{law.response.name} = {law.formula}",
            "variables": law.variable_names,
            "parameters": law.names,
            "objective": law.objective,
            "source": law.source,
            "equation": law.equation,
        }
        for law in laws
    ]


def table(laws: Iterable[Law]) -> Any:
    """The catalogue as a rich table."""
    from rich.table import Table
    from rich.text import Text

    out = Table(title="laws; `flopstat laws NAME` explains one")
    for name in ("id", "what it says", "formula", "source"):
        out.add_column(name, overflow="fold")
    for law in laws:
        row = (law.id, law.title, f"{law.response.name} = {law.formula}", law.source.split(",")[0])
        out.add_row(*(Text(printable(text)) for text in row))  # a study's own law may hold anything
    return out


def explained(law: Law) -> list[str]:
    """One law in full, its worked example computed now."""
    response = law.response
    lines = [
        f"{law.id}: {law.title}",
        f"  {response.name} = {law.formula}",
        f"  LaTeX: {law.latex}",
        f"  {response.name}: {response.meaning} [{response.unit}]",
    ]
    lines.append("variables")
    for v in law.variables:
        usual = f", usually {v.range[0]:g} to {v.range[1]:g}" if v.range else ""
        lines.append(f"  {v.name}: {v.meaning} [{v.unit}]{usual}{'' if v.positive else ', may be 0 or negative'}")
    lines.append("parameters")
    for p in law.parameters:
        starts = ", ".join(s if isinstance(s, str) else f"{s:.4g}" for s in p.starts)
        lines.append(f"  {p.name}: {p.meaning} [{p.unit}], {p.low:g} to {p.high:g}, searched on the {p.scale} scale from {starts}")
    lines += [f"objective: {law.objective}", f"source: {law.source}; equation {law.equation}", f"validity: {law.validity}", "caveats"]
    lines += [f"  {c}" for c in law.caveats]
    example = law.example
    told = ", ".join(f"{k} = {v:g}" for k, v in (example.parameters | example.at).items())
    lines += ["example", f"  {told}", f"  gives {response.name} = {float(law.predict(example.parameters, example.at)):.6g} {response.unit}"]
    for d in law.derived:
        value = float(law.derive(d.name, example.parameters, d.at))
        at = " at " + ", ".join(f"{k} = {v:g} {d.variables[k]}" for k, v in d.at.items()) if d.at else ""
        lines += [f"derived {d.name}: {d.meaning}", f"  {d.name} = {d.formula}", f"  in the example {value:.6g} {d.unit}{at}"]
    return lines + (_with_inference(law) if law.id == "sardana" else [])


def _with_inference(law: Law) -> list[str]:
    """The cheapest models of one loss, by the tokens they will serve: the optimum has no closed form that `derived` could hold."""
    lines = [f"cheapest N and D for a loss of {SARDANA_LOSS:g} {law.response.unit}, by tokens of inference"]
    for tokens in SARDANA_TOKENS:
        best = with_inference(law.example.parameters, SARDANA_LOSS, tokens)
        lines.append(f"  {tokens:g}: N = {best.n_params:.4g} parameters, D = {best.tokens:.4g} tokens, {best.flops:.4g} FLOP in all")
    return lines


def fitted(result: Fit) -> list[str]:
    """A fit: parameters with both intervals, objective, certificate."""
    law, share = result.law, result.confidence
    lines = [f"{law.id}: {law.response.name} = {law.formula}, {result.n} points, data {result.data_hash[:12]}"]
    lines.append(f"{'parameter':<12}{'value':>12}{'error':>12}{f'bootstrap {share:.0%}':>27}{f'profile {share:.0%}':>27}")
    for name, e in result.parameters.items():
        ends = (f"[{e.low:.5g}, {e.high:.5g}]", f"[{e.profile_low:.5g}, {e.profile_high:.5g}]")
        lines.append(f"{name:<12}{e.value:>12.5g}{e.se:>12.3g}{ends[0]:>27}{ends[1]:>27}")
    lines += [f"{name:<12}{value:>12.5g}   held" for name, value in result.fixed.items()]
    lines.append(f"objective {result.objective:.6e} ({result.objective_name})")
    c = result.certificate
    lines.append(f"starts at the optimum {c.starts_at_optimum:.1%} of {c.starts}, relative gradient {c.gradient_norm:.1e}")
    lines.append("certified" if c.certified else "refused: " + "; ".join(c.reasons))
    return lines


def compared(result: Comparison) -> list[str]:
    """Candidates with their errors on points not seen, and the verdict."""
    lines = [f"{'candidate':<20}{'error':>11}{'at largest':>12}{'log score':>11}{'less the best':>28}{'bend p':>9}  verdict"]
    for r in result.rivals:
        gap = f"{r.difference:.2f} [{r.low:.2f}, {r.high:.2f}]"
        lines.append(f"{r.name:<20}{r.error:>11.4g}{r.largest_error:>12.4g}{r.log_score:>11.2f}{gap:>28}{r.bend_p:>9.3g}  {r.verdict}")
    return [*lines, result.verdict]


def varied(result: Sensitivity) -> list[str]:
    """One line per choice of objective and starts, and the conclusions that flip."""
    lines = []
    for c in result.choices:
        label = f"{c.objective:<14}{c.starts:<8}"
        if c.result is None:
            lines.append(f"{label}not possible: {c.refused}")
        else:
            values = "  ".join(f"{n} {e.value:.4g} [{e.low:.4g}, {e.high:.4g}]" for n, e in c.result.parameters.items())
            lines.append(f"{label}{values}  {'certified' if c.result.certificate.certified else 'refused'}")
    return lines + ([f"fragile: {f}" for f in result.fragile] or ["no conclusion flips"])
