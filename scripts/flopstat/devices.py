"""Which machine a timing was made on, and whether it is this one. No torch here: plans ask this, too."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

from flopstat.errors import InputError
from flopstat.latency import Latency


def short_hash(values: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits that stand for a mapping."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def processor() -> str:
    """Name of the processor as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        for line in lines:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def machine() -> str:
    """Short hash of this machine: processor, cores, memory in GiB (kernels differ by some kilobytes).

    # ASSUME a machine with another GPU differs in processor, cores or memory as well
    """
    return short_hash(
        {"processor": processor(), "logical_cores": psutil.cpu_count(), "memory_gib": round(psutil.virtual_memory().total / 2**30)}
    )


def check_device(latency: Latency, here: str | None = None) -> None:
    """Refuse a calibration that was made on another machine.

    Parameters
    ----------
    here : str, optional
        `machine()` of the machine that is asked about, this one if left out.

    Raises
    ------
    InputError
        Naming both devices.
    """
    device, here = latency.device, machine() if here is None else here
    if device.machine != here:
        raise InputError(
            f"calibration of {device.name} (machine {device.machine or 'unknown'}): this is another machine ({processor()}, {here}); "
            "calibrate here with `snakemake --forcerun calibrate_arms`, or name the device"
        )


def mixed_devices(calibration: pd.DataFrame) -> str | None:
    """A line for figures and tables if a study's arms were not all timed on one device, None if they were.

    Parameters
    ----------
    calibration : table
        calibration.csv.
    """
    kinds = calibration.loc[calibration["fingerprint"].notna(), "fingerprint"].unique()
    if len(kinds) < 2:
        return None
    return f"Times come from {len(kinds)} devices or settings ({', '.join(kinds)}) and do not compare."
