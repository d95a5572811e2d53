"""What an arm's costs stand on, gathered from its card, its calibration and the price table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flopstat import stored
from flopstat.latency import Latency
from flopstat.models import Card
from flopstat.prices import Prices
from flopstat.spending import ArmFacts, Verifier


def read_facts(card: Card, precision: str, path_to_measured: Path | None, prices: Prices | None, config: dict[str, Any]) -> ArmFacts:
    """Facts of an arm; one whose samples are imported has no calibration.

    Parameters
    ----------
    prices : None: money is left out
    config : kv_bits, per element of keys and values as the arm was sampled, and costs

    Raises
    ------
    InputError
        For a calibration that can't be read.
    """
    if path_to_measured is None:
        verifier = config["costs"]["verifier"]
        token_price = prices.usd_per_million(card.name) if prices else None
        return ArmFacts(card, precision, None, None, None, token_price=token_price, verifier=Verifier(**verifier) if verifier else None)
    latency = Latency.read(path_to_measured)
    result = stored.read_json(path_to_measured)
    prefill = {row["metric"]: row for row in result["rows"] if row["phase"] == "prefill"}
    effective = prefill["c_effective"]
    return ArmFacts(
        card,
        precision,
        result["bits_effective"],
        prefill["c_counted"]["value"],
        (effective["value"], effective["low"], effective["high"]),
        latency,
        config["kv_bits"],
        prices.usd_per_hour(config["costs"]["price_device"]) if prices else None,
    )
