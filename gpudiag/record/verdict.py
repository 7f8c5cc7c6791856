"""Rows of a record -> what the GPUs did with their time, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
    """What one GPU did, as fractions in [0, 1] of the samples in which it told; None: it never did.

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
    idle: float | None
    waiting: float | None
    throttled: float | None
    full: float | None
    mean_utilization: float | None
    peak_memory_bytes: int | None
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
        f"GPU {one.gpu} {one.name}: idle {_percent(one.idle)}, of which waiting for data "
        f"{_percent(one.waiting)}, throttled {_percent(one.throttled)}, close to full "
        f"{_percent(one.full)} of the time; mean utilization {_percent(one.mean_utilization)}, "
        f"peak memory {_gib(one.peak_memory_bytes)}"
        for one in times
    ]
    lines += [f"process {pid}: peak GPU memory {_gib(peak)}" for pid, peak in peaks.items()]
    return "\n".join([*lines, *(f"→ {line}" for line in advice(times, no_gpus=no_gpus))])


def _percent(fraction: float | None) -> str:
    return "?" if fraction is None else f"{fraction:.0%}"


def _gib(size_bytes: int | None) -> str:
    return "?" if size_bytes is None else f"{size_bytes / GIB:.2f} GiB"


def _gpu_time(rows: Sequence[Row]) -> GpuTime:
    told = [row for row in rows if not row.get("lost")]
    loads = [row.get("utilization_fraction") for row in told]
    idle = [None if load is None else load < IDLE_FRACTION for load in loads]
    known = [load for load in loads if load is not None]
    used = [row["memory_used_bytes"] for row in told if row.get("memory_used_bytes") is not None]
    lost = [row["time_s"] for row in rows if row.get("lost")]
    return GpuTime(
        gpu=rows[0]["gpu"],
        name=next((row["name"] for row in rows if row["name"]), "?"),
        samples=len(told),
        idle=_share(idle),
        waiting=_share(_waiting(told, idle)),
        throttled=_share(_is_throttled(row) for row in told),
        full=_share(_is_full(row) for row in told),
        mean_utilization=sum(known) / len(known) if known else None,
        peak_memory_bytes=max(used, default=None),
        lost_s=lost[0] if lost else None,
    )


def _share(found: Iterable[bool | None]) -> float | None:
    """How many of those that are known are true, as a fraction."""
    known = [one for one in found if one is not None]
    return sum(known) / len(known) if known else None


def _waiting(told: Sequence[Row], idle: Sequence[bool | None]) -> Iterator[bool | None]:
    """Of each sample: whether the GPU was idle between work while something was prepared."""
    busy = [number for number, one in enumerate(idle) if one is False]
    first, last = (busy[0], busy[-1]) if busy else (0, 0)
    for number, (row, one) in enumerate(zip(told, idle, strict=True)):
        yield None if one is None else one and first < number < last and _prepares(row)


def _is_throttled(row: Row) -> bool | None:
    reasons = row.get("clock_event_reasons")
    return None if reasons is None else bool(reasons & THROTTLED)


def _prepares(row: Row) -> bool:
    working = (row.get("process_cpus") or 0) >= WORKING_CPUS
    return working or (row.get("host_disk_wait_fraction") or 0) >= DISK_WAIT_FRACTION


def _is_full(row: Row) -> bool | None:
    used, total = row.get("memory_used_bytes"), row.get("memory_total_bytes")
    return used >= FULL_FRACTION * total if used is not None and total else None


def _advice(times: Sequence[GpuTime]) -> Iterator[str]:
    for one in times:
        if one.lost_s is not None:
            yield f"GPU {one.gpu} stopped answering after {one.lost_s:.0f} s: run gpudiag diagnose"
    if silent := [one for one in times if one.idle is None and one.samples]:
        gpus = ", ".join(f"GPU {one.gpu}" for one in silent)
        yield f"{gpus} tells no utilization (as with MIG): whether it was kept busy is not known"
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
    return ", ".join(f"GPU {one.gpu}" for one in times if (getattr(one, what) or 0) > limit)
