"""Rows of a record -> what the GPUs did with their time, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gpudiag.record.samples import Row

IDLE_FRACTION = 0.05  # NVML's utilization: of the time, with any kernel running
WORKING_CPUS = 0.5  # what a process that prepares batches takes at least
DISK_WAIT_FRACTION = 0.1  # of all processors
FULL_FRACTION = 0.95
THROTTLED = 0x8 | 0x20 | 0x40 | 0x80  # hardware slowdown, software and hardware heat, power brake
# Shares of the time from which advice is worth a line.
MUCH_IDLE, MUCH_WAITING, MUCH_THROTTLED, MUCH_FULL = 0.3, 0.1, 0.02, 0.05
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class GpuTime:
    """What one GPU did, as fractions in [0, 1] of the samples in which it answered.

    Attributes:
        gpu: NVML's index.
        name: As NVML names it.
        samples: How many there are in which it answered.
        idle: With no kernel running.
        waiting: Idle between work while the program used processors or the machine read disks.
        throttled: Held back by heat or by the power supply (a power limit is not counted).
        full: With at least 95 % of the memory in use.
        mean_utilization: NVML's utilization on average.
        peak_memory_bytes: The most in use, by anyone.
        lost_s: When it stopped answering, in seconds from the start; None: it never did.
    """

    gpu: int
    name: str
    samples: int
    idle: float
    waiting: float
    throttled: float
    full: float
    mean_utilization: float
    peak_memory_bytes: int
    lost_s: float | None


def gpu_times(rows: Sequence[Row]) -> tuple[GpuTime, ...]:
    """What each GPU did.

    Example:
        >>> row = {"gpu": 0, "name": "H100", "time_s": 0.0, "utilization_fraction": 0.01}
        >>> gpu_times([row, row | {"utilization_fraction": 0.9}])[0].idle
        0.5
    """
    gpus = sorted({row["gpu"] for row in rows if row["gpu"] is not None})
    return tuple(_gpu_time([row for row in rows if row["gpu"] == gpu]) for gpu in gpus)


def advice(times: Sequence[GpuTime], *, no_gpus: str | None = None) -> tuple[str, ...]:
    """What to do, the worst first; a sentence each."""
    if not times:
        return (f"no GPU was sampled{f': {no_gpus}' if no_gpus else ''}",)
    return tuple(_advice(times)) or ("the GPUs were kept busy: nothing to do",)


def as_text(times: Sequence[GpuTime], peaks: dict[int, int], *, no_gpus: str | None = None) -> str:
    """The verdict for a terminal."""
    lines = [
        f"GPU {one.gpu} {one.name}: idle {one.idle:.0%}, of which waiting for data "
        f"{one.waiting:.0%}, throttled {one.throttled:.0%}, close to full {one.full:.0%} of the "
        f"time; mean utilization {one.mean_utilization:.0%}, "
        f"peak memory {one.peak_memory_bytes / GIB:.2f} GiB"
        for one in times
    ]
    lines += [f"process {pid}: peak GPU memory {peak / GIB:.2f} GiB" for pid, peak in peaks.items()]
    return "\n".join([*lines, *(f"→ {line}" for line in advice(times, no_gpus=no_gpus))])


def _gpu_time(rows: Sequence[Row]) -> GpuTime:
    told = [row for row in rows if not row.get("lost")]
    loads = [row.get("utilization_fraction") for row in told]
    busy = [n for n, load in enumerate(loads) if load is not None and load >= IDLE_FRACTION]
    between = range(busy[0], busy[-1]) if busy else range(0)
    waits = [n for n in between if n not in busy and _prepares(told[n])]
    lost = [row["time_s"] for row in rows if row.get("lost")]
    known = [load for load in loads if load is not None]
    count = len(told) or 1
    return GpuTime(
        gpu=rows[0]["gpu"],
        name=rows[0]["name"] or "?",
        samples=len(told),
        idle=sum(load < IDLE_FRACTION for load in known) / count,
        waiting=len(waits) / count,
        throttled=sum(bool((row.get("clock_event_reasons") or 0) & THROTTLED) for row in told)
        / count,
        full=sum(_is_full(row) for row in told) / count,
        mean_utilization=sum(known) / (len(known) or 1),
        peak_memory_bytes=max((row.get("memory_used_bytes") or 0 for row in told), default=0),
        lost_s=lost[0] if lost else None,
    )


def _prepares(row: Row) -> bool:
    working = (row.get("process_cpus") or 0) >= WORKING_CPUS
    return working or (row.get("host_disk_wait_fraction") or 0) >= DISK_WAIT_FRACTION


def _is_full(row: Row) -> bool:
    total = row.get("memory_total_bytes") or 0
    return total > 0 and (row.get("memory_used_bytes") or 0) >= FULL_FRACTION * total


def _advice(times: Sequence[GpuTime]) -> Iterator[str]:
    for one in times:
        if one.lost_s is not None:
            yield f"GPU {one.gpu} stopped answering after {one.lost_s:.0f} s: run gpudiag diagnose"
    if gpus := _named(times, "throttled", MUCH_THROTTLED):
        yield f"{gpus} was held back by heat or power: gpudiag diagnose names the cause"
    if gpus := _named(times, "waiting", MUCH_WAITING):
        yield (
            f"{gpus} waited for data: more DataLoader workers (num_workers), pin_memory=True, "
            "smaller or cached images, data on a local disk"
        )
    elif gpus := _named(times, "idle", MUCH_IDLE):
        yield (
            f"{gpus} had nothing to do: a larger batch, fewer .item() and print calls in the loop, "
            "torch.compile; or the start and the end took most of the time"
        )
    if gpus := _named(times, "full", MUCH_FULL):
        yield f"{gpus} was close to full: a slightly larger batch will run out of memory"


def _named(times: Sequence[GpuTime], what: str, limit: float) -> str:
    return ", ".join(f"GPU {one.gpu}" for one in times if getattr(one, what) > limit)
