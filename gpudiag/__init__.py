"""What is wrong with this GPU machine and its PyTorch, why, and what cures it.

>>> import gpudiag
>>> report = gpudiag.diagnose(gpudiag.snapshot(torch=False))
>>> report.to_frame().columns.tolist()
['id', 'severity', 'title', 'subject', 'evidence', 'cause', 'fix', 'explained_by']
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from gpudiag.diagnose import Report
    from gpudiag.finding import Finding
    from gpudiag.record import Recording
    from gpudiag.reset import Reset
    from gpudiag.snapshot import Snapshot

__all__ = [
    "Finding",
    "Report",
    "Snapshot",
    "clear_cache",
    "devices",
    "diagnose",
    "measure",
    "memory",
    "processes",
    "record",
    "reset",
    "select_devices",
    "snapshot",
    "versions",
]

_CLASSES = {
    "Finding": "gpudiag.finding",
    "Report": "gpudiag.diagnose",
    "Snapshot": "gpudiag.snapshot",
}


class _Package(ModuleType):
    """A package in which no submodule takes the place of the function of the same name.

    ``import gpudiag.snapshot`` would otherwise set ``gpudiag.snapshot`` to the module.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and name in __all__):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    """A class is imported when it is first asked for, so that the command starts at once."""
    if name not in _CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_CLASSES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])


def snapshot(*, torch: bool = True, timeout_s: float = 20.0, redacted: bool = True) -> Snapshot:
    """Everything that can be seen of this machine; whatever it is like, nothing is raised.

    Args:
        torch: Whether to import torch, in a process of its own.
        timeout_s: Limit for the whole in seconds, at least 0.1; what has not answered by then says
            so.
        redacted: Whether user names, home paths, addresses and all but the first block of UUIDs
            are hidden, as ``gpudiag snapshot`` does; with False it is not safe to paste.

    Returns:
        The facts; each is a value or a `Missing` with the reason.

    Raises:
        InputError: The limit is none.

    Example:
        >>> snapshot(torch=False).torch.version
        Missing(missing='torch was not asked (--no-torch)')
    """
    from gpudiag.config import SHORTEST_S
    from gpudiag.errors import InputError
    from gpudiag.host import Host
    from gpudiag.probes import take_snapshot
    from gpudiag.redact import redact, this_identity

    if not timeout_s >= SHORTEST_S:  # also not a number
        raise InputError(f"expected timeout_s to be {SHORTEST_S} seconds or more, got {timeout_s}")
    host = Host()
    try:
        seen = take_snapshot(host, torch=torch, timeout_s=timeout_s)
    finally:  # Ctrl-C, too
        host.end_programs()
    return redact(seen, this_identity(host.environment)) if redacted else seen


def diagnose(snapshot: Snapshot | None = None) -> Report:
    """Ask every rule about a snapshot, by default one that is taken now and redacted.

    Args:
        snapshot: What was seen, here or on another machine.

    Returns:
        The findings, worst first, with what passed and what could not be asked.

    Example:
        >>> import gpudiag
        >>> diagnose(gpudiag.Snapshot()).findings
        ()
    """
    from gpudiag.diagnose import diagnose as ask
    from gpudiag.rules import RULES

    return ask(_now(redacted=True) if snapshot is None else snapshot, RULES)


def versions(snapshot: Snapshot | None = None) -> pd.DataFrame:
    """Versions of the system, the driver, CUDA, torch and its companions.

    Returns:
        One row per component with the columns ``component`` and ``version`` (NA: not there or
        not known; ``frame.attrs["missing"]`` gives the reason).
    """
    return _frame("versions", _now(redacted=False) if snapshot is None else snapshot)


def devices(snapshot: Snapshot | None = None) -> pd.DataFrame:
    """The GPUs that NVML lists, one row each, units in the column names.

    Example:
        >>> import gpudiag
        >>> devices(gpudiag.Snapshot()).columns[:4].tolist()
        ['index', 'uuid', 'name', 'pci_address']
    """
    return _frame("devices", snapshot)


def memory(snapshot: Snapshot | None = None) -> pd.DataFrame:
    """GPU memory in bytes, one row per GPU.

    ``used_bytes`` = ``processes_bytes`` (held by the processes that NVML names) +
    ``unaccounted_bytes``; the driver's own ``reserved_bytes`` are not part of it. ``suspects``
    names who could hold what is unaccounted for (on this machine, not from a snapshot).
    """
    return _frame_with_holders("memory", snapshot)


def processes(snapshot: Snapshot | None = None) -> pd.DataFrame:
    """The processes that hold GPU memory, one row per process and GPU.

    Returns:
        Columns as ``gpudiag processes --format csv`` has them: among others ``pid``, ``user``,
        ``used_bytes``, ``age_s`` and ``orphaned`` (why the process is taken for left behind; NA
        where nothing says so). From a snapshot, what /proc tells is not known.
    """
    return _frame_with_holders("processes", snapshot)


def clear_cache() -> pd.DataFrame:
    """Give back the GPU memory that torch of this process keeps and does not use.

    Collects garbage, empties the cache of every device that torch of this process has
    initialised (CUDA, ROCm, XPU, MPS), and closes what other processes shared and let go of. It
    frees nothing of other processes, no tensor that a name still refers to, and not the context
    itself (300 to 600 MiB a GPU, until the process ends): ``gpudiag processes`` shows who else
    holds memory. It never imports torch and never initialises a device.

    Returns:
        One row per device in use: ``device`` and, in bytes, ``allocated`` (tensors), ``reserved``
        (tensors and cache) and ``free`` (of the device, for anyone), each ``_before_bytes`` and
        ``_after_bytes``. Where there is nothing to clear, no row; ``frame.attrs["reason"]`` then
        says why, and is None otherwise.

    Example:
        >>> frame = clear_cache()
        >>> frame.columns[:3].tolist()
        ['device', 'allocated_before_bytes', 'allocated_after_bytes']
    """
    from gpudiag.memory.cache import clear_cache as clear

    return clear()


