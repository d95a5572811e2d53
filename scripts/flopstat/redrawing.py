"""Cells, frontier and crossovers as a scenario would have them: costs anew from the graded chains, accuracies as they were estimated."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from flopstat.cells import matrices
from flopstat.columns import TABLES
from flopstat.costs import COST_UNITS, COSTS, Floats, Flops, Whole, kv_bytes_per_token, weight_bytes_read
from flopstat.frontier import Judged, crossovers, pareto, with_cost
from flopstat.hardware import find
from flopstat.kinetics import DENSE, Attention, sparse_decode
from flopstat.latency import Device, Latency
from flopstat.models import Card, ModelCard
from flopstat.prices import Prices
from flopstat.scenarios import Scenario
from flopstat.spending import ArmFacts, Spending, provisioned
from flopstat.strategies import GREEDY

CELL = ["arm", "model", "n_params", "precision", "bits_effective", "T", "P", "B", "strategy"]


@dataclass(frozen=True)
class ScaledFlops(Flops):
    """FLOP counts with factors on the products with weights and on attention, and with sparse attention while decoding.

    Worked by hand: W_layers 100, W_head 10, 4LHd 8, prompt 5, 3 tokens, factors 1/2 and 1/4: 440/2 + 8·13/4 = 246; with a budget of 4
    tokens 440/2 + 8·8/4 = 236.
    """

    weights: float = 1.0
    attending: float = 1.0
    kind: Attention = DENSE

    def _parts(self) -> tuple[Flops, Flops]:
        """The counts of products with weights alone, and of attention alone."""
        return (
            Flops(self.layer_weights, self.head_weights, 0),
            Flops(0, 0, self.attention, self.sliding_attention, self.window),
        )

    def prefill(self, n: Whole) -> Floats:
        dense, attention = self._parts()
        return np.asarray(self.weights * dense.prefill(n) + self.attending * attention.prefill(n))

    def forward(self, n: Whole) -> Floats:
        dense, attention = self._parts()
        return np.asarray(self.weights * dense.forward(n) + self.attending * attention.forward(n))

    def step(self, context: Whole) -> Floats:
        """A dense step: `SparseLatency` shortens the context instead."""
        dense, attention = self._parts()
        return np.asarray(self.weights * dense.step(context) + self.attending * attention.step(context))

    def decode(self, prompt: Whole, tokens: Whole) -> Floats:
        dense, attention = self._parts()
        attended = sparse_decode(attention, prompt, tokens, self.kind)
        return np.asarray(self.weights * dense.decode(prompt, tokens) + self.attending * attended)


@dataclass(frozen=True)
class SparseLatency(Latency):
    """Times of decoding that attends to a budget of tokens: a step sees min(context, budget) of them, and half of one per scored key.

    Worked by hand: a step of 1 s and 0.1 s per attended token, budget 4, blocks of 2: at context 10 it is 1 + 0.1·(4 + 10/2/2) = 1.65 s.
    """

    kind: Attention = DENSE

    def step_s(self, batch: ArrayLike, context: ArrayLike) -> Floats:
        c = np.asarray(context, dtype=np.float64)
        scored = 0.0 if self.kind.block is None else np.where(c > self.kind.budget, c / self.kind.block / 2, 0.0)
        return self.decode.seconds(batch, np.minimum(c, self.kind.budget) + scored)


def _attention(scenario: Scenario) -> Attention:
    return DENSE if scenario.attention_budget is None else Attention(float(scenario.attention_budget), scenario.attention_block)


def flops_under(scenario: Scenario, card: ModelCard) -> Flops:
    """FLOP counts of a model under a scenario."""
    counts = asdict(Flops.of(card))
    return ScaledFlops(**counts, weights=scenario.weights_flops, attending=scenario.attention_flops, kind=_attention(scenario))


def facts_under(scenario: Scenario, facts: ArmFacts, devices: Mapping[str, Device], prices: Prices | None, prompt_tokens: int) -> ArmFacts:
    """What an arm's costs stand on under a scenario.

    c_counted scales as the closed form of a forward pass does. Another device has the roofline's times, a lower bound, for a batch of the
    size that was calibrated here, the weights that one stream needs, and the price that the scenario or the study's table has.

    Parameters
    ----------
    prompt_tokens : length at which c_counted was counted
    prices : None: the study leaves money out
    """
    assert isinstance(facts.card, ModelCard)
    kv_bits = facts.kv_bits if scenario.kv_bits is None else scenario.kv_bits
    flops, measured = flops_under(scenario, facts.card), Flops.of(facts.card)
    ratio = float(flops.forward(prompt_tokens) / measured.forward(prompt_tokens))
    latency, usd = facts.latency, facts.usd_per_hour
    if scenario.device is not None and latency is not None and facts.bits_effective is not None:
        device = find(dict(devices), scenario.device)
        weights = weight_bytes_read(facts.card, facts.bits_effective, 1)
        nominal = Latency.roofline(flops, weights, kv_bytes_per_token(facts.card, kv_bits), device)
        parts = {name: getattr(nominal, name) for name in ("device", "prefill", "decode", "held_out_error", "form")}
        latency = SparseLatency(**parts, max_batch=latency.max_batch, kind=_attention(scenario))
        usd = prices.usd_per_hour(device.name) if prices else None
    return replace(
        facts,
        c_counted=None if facts.c_counted is None else facts.c_counted * ratio,
        latency=latency,
        kv_bits=kv_bits,
        usd_per_hour=usd if scenario.usd_per_hour is None else scenario.usd_per_hour,
        attention=_attention(scenario),
    )


def _cell_costs(cells: pd.DataFrame, part: pd.DataFrame, gold: dict[str, str], facts: ArmFacts, flops: Flops, answer: int) -> pd.DataFrame:
    """The cost columns of the cells of one (arm, T), without limits; row for row as `cells`."""
    arm = matrices(part, gold, flops)
    t = int(cells["T"].iloc[0])
    keys = list(zip(cells["strategy"] == GREEDY, cells["P"] * cells["B"], strict=True))
    spending = {greedy: Spending(facts, arm.greedy if greedy else arm.chains, t + answer) for greedy in {greedy for greedy, _ in keys}}
    even = np.full((1, len(arm.problem_ids)), 1 / len(arm.problem_ids))
    known: dict[tuple[bool, int], dict[str, float]] = {}
    for greedy, k in dict.fromkeys(keys):
        at = spending[greedy].at(k)
        means = np.column_stack(list(at.values())).mean(axis=0)
        waiting = spending[greedy].waiting(k, even, 0.95)
        known[greedy, k] = dict(zip(at, means.tolist(), strict=True)) | {name: three[0] for name, three in waiting.items()}
    rows = []
    for key, p, b in zip(keys, cells["P"], cells["B"], strict=True):
        nominal = provisioned(facts, p, b, t, answer, float(arm.tokens.mean()))
        costs = known[key] | {name: three[0] for name, three in nominal.items()}
        rows.append([costs.get(cost, np.nan) for cost in COSTS])
    return pd.DataFrame(rows, columns=list(COSTS), index=cells.index, dtype=float)


@dataclass(frozen=True)
class Graded:
    """A study's chains and what their costs stand on."""

    facts: dict[str, ArmFacts]  # by arm; imported arms too
    grades: dict[str, pd.DataFrame]  # by arm; those of imported arms are not needed
    gold: dict[str, str]  # study problems, id to answer
    answer_tokens: int  # A, 0 where no answer is forced
    prompt_tokens: int  # of the calibration's prefill
    devices: Mapping[str, Device]
    prices: Prices | None


