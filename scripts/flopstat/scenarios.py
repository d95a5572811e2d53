"""What-if scenarios: what a study would cost if something about its hardware, prices, attention or cache were different.

A scenario changes what it names, and the cost columns that stand on it; accuracies stay as measured. Which column stands on what:

    weights_flops, attention_flops   flops, flops_nominal (through c_counted), eflops
    attention_budget, _block         flops, eflops (decoding only: flops_nominal stands on a dense prefill; streams that pick their own
                                     tokens share no reading of the prompt, so a budget that never cuts costs more eflops than none)
    kv_bits                          memory_bytes, eflops
    device                           eflops, device_s, latencies, usd, joules; what does not fit its memory drops out
    usd_per_hour                     usd

Times as measured are those of the kernels that ran: whether FLOP or bytes that are saved save time is for another measurement. So only a
scenario that names a device moves times, and there all that it changes enters the roofline.

# ASSUME accuracies stay in a scenario: what fewer FLOP of attention, a sparse one or a compressed cache do to the answers is not measured
# ASSUME weights are held on a scenario's device at the bits that they are held at here

Source: multipliers as of activation sketching; Sadhukhan et al. 2025 (Kinetics) for sparse attention.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from flopstat import hardware
from flopstat.errors import InputError

COUNTED = ("flops", "flops_nominal", "eflops")
TIMED = ("device_s", "latency_p50_s", "latency_p90_s", "usd", "joules")
RESERVED = "as measured"  # name of the study itself in figures


@dataclass(frozen=True)
class Scenario:
    """One named change. What is left out stays as measured."""

    name: str
    weights_flops: float = 1.0  # factor on the FLOP of products with weights
    attention_flops: float = 1.0  # factor on the FLOP of attention
    attention_budget: int | None = None  # tokens that a decoding step attends to at most
    attention_block: int | None = None  # tokens per block that is scored to pick them; None: known for free
    kv_bits: float | None = None  # per element of keys and values
    device: str | None = None  # name in config/hardware.yaml
    usd_per_hour: float | None = None

    @property
    def changes(self) -> bool:
        """Whether anything is changed at all."""
        return any(getattr(self, f.name) != f.default for f in fields(self) if f.name != "name")

    @property
    def moves(self) -> frozenset[str]:
        """The cost columns that stand on what is changed."""
        moved: set[str] = set()
        if self.weights_flops != 1 or self.attention_flops != 1:
            moved |= set(COUNTED)
        if self.attention_budget is not None:
            moved |= {"flops", "eflops"}
        if self.kv_bits is not None:
            moved |= {"memory_bytes", "eflops"}
        if self.device is not None:
            moved |= {"eflops", *TIMED}
        if self.usd_per_hour is not None:
            moved |= {"usd"}
        return frozenset(moved)


def scenarios_of(config: Mapping[str, Any]) -> list[Scenario]:
    """The scenarios of a resolved config."""
    return [Scenario(**entry) for entry in config["scenarios"]]


def check_scenarios(config: Mapping[str, Any]) -> None:
    """What no schema can say of the scenarios.

    Raises
    ------
    InputError
        For a name that stands twice or is the study's own, a scenario that changes nothing, blocks without a budget, blocks as large as
        the budget, or a device that config/hardware.yaml does not hold.
    """
    _check(scenarios_of(config))


def _check(scenarios: Sequence[Scenario]) -> None:
    names = {RESERVED}
    for i, scenario in enumerate(scenarios):
        where = f"scenarios.{i}"
        if scenario.name.lower() in names:
            taken = "names the study itself" if scenario.name.lower() == RESERVED else "stands twice (upper and lower case count as one)"
            raise InputError(f"{where}.name {scenario.name!r}: {taken}; rename it")
        names.add(scenario.name.lower())
        if not scenario.changes:
            raise InputError(f"{where} {scenario.name!r}: changes nothing; set one of {', '.join(f.name for f in fields(scenario)[1:])}")
        if scenario.attention_block is not None:
            if scenario.attention_budget is None:
                raise InputError(f"{where}.attention_block: picks nothing without attention_budget; set that, or leave this out")
            if scenario.attention_block > scenario.attention_budget:
                raise InputError(
                    f"{where}.attention_block: {scenario.attention_block} tokens, but the budget holds {scenario.attention_budget}; "
                    "it must hold a block at least"
                )
        if scenario.device is not None:
            try:
                hardware.find(hardware.read(), scenario.device)
            except InputError as error:
                raise InputError(f"{where}.{error}") from None
