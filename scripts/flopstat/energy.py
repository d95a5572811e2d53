"""Counters of the energy that a device has taken, where the system lets them be read: RAPL for processors, NVML for NVIDIA's GPUs.

# ASSUME nothing else runs while energy is read: counters are of the whole processor or GPU, and not of the rest of the machine
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

POWERCAP = Path("/sys/class/powercap")
NOT_MEASURED = "not measured"


class Meter(Protocol):
    """A counter: `read` now and later, `joules` in between."""

    @property
    def name(self) -> str: ...

    def read(self) -> Sequence[int]: ...

    def joules(self, before: Sequence[int], after: Sequence[int]) -> float: ...


@dataclass(frozen=True)
class Rapl:
    """The packages' counters in µJ under /sys/class/powercap.

    Each returns to zero after its own `max_energy_range_uj` (minutes under load); one return between two readings is allowed for.
    """

    counters: tuple[Path, ...]
    ranges: tuple[int, ...]  # µJ
    name: str = "RAPL"

    @classmethod
    def find(cls, root: Path = POWERCAP) -> Rapl | None:
        """The packages below `root`, None without any or where one can't be read: since 2020 Linux leaves them to the administrator."""
        counters, ranges = [], []
        for folder in sorted(root.glob("intel-rapl:*")):  # AMD's processors go by this name as well
            if folder.name.count(":") != 1:
                continue  # a part of a package: cores, graphics, memory
            try:
                if not (folder / "name").read_text(encoding="utf-8").startswith("package"):
                    continue  # psys: the platform, which holds the packages
                ranges.append(int((folder / "max_energy_range_uj").read_text(encoding="utf-8")))
                int((folder / "energy_uj").read_text(encoding="utf-8"))
            except (OSError, ValueError):
                return None
            counters.append(folder / "energy_uj")
        return cls(tuple(counters), tuple(ranges)) if counters else None

    def read(self) -> Sequence[int]:
        return [int(counter.read_text(encoding="utf-8")) for counter in self.counters]

    def joules(self, before: Sequence[int], after: Sequence[int]) -> float:
        """Energy between two readings. Worked by hand: from 90 to 10 of a range of 100 µJ is 20 µJ."""
        used = [(b - a) if b >= a else (b - a + most) for a, b, most in zip(before, after, self.ranges, strict=True)]
        return sum(used) / 1e6


class Nvml:
    """The GPU's counter in mJ since its driver was loaded (Volta and later)."""

    name = "NVML"

    def __init__(self, library: Any, handle: Any) -> None:
        self._library, self._handle = library, handle

    @classmethod
    def find(cls) -> Nvml | None:
        """The first GPU, None without the optional package pynvml, a driver or the counter."""
        try:
            import pynvml  # type: ignore[import-not-found,import-untyped,unused-ignore]
        except ImportError:
            return None
        try:
            pynvml.nvmlInit()
            found = cls(pynvml, pynvml.nvmlDeviceGetHandleByIndex(0))
            found.read()
        except pynvml.NVMLError:
            return None
        return found

    def read(self) -> Sequence[int]:
        return [int(self._library.nvmlDeviceGetTotalEnergyConsumption(self._handle))]

    def joules(self, before: Sequence[int], after: Sequence[int]) -> float:
        return (after[0] - before[0]) / 1e3


def meter(device: str, root: Path = POWERCAP) -> Meter | None:
    """The counter of a kind of device (cpu or cuda), None where there is none that can be read."""
    if device == "cuda":
        return Nvml.find()
    return Rapl.find(root) if device == "cpu" else None
