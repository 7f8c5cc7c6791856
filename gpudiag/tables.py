"""Snapshot -> rows of the commands that show a table, with units in the column names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gpudiag.plausible import plausible
from gpudiag.snapshot import (
    AllocatorState,
    Fact,
    Gpu,
    GpuProcess,
    Missing,
    Nvml,
    Snapshot,
    known_or,
)

if TYPE_CHECKING:
    from gpudiag.probes.holders import Seen

ONLY_HERE = Missing("told on the machine itself, not from a snapshot")

Row = dict[str, Any]  # a value of a row is a fact: a plain value, None for "nothing", or Missing


def versions(snapshot: Snapshot) -> list[Row]:
    """One row per component: ``component``, ``version``."""
    torch, nvml, driver, system = snapshot.torch, snapshot.nvml, snapshot.driver, snapshot.system
    rows: list[tuple[str, Fact[str | None]]] = [
        ("gpudiag", snapshot.gpudiag_version),
        ("operating system", system.os_name),
        ("kernel", system.kernel),
        ("python", system.python_version),
        ("nvidia driver", nvml.driver_version),
        ("nvidia kernel module", driver.module_version),
        ("cuda of the driver", _first_known(driver.cuda_driver_version, nvml.cuda_version)),
        ("torch", torch.version),
        ("cuda of torch", torch.cuda_version),
        ("hip of torch", torch.hip_version),
        ("cudnn", torch.cudnn_version),
        ("nccl", torch.nccl_version),
    ]
    shown = {"torch", "gpudiag"}
    for package in known_or(snapshot.packages.installed, ()):
        if package.name not in shown:
            shown.add(package.name)  # a second copy further down sys.path is not the one in use
            rows.append((package.name, package.build or package.version))
    return [{"component": component, "version": version} for component, version in rows]


def devices(snapshot: Snapshot) -> list[Row]:
    """One row per GPU, in NVML's order."""
    return [
        {
            "index": gpu.index,
            "uuid": gpu.uuid,
            "name": gpu.name,
            "pci_address": gpu.pci_address,
            "architecture": gpu.architecture,
            "compute_capability": _dotted(gpu.compute_capability),
            "memory_total_bytes": gpu.memory_total_bytes,
            "memory_used_bytes": gpu.memory_used_bytes,
            "utilization_fraction": gpu.utilization_fraction,
            "temperature_celsius": gpu.temperature_celsius,
            "power_watts": gpu.power_watts,
            "power_limit_watts": gpu.power_limit_watts,
            "clock_sm_mhz": gpu.clock_sm_mhz,
            "ecc_enabled": gpu.ecc_enabled,
            "mig_enabled": gpu.mig_enabled,
            "compute_mode": gpu.compute_mode,
            "persistence_enabled": gpu.persistence_enabled,
        }
        for gpu in _gpus(snapshot)
    ]


def memory(snapshot: Snapshot, seen: Seen | None = None) -> list[Row]:
    """One row per GPU: used = by the processes seen + unaccounted; the reserve is the driver's."""
    from gpudiag.memory.suspects import suspects

    return [
        {
            "index": gpu.index,
            "uuid": gpu.uuid,
            "name": gpu.name,
            "total_bytes": gpu.memory_total_bytes,
            "used_bytes": gpu.memory_used_bytes,
            "processes_bytes": _held_by_processes(gpu),
            "unaccounted_bytes": unaccounted_bytes(gpu),
            "reserved_bytes": gpu.memory_reserved_bytes,
            "free_bytes": gpu.memory_free_bytes,
            "suspects": ONLY_HERE if seen is None else "; ".join(suspects(gpu, snapshot, seen)),
            **_this_process(gpu, snapshot.torch.allocator),
        }
        for gpu in _gpus(snapshot)
    ]


def processes(snapshot: Snapshot, seen: Seen | None = None) -> list[Row]:
    """One row per process and GPU, the largest holder of each GPU first."""

    def by_size(process: GpuProcess) -> int:
        return -known_or(process.used_bytes, 0)

    return [
        {
            "index": gpu.index,
            "uuid": gpu.uuid,
            "pid": process.pid,
            "name": process.name,
            "user": process.user,
            "kind": process.kind,
            "used_bytes": process.used_bytes,
            **_on_this_machine(process.pid, seen),
        }
        for gpu in _gpus(snapshot)
        for process in sorted(known_or(gpu.processes, ()), key=by_size)
    ]


