"""Prices: a dated table of what an hour of a device and a million tokens of a hosted model cost."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flopstat import plain_yaml
from flopstat.errors import InputError


@dataclass(frozen=True)
class TokenPrice:
    """US$ per million prompt and generated tokens of a hosted model."""

    prompt: float
    generated: float

    def usd(self, prompt: ArrayLike, generated: ArrayLike) -> NDArray[np.float64]:
        """Price of a request. Worked by hand: 0.1 and 0.4 $ per million: 2,000 and 1,000 tokens cost 0.0002 + 0.0004 = 0.0006 $."""
        return (self.prompt * np.asarray(prompt, dtype=np.float64) + self.generated * np.asarray(generated, dtype=np.float64)) / 1e6


@dataclass(frozen=True)
class Prices:
    """A price table: when it was noted, how long it is good for, and the prices."""

    path: Path
    as_of: datetime.date
    valid_until: datetime.date
    devices: dict[str, float]  # US$ per hour
    tokens: dict[str, TokenPrice]

    @classmethod
    def read(cls, path: Path) -> Prices:
        """Read a table such as config/prices.yaml.

        Raises
        ------
        InputError
            If the file is missing, lacks a part, or holds a price that is no positive number.
        """
        raw = plain_yaml.read(path, "price table", "see config/prices.yaml")
        for key, kind in {"as_of": datetime.date, "valid_until": datetime.date, "devices": dict, "tokens": dict}.items():
            if not isinstance(raw, dict) or not isinstance(raw.get(key), kind):
                wanted = "a date such as 2026-01-31" if kind is datetime.date else "a mapping"
                raise InputError(f"{path}: {key} is missing or not {wanted}; see config/prices.yaml")
        devices = {name: _price(entry, "usd_per_hour", f"{path}: devices.{name}") for name, entry in raw["devices"].items()}
        kinds = ("usd_per_million_prompt", "usd_per_million_generated")
        tokens = {
            name: TokenPrice(*(_price(entry, kind, f"{path}: tokens.{name}") for kind in kinds)) for name, entry in raw["tokens"].items()
        }
        return cls(path, raw["as_of"], raw["valid_until"], devices, tokens)

    def usd_per_hour(self, device: str) -> float | None:
        """US$ per hour of a device, None if the table does not have it."""
        return self.devices.get(device)

    def usd_per_million(self, model: str) -> TokenPrice | None:
        """US$ per million tokens of a hosted model, None if the table does not have it."""
        return self.tokens.get(model)

    def check(self, device: str, day: datetime.date | None) -> None:
        """Make sure that the table prices a device, and is still good on a day.

        Raises
        ------
        InputError
            If it is out of date, or does not know the device.
        """
        if day is not None and self.valid_until < day:
            remedy = "bring its prices up to date, or name an older day"
            raise InputError(f"{self.path}: valid until {self.valid_until}, but costs.prices_as_of is {day}; {remedy}")
        if device not in self.devices:
            raise InputError(f"costs.price_device {device!r}: not in {self.path}; it has {', '.join(sorted(self.devices))}")


def _price(entry: Any, key: str, where: str) -> float:
    value = entry.get(key) if isinstance(entry, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1e12:
        raise InputError(f"{where}: {key} is {value!r}; a positive number of US$ is wanted")
    if not entry.get("source"):
        raise InputError(f"{where}: has no source; say where the price stands")
    return float(value)