def record(*, interval_s: float = 1.0) -> Recording:
    """Sample the GPUs of this process while a block runs.

    Args:
        interval_s: Seconds between two samples.

    Returns:
        A context manager; afterwards it has ``frame`` (one row per sample and GPU), ``peaks``
        (bytes by process id), ``verdict`` (text) and ``save(folder)``.

    Example:
        >>> with record(interval_s=0.1) as recording:
        ...     total = sum(range(1000))
        >>> recording.frame.columns[:2].tolist()
        ['time_s', 'gpu']
    """
    from gpudiag.record import Recording

    return Recording(interval_s=interval_s)


def measure(
    *, devices: Sequence[int] = (), quick: bool = False, minutes: float | None = None
) -> pd.DataFrame:
    """Measure how fast the GPUs are and whether they compute right; without one, the CPU.

    It runs in a process of its own with a limit, and takes some minutes a GPU.

    Args:
        devices: Torch's indices, by default all.
        quick: A tenth of the time, and a pattern over 1 GiB of memory instead of all.
        minutes: About how long it may take.

    Returns:
        One row per figure: ``device``, ``test``, ``value``, ``unit``; the ratios to the data sheet
        (NA: the part is not in the table), to one direction of the link (PCIe or NVLink) and to
        the other GPUs of its kind; ``link``, ``repeats``, ``spread_fraction`` (between the
        quartiles); how the GPU was meanwhile (``temperature_celsius``, ``power_watts``,
        ``clock_sm_mhz``, ``clock_event_reasons``). ``frame.attrs`` has the lists ``faults`` (wrong
        results) and ``skipped``, and ``failure`` (how it broke off, or None).

    Raises:
        InputError: Torch sees no such GPU.
    """
    import pandas as pd

    from gpudiag.measure import COLUMNS, rows
    from gpudiag.measure import measure as measure_now

    found = measure_now(devices=devices, quick=quick, minutes=minutes)
    frame = pd.DataFrame(rows(found), columns=list(COLUMNS)).convert_dtypes()
    frame.attrs["faults"] = [f"{one.device}, {one.test}: {one.reason}" for one in found.faults]
    frame.attrs["skipped"] = [f"{one.device}, {one.test}: {one.reason}" for one in found.skipped]
    frame.attrs["failure"] = found.failure
    return frame


def reset(index: int | str, *, dry_run: bool = False) -> Reset:
    """Reset a GPU with nvidia-smi, after saying why it would be refused.

    Persistence mode is switched off for the reset and restored, also after a failure. Every
    program on the GPU must have ended; ``gpudiag reset`` on the command line asks first.

    Args:
        index: NVML's index, a UUID or a PCI address.
        dry_run: Only say what would be run and what stands in the way.

    Returns:
        What was run, what nvidia-smi said, and whether the GPU answers again.

    Raises:
        InputError: There is no such GPU.
        RuntimeError: nvidia-smi would refuse; the message tells every reason. Not on a dry run.

    Example:
        >>> reset(99, dry_run=True)
        Traceback (most recent call last):
        gpudiag.errors.InputError: expected ... GPU...
    """
    from gpudiag.host import Host
    from gpudiag.reset import Reset, perform, prepare

    host = Host()
    plan = prepare(host, snapshot(torch=False, redacted=False), [str(index)])
    if dry_run:
        obstacles = tuple(map(str, plan.obstacles))
        return Reset(done=False, commands=plan.commands, obstacles=obstacles, said=())
    if plan.refusals:
        raise RuntimeError(f"nvidia-smi would refuse: {'; '.join(map(str, plan.refusals))}")
    return perform(host, plan)


def select_devices(value: str | int | Sequence[str | int]) -> str:
    """Choose the GPUs of this process by setting CUDA_VISIBLE_DEVICES, checked.

    Call it before torch uses CUDA: afterwards the variable is not read any more.

    Args:
        value: Indices or UUIDs, in one text with commas or as a list; one index. An empty text
            (or ``"-1"``) hides every GPU.

    Returns:
        The value as it was set, without spaces.

    Raises:
        InputError: CUDA would not read the value as it was meant, or it names a GPU that this
            machine has not.
        RuntimeError: This process has initialised CUDA already.

    Example:
        >>> select_devices("0-1")
        Traceback (most recent call last):
        gpudiag.errors.InputError: expected indices or UUIDs with commas, got '0-1': '0-1' is read
        as 0: ranges are not supported
    """
    from gpudiag.select import select

    return select(value)


def _now(*, redacted: bool) -> Snapshot:
    return snapshot(redacted=redacted)


def _frame(table: str, seen: Snapshot | None, *more: object) -> pd.DataFrame:
    from gpudiag.render.as_frame import frame
    from gpudiag.tables import TABLES, columns

    now = snapshot(torch=False, redacted=False) if seen is None else seen
    rows = TABLES[table](now, *more)
    return frame(rows, columns(table))


def _frame_with_holders(table: str, seen: Snapshot | None) -> pd.DataFrame:
    if seen is not None:
        return _frame(table, seen)
    from gpudiag.host import Host
    from gpudiag.memory.suspects import named_pids
    from gpudiag.probes.holders import look

    now = snapshot(torch=False, redacted=False)
    return _frame(table, now, look(Host(), named_pids(now)))
