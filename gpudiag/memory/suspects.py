"""Who could hold the GPU memory that no process named by NVML accounts for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from gpudiag.plausible import plausible
from gpudiag.snapshot import Gpu, Missing, Snapshot, known_or
from gpudiag.tables import unaccounted_bytes

if TYPE_CHECKING:
    from gpudiag.probes.holders import Holder, Seen

GIB = 2**30
NOTICEABLE_BYTES = 300 * 2**20  # what the context of one process takes; less is page tables


def named_pids(snapshot: Snapshot) -> tuple[int, ...]:
    """The processes that NVML names, each once."""
    gpus = known_or(snapshot.nvml.gpus, ())
    pids = (process.pid for gpu in gpus for process in known_or(gpu.processes, ()))
    return tuple(dict.fromkeys(pids))


def suspects(gpu: Gpu, snapshot: Snapshot, seen: Seen) -> tuple[str, ...]:
    """Who could hold what is unaccounted for on a GPU, the surest first; empty: nothing is."""
    if known_or(unaccounted_bytes(gpu), 0) < NOTICEABLE_BYTES:
        return ()
    return (
        *_with_the_gpu_open(gpu, seen),
        *_named_but_not_here(gpu),
        *_mps(snapshot),
        *_out_of_sight(snapshot, seen),
    ) or ("a process that died and whose memory the driver keeps: gpudiag reset explains the way",)


def explanation(snapshot: Snapshot, seen: Seen) -> str:
    """How each GPU's memory in use adds up, with who could hold the rest; empty without GPUs."""
    return "\n".join(
        "\n".join(_lines(plausible(gpu), snapshot, seen))
        for gpu in known_or(snapshot.nvml.gpus, ())
    )


def _lines(gpu: Gpu, snapshot: Snapshot, seen: Seen) -> Iterator[str]:
    unaccounted = unaccounted_bytes(gpu)
    used, reserve = gpu.memory_used_bytes, gpu.memory_reserved_bytes
    if isinstance(unaccounted, Missing):
        yield f"GPU {gpu.index}: not known: {unaccounted.missing}"
        return
    if isinstance(used, Missing):
        yield f"GPU {gpu.index}: not known: {used.missing}"
        return
    in_use = used + known_or(reserve, 0)
    parts = f"{_gib(used - unaccounted)} by processes + {_gib(unaccounted)} unaccounted for"
    if not isinstance(reserve, Missing):
        parts += f" + {_gib(reserve)} of the driver's own"
    yield f"GPU {gpu.index}: {_gib(in_use)} GiB in use = {parts}"
    found = suspects(gpu, snapshot, seen)
    if found:
        yield "  what is unaccounted for could be held by"
        yield from (f"  - {suspect}" for suspect in found)


def _with_the_gpu_open(gpu: Gpu, seen: Seen) -> Iterator[str]:
    if isinstance(seen.handles, Missing) or isinstance(gpu.minor_number, Missing):
        return
    node = f"nvidia{gpu.minor_number}"
    named = {process.pid for process in known_or(gpu.processes, ())}
    for pid, nodes in seen.handles.nodes.items():
        if node in nodes and pid not in named:
            yield f"{_described(pid, seen.holders.get(pid))}, which has /dev/{node} open"


def _described(pid: int, holder: Holder | None) -> str:
    if holder is None:
        return f"process {pid}"
    words = [f"process {pid} of {known_or(holder.user, '?')}: {known_or(holder.command, '?')[:60]}"]
    if container := known_or(holder.container, None):
        words.append(f"in container {container}")
    if holder.orphaned:
        words.append(f"orphaned: {holder.orphaned}")
    return ", ".join(words)


def _named_but_not_here(gpu: Gpu) -> Iterator[str]:
    for process in known_or(gpu.processes, ()):
        if known_or(process.visible, True) is False:  # noqa: FBT003 - the default of a fact
            yield (
                f"process {process.pid}, which NVML names and /proc does not: of another "
                "container, or dead"
            )
        elif isinstance(process.used_bytes, Missing):
            yield f"process {process.pid}, of which {process.used_bytes.missing}"


def _mps(snapshot: Snapshot) -> Iterator[str]:
    for service in known_or(snapshot.driver.services, ()):
        if service.running and "mps" in service.name:
            yield f"the MPS server, in the name of its clients ({service.name} runs)"


def _out_of_sight(snapshot: Snapshot, seen: Seen) -> Iterable[str]:
    if isinstance(seen.handles, Missing):
        yield f"anyone: who has the GPU open is not known ({seen.handles.missing})"
    elif seen.handles.unreadable:
        yield (
            f"one of {seen.handles.unreadable} processes whose open files only root may list: "
            "sudo gpudiag memory"
        )
    if container := known_or(snapshot.system.container, None):
        yield f"a process outside of this container ({container}): look from the host"


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / GIB:.2f}"
