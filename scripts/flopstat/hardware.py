"""Devices that are not here: data-sheet numbers from a dated file, for plans and what-if scenarios."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flopstat import plain_yaml
from flopstat.config import ROOT
from flopstat.errors import InputError
from flopstat.latency import Device

HARDWARE = ROOT / "config" / "hardware.yaml"
TERA, GIGA, GIB = 1e12, 1e9, 2.0**30  # the file's units in FLOP/s, byte/s and bytes
_NUMBERS = ("tflops", "bandwidth_gb_s", "memory_gib")


def read(path: Path = HARDWARE) -> dict[str, Device]:
    """Devices by name, as the file has them.

    # ASSUME data sheets hold, with dense half-precision tensor peak and full memory bandwidth, whatever clocks and cooling give

    Raises
    ------
    InputError
        For a file that is missing, not YAML or not dated, and for an entry without its source or with a number that is not positive.
    """
    table = plain_yaml.read(path, "hardware table", "config/hardware.yaml is the shipped one")
    if not (isinstance(table, dict) and table.get("as_of") and isinstance(table.get("devices"), dict) and table["devices"]):
        raise InputError(f"{path}: a mapping with as_of (a date) and devices is wanted")
    return {name: _device(path, str(table["as_of"]), str(name), entry) for name, entry in table["devices"].items()}


def _device(path: Path, as_of: str, name: str, entry: Any) -> Device:
    wanted = {*_NUMBERS, "source"}
    if not isinstance(entry, dict) or set(entry) != wanted:
        raise InputError(f"{path}: devices.{name}: exactly {', '.join(sorted(wanted))} are wanted")
    for key in _NUMBERS:
        value = entry[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1e12:
            raise InputError(f"{path}: devices.{name}.{key} is {value!r}; a positive number is wanted")
    return Device(
        name=name,
        peak_flops=entry["tflops"] * TERA,
        bandwidth=entry["bandwidth_gb_s"] * GIGA,
        fingerprint=f"data sheet, {as_of}",
        memory_bytes=entry["memory_gib"] * GIB,
    )


def find(devices: dict[str, Device], name: str) -> Device:
    """The device of a name, upper and lower case alike.

    Raises
    ------
    InputError
        For a device that the table does not hold; it lists those that it does.
    """
    by_name = {known.lower(): device for known, device in devices.items()}
    if name.lower() not in by_name:
        raise InputError(f"device {name!r}: not in the hardware table; it knows {', '.join(devices)}; add yours to config/hardware.yaml")
    return by_name[name.lower()]