def recost(judged: Judged, scenario: Scenario, graded: Graded, costs: Collection[str] | None = None) -> Judged:
    """The study's cells with the costs that a scenario gives them, to ten digits as the study's tables hold them.

    Parameters
    ----------
    costs : columns to compute anew; those that the scenario moves if left out

    Cells that do not fit the memory of a scenario's device have none of the costs that it moves, and so have imported arms, whose shape
    and times are not known.
    """
    cells = judged.cells.copy()
    moved = [cost for cost in COSTS if cost in (scenario.moves if costs is None else costs)]
    cells[moved] = np.nan
    for (name, t), own in judged.cells.groupby(["arm", "T"], sort=False):
        facts = graded.facts[str(name)]
        if not isinstance(facts.card, ModelCard):
            continue
        chains = graded.grades[str(name)]
        part = chains[(chains["T"] == t) & (chains["split"] == "study")]
        changed = facts_under(scenario, facts, graded.devices, graded.prices, graded.prompt_tokens)
        found = _cell_costs(own, part, graded.gold, changed, flops_under(scenario, facts.card), graded.answer_tokens)
        if scenario.device is not None:
            memory = find(dict(graded.devices), scenario.device).memory_bytes
            found.loc[found["memory_bytes"] > (np.inf if memory is None else memory), :] = np.nan
        cells.loc[own.index, moved] = found[moved]
    cells[moved] = cells[moved].map(lambda value: float(f"{value:.10g}"))
    return replace(judged, cells=cells)


