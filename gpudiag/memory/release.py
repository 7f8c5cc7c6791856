"""End processes that were left behind with GPU memory: only this user's, only the ones shown."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from gpudiag.host import Host
from gpudiag.probes.holders import Holder, Seen, ancestors
from gpudiag.programs import HeldProcess
from gpudiag.snapshot import Gpu, Missing, Nvml, Snapshot, known_or
from gpudiag.tables import Row

GRACE_S = 10.0  # a trainer may still write its checkpoint
AFTER_KILL_S = 5.0  # the driver takes back tens of GiB; a process stuck in it never ends
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Victim:
    """A process that may be ended, held so that its number cannot become another's."""

    holder: Holder
    held: HeldProcess
    gpus: tuple[int, ...]
    used_bytes: int | Missing


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Who may be ended, and who not, with the reason."""

    victims: tuple[Victim, ...]
    refused: dict[int, str]

    def rows(self) -> list[Row]:
        """One row per process that may be ended."""
        return [
            {
                "pid": victim.holder.pid,
                "GPU": ",".join(map(str, victim.gpus)) or "?",
                "used_bytes": victim.used_bytes,
                "age_s": victim.holder.age_s,
                "state": victim.holder.state,
                "orphaned": victim.holder.orphaned,
                "command": known_or(victim.holder.command, "?")[:60],
            }
            for victim in self.victims
        ]


def plan(host: Host, snapshot: Snapshot, seen: Seen, *, pids: Sequence[int] = ()) -> Plan:
    """Who may be ended.

    Args:
        host: The machine.
        snapshot: What NVML says about the GPUs' processes.
        seen: What /proc says about them.
        pids: Chosen processes, which need not be orphaned; by default every orphan.
    """
    orphans = [pid for pid, holder in seen.holders.items() if holder.orphaned]
    protected = {host.process_id(), *ancestors(host, host.process_id())}
    victims: list[Victim] = []
    refused: dict[int, str] = {}
    for pid in dict.fromkeys(pids or orphans):
        reason = _reason_to_refuse(host, pid, seen, protected)
        if reason is not None:
            refused[pid] = reason
            continue
        holder = seen.holders[pid]
        held = host.hold(pid, start_ticks=holder.start_ticks)
        if isinstance(held, Missing):
            refused[pid] = held.missing
            continue
        victims.append(_victim(holder, held, known_or(snapshot.nvml.gpus, ())))
    return Plan(victims=tuple(victims), refused=refused)


def _reason_to_refuse(host: Host, pid: int, seen: Seen, protected: set[int]) -> str | None:
    if pid in protected:
        return "it is gpudiag itself, or what gpudiag was started by"
    holder = seen.holders.get(pid)
    if holder is None:
        return "it holds no GPU memory that can be seen from here"
    if holder.uid != host.user_id():
        return f"it belongs to {known_or(holder.user, 'another user')}"
    if holder.state == "zombie":
        return f"it is dead already; only the end of its parent {holder.parent_pid} removes it"
    return None


def _victim(holder: Holder, held: HeldProcess, gpus: Iterable[Gpu]) -> Victim:
    used: dict[int, int | Missing] = {
        gpu.index: process.used_bytes
        for gpu in gpus
        for process in known_or(gpu.processes, ())
        if process.pid == holder.pid
    }
    figures = [figure for figure in used.values() if not isinstance(figure, Missing)]
    return Victim(
        holder=holder,
        held=held,
        gpus=tuple(used),
        used_bytes=sum(figures) if figures else Missing("NVML gives no memory for this process"),
    )


def end(victims: Iterable[Victim], number: signal.Signals, *, wait_s: float) -> dict[int, str]:
    """Send a signal to each and wait for all of them; who is left, and why."""
    failures = {victim.holder.pid: victim.held.send(number) for victim in victims}
    for victim in victims:
        victim.held.send(signal.SIGCONT)  # a stopped process takes its signal when it goes on
    limit = time.monotonic() + wait_s
    left: dict[int, str] = {}
    for victim in victims:
        pid = victim.holder.pid
        if (why := failures[pid]) is not None:
            left[pid] = f"{number.name} could not be sent: {why}"
        elif not victim.held.ended(timeout_s=max(0.0, limit - time.monotonic())):
            left[pid] = f"it did not end within {wait_s:g} s of {number.name}"
    return left


def came_back(before: Nvml, after: Nvml, *, gpus: Iterable[int] = ()) -> Iterator[str]:
    """By GPU, how much memory is free now that was not.

    Args:
        before: What NVML said before the processes were ended.
        after: What it says now.
        gpus: Those of the processes, which are told even if nothing came back.
    """
    later = {gpu.index: gpu.memory_used_bytes for gpu in known_or(after.gpus, ())}
    told = set(gpus)
    for gpu in known_or(before.gpus, ()):
        used, now = gpu.memory_used_bytes, later.get(gpu.index, Missing("not listed"))
        if isinstance(used, Missing) or isinstance(now, Missing):
            yield f"GPU {gpu.index}: not known how much came back"
        elif used != now or gpu.index in told:
            yield f"GPU {gpu.index}: {(used - now) / GIB:+.2f} GiB free ({used - now:+,} bytes)"
