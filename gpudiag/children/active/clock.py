"""Seconds of a run by the device's own clock, and what follows from them."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

import torch

from . import devices
from .effort import LEAST_REPEATS, MOST_REPEATS, Effort
from .said import figure

if TYPE_CHECKING:
    from collections.abc import Callable


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if devices.is_gpu(device):
        torch.cuda.synchronize(device)


def once_s(device: torch.device, run: Callable[[], object]) -> float:
    """Seconds of one run: between two events on a GPU, by the wall clock on a CPU."""
    if not devices.is_gpu(device):
        started = time.perf_counter()
        run()
        return time.perf_counter() - started
    event: Any = torch.cuda.Event  # not typed
    first, last = event(enable_timing=True), event(enable_timing=True)
    stream = torch.cuda.current_stream(device)
    first.record(stream)
    run()
    last.record(stream)
    last.synchronize()
    return float(first.elapsed_time(last)) / 1e3


def times_s(device: torch.device, run: Callable[[], object], seconds: float) -> list[float]:
    """Seconds of each repeat, after a warm-up of a third of the time."""
    _repeat(device, run, seconds / 3)
    return _repeat(device, run, seconds)


def _repeat(device: torch.device, run: Callable[[], object], seconds: float) -> list[float]:
    found: list[float] = []
    limit = time.monotonic() + seconds
    while len(found) < LEAST_REPEATS or (len(found) < MOST_REPEATS and time.monotonic() < limit):
        found.append(once_s(device, run))
    return found


def rate(
    test: str,
    device: torch.device,
    run: Callable[[], object],
    work: float,
    unit: str,
    *,
    effort: Effort,
    **more: Any,
) -> None:
    """*work* per median second, with how far the repeats lie apart."""
    found = times_s(device, run, effort.seconds)
    figure(test, device, work / statistics.median(found), unit, **_spread(found), **more)


def latency(test: str, device: torch.device, found_s: list[float]) -> None:
    """The median of times that were taken one by one, in microseconds."""
    figure(test, device, statistics.median(found_s) * 1e6, "µs", **_spread(found_s))


def _spread(found_s: list[float]) -> dict[str, Any]:
    low, median, high = statistics.quantiles(found_s, n=4)
    return {"repeats": len(found_s), "spread_fraction": (high - low) / median}