def redraw(judged: Judged, changed: Judged, scenario: str, costs: Iterable[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The frontier's cells among all, and the crossovers, of a scenario: rows of scenarios.csv and scenario_crossovers.csv.

    Parameters
    ----------
    judged, changed : the cells as measured, and as `recost` has them
    costs : cost columns to redraw
    """
    edges, crossings = [], []
    for cost in costs:
        value, measured = changed.cells[cost].to_numpy(dtype=float), judged.cells[cost].to_numpy(dtype=float)
        if np.isnan(value).all() and np.isnan(measured).all():
            continue
        row = changed.cells[CELL].assign(scenario=scenario, cost=cost, unit=COST_UNITS[cost], value_as_measured=measured, value=value)
        row[["accuracy", "accuracy_low", "accuracy_high"]] = changed.cells[["accuracy", "accuracy_low", "accuracy_high"]]
        row["on_frontier"] = on_frontier(changed, cost)
        row["on_frontier_as_measured"] = on_frontier(judged, cost)
        edges.append(row)
        crossings.append(crossovers(changed, cost).assign(scenario=scenario))
    if not edges:
        return pd.DataFrame(columns=list(TABLES["scenarios"])), pd.DataFrame(columns=list(TABLES["scenario_crossovers"]))
    tables = pd.concat(edges, ignore_index=True), pd.concat(crossings, ignore_index=True)
    return tables[0][list(TABLES["scenarios"])], tables[1][list(TABLES["scenario_crossovers"])]


def on_frontier(judged: Judged, cost: str) -> NDArray[np.bool_]:
    """Whether each cell is one that no other beats, as in `frontier.frontier`; never without the cost."""
    known = judged.cells[cost].notna().to_numpy()
    out = np.zeros(len(known), dtype=bool)
    if known.any():
        cells = with_cost(judged, cost).cells
        out[known] = pareto(cells[cost].to_numpy(dtype=float), cells["accuracy"].to_numpy(dtype=float))
    return out


def unfit(changed: Judged, scenario: Scenario, cards: Mapping[str, Card]) -> int:
    """How many cells of sampled arms a scenario's device has no memory for."""
    if scenario.device is None:
        return 0
    sampled = changed.cells["arm"].map(lambda arm: isinstance(cards[arm], ModelCard))
    return int((sampled & changed.cells["device_s"].isna()).sum())


def redraw_all(judged: Judged, scenarios: Iterable[Scenario], graded: Graded) -> Iterator[tuple[Scenario, int, pd.DataFrame, pd.DataFrame]]:
    """Each scenario with the number of cells that do not fit, and its rows of the two tables, for the costs that it moves."""
    cards = {name: facts.card for name, facts in graded.facts.items()}
    for scenario in scenarios:
        changed = recost(judged, scenario, graded)
        moved = [cost for cost in COSTS if cost in scenario.moves]
        yield scenario, unfit(changed, scenario, cards), *redraw(judged, changed, scenario.name, moved)
