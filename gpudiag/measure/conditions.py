"""How the GPUs were while they were measured: samples -> figures beside the figures."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from gpudiag.measured import Conditions, Meanwhile
from gpudiag.record.samples import Row


def conditions(rows: Sequence[Row]) -> Iterator[Conditions]:
    """Each GPU over the whole time."""
    for gpu in sorted({row["gpu"] for row in rows if row["gpu"] is not None}):
        told = [row for row in rows if row["gpu"] == gpu]
        yield Conditions(
            gpu=gpu,
            temperature_max_celsius=largest(told, "temperature_celsius"),
            power_max_watts=largest(told, "power_watts"),
            clock_sm_median_mhz=_median(told, "clock_sm_mhz"),
            clock_event_reasons=_every_reason(told),
            pcie_generation=largest(told, "pcie_generation"),
            pcie_width_lanes=largest(told, "pcie_width_lanes"),
        )


def meanwhile(rows: Iterable[Row]) -> Meanwhile | None:
    """One GPU while one figure was taken; None without a sample of that time."""
    told = list(rows)
    if not told:
        return None
    return Meanwhile(
        temperature_celsius=largest(told, "temperature_celsius"),
        power_watts=largest(told, "power_watts"),
        clock_sm_mhz=_median(told, "clock_sm_mhz"),
        clock_event_reasons=_every_reason(told),
    )


def largest(told: Iterable[Row], name: str) -> Any:
    """The largest value that was told, None where none was."""
    return max((row[name] for row in told if row[name] is not None), default=None)


def _median(told: Iterable[Row], name: str) -> float | None:
    values = [row[name] for row in told if row[name] is not None]
    return statistics.median(values) if values else None


def _every_reason(told: Iterable[Row]) -> int:
    reasons = 0
    for row in told:
        reasons |= row["clock_event_reasons"] or 0
    return reasons