def _gpus(snapshot: Snapshot) -> list[Gpu]:
    """The GPUs without the figures that cannot be true."""
    return [plausible(gpu) for gpu in known_or(snapshot.nvml.gpus, ())]


TABLES: dict[str, Callable[..., list[Row]]] = {
    "versions": versions,
    "devices": devices,
    "memory": memory,
    "processes": processes,
}


IN_A_TERMINAL = {  # the columns of the text form, where not all of them
    "devices": (
        *("index", "uuid", "name", "memory_total_bytes", "temperature_celsius", "power_watts"),
    ),
    "memory": (
        *("index", "uuid", "total_bytes", "used_bytes", "processes_bytes"),
        *("unaccounted_bytes", "reserved_bytes", "free_bytes"),
    ),
    "processes": (
        *("index", "pid", "user", "used_bytes", "age_s", "state", "container"),
        *("orphaned", "command"),
    ),
}
LONGEST_IN_A_TERMINAL = 60  # characters of a command line


def in_a_terminal(table: str, rows: list[Row]) -> list[Row]:
    """The rows as the text form shows them: fewer columns, nothing that is too long."""
    names = IN_A_TERMINAL.get(table)
    if names is None:
        return rows
    return [{name: _shortened(row[name], name) for name in names} for row in rows]


def _shortened(value: Any, column: str) -> Any:
    if column == "uuid" and isinstance(value, str):
        return "-".join(value.split("-")[:2])  # enough for CUDA_VISIBLE_DEVICES
    if isinstance(value, str) and len(value) > LONGEST_IN_A_TERMINAL:
        return f"{value[: LONGEST_IN_A_TERMINAL - 1]}…"
    return value


def _first_known(*facts: Fact[str]) -> Fact[str]:
    return next((fact for fact in facts if not isinstance(fact, Missing)), facts[0])


def _dotted(capability: Fact[tuple[int, int]]) -> Fact[str]:
    return capability if isinstance(capability, Missing) else f"{capability[0]}.{capability[1]}"


def _held_by_processes(gpu: Gpu) -> Fact[int]:
    if isinstance(gpu.processes, Missing):
        return gpu.processes
    total = 0
    for process in gpu.processes:
        if isinstance(process.used_bytes, Missing):
            return process.used_bytes
        total += process.used_bytes
    return total


def _on_this_machine(pid: int, seen: Seen | None) -> Row:
    """What /proc tells of a process, where it was asked."""
    names = ("command", "state", "age_s", "container", "orphaned")
    if seen is None:
        return dict.fromkeys(names, ONLY_HERE)
    if pid not in seen.holders:
        return dict.fromkeys(names, Missing(f"process {pid} is not in this PID namespace"))
    return {name: getattr(seen.holders[pid], name) for name in names}


def _this_process(gpu: Gpu, states: Fact[tuple[AllocatorState, ...]]) -> Row:
    """What torch in the calling process has allocated, keeps, and cannot hand out."""
    names = ("allocated_bytes", "reserved_bytes", "fragmented_bytes")
    if isinstance(states, Missing):
        return {f"this_process_{name}": states for name in names}
    mine = next((state for state in states if state.uuid == gpu.uuid), None)
    absent = Missing("torch of this process does not list this GPU")
    return {
        f"this_process_{name}": absent if mine is None else getattr(mine, name) for name in names
    }


def unaccounted_bytes(gpu: Gpu) -> Fact[int]:
    """What is in use and held by no process that NVML names."""
    held, used = _held_by_processes(gpu), gpu.memory_used_bytes
    if isinstance(used, Missing):
        return used
    return held if isinstance(held, Missing) else max(0, used - held)


def columns(table: str) -> list[str]:
    """The columns of a table, also where it has no rows.

    Example:
        >>> columns("processes")
        ['index', 'uuid', 'pid', 'name', 'user', 'kind', 'used_bytes', 'command', 'state', 'age_s',
        'container', 'orphaned']
    """
    process = GpuProcess(pid=0, kind="compute")
    example = Snapshot(nvml=Nvml(gpus=(Gpu(index=0, processes=(process,)),)))
    return list(TABLES[table](example)[0])
