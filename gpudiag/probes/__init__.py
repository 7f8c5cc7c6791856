"""Host -> Snapshot: seven probes side by side, each with its own limit."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from gpudiag.host import Host
from gpudiag.probes.driver import driver
from gpudiag.probes.environment import environment
from gpudiag.probes.kernel_log import kernel_log
from gpudiag.probes.nvml import nvml
from gpudiag.probes.packages import packages
from gpudiag.probes.system import system
from gpudiag.probes.torch_build import torch_build, torch_not_asked
from gpudiag.snapshot import (
    Driver,
    Environment,
    KernelLog,
    Nvml,
    Packages,
    Section,
    Snapshot,
    System,
    TorchBuild,
)
from gpudiag.version import __version__

DEFAULT_TIMEOUT_S = 20.0
SPARE_S = 0.5  # what a probe gets beyond the limit of the program that it runs


@dataclass(frozen=True, kw_only=True)
class Probe:
    """How one section of the snapshot is established, and how long that may take."""

    section: str
    kind: type[Section]
    ask: Callable[[Host, float], Section]
    limit_s: float


# An unloaded driver without persistence mode needs seconds per GPU, torch on a network disk longer.
PROBES = (
    Probe(section="torch", kind=TorchBuild, ask=torch_build, limit_s=60.0),
    Probe(section="nvml", kind=Nvml, ask=nvml, limit_s=15.0),
    Probe(section="driver", kind=Driver, ask=driver, limit_s=15.0),
    Probe(section="kernel_log", kind=KernelLog, ask=kernel_log, limit_s=5.0),
    Probe(section="packages", kind=Packages, ask=packages, limit_s=5.0),
    Probe(section="system", kind=System, ask=system, limit_s=5.0),
    Probe(section="environment", kind=Environment, ask=environment, limit_s=5.0),
)
WITHOUT_TORCH = (
    Probe(section="torch", kind=TorchBuild, ask=torch_not_asked, limit_s=1.0),
    *PROBES[1:],
)


def take_snapshot(
    host: Host | None = None,
    *,
    torch: bool = True,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    probes: tuple[Probe, ...] | None = None,
    meanwhile: Callable[[], object] = lambda: None,
) -> Snapshot:
    """Ask every probe about the machine; nothing is changed and nothing is raised.

    Args:
        host: The machine, by default this one.
        torch: Whether torch is imported (in a process of its own).
        timeout_s: Upper limit for the whole (for each probe, where no thread can be started); a
            probe's own limit may be shorter.
        probes: What to ask instead of the seven.
        meanwhile: Called while the probes wait for their programs: time to import what the
            answer will need.

    Returns:
        The snapshot; a probe that failed, hung or crashed leaves its reason in every fact.
    """
    host = host or Host()
    runs = [
        _Run(probe, host, timeout_s) for probe in probes or (PROBES if torch else WITHOUT_TORCH)
    ]
    meanwhile()
    sections = {run.probe.section: run.section() for run in runs}
    host.end_programs()
    seen = Snapshot(
        gpudiag_version=__version__,
        taken_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        probe_times_s={run.probe.section: round(run.seconds, 3) for run in runs},
        **sections,  # type: ignore[arg-type]  # the table above pairs names and types
    )
    return encodable(seen)


def encodable(snapshot: Snapshot) -> Snapshot:
    r"""The snapshot with text that is not UTF-8 written out, so that it is JSON whatever was read.

    Example:
        >>> from gpudiag.snapshot import System
        >>> encodable(Snapshot(system=System(kernel="6.8\udcff"))).system.kernel
        '6.8\\xff'
    """
    try:
        msgspec.json.encode(snapshot)
    except UnicodeEncodeError:
        return msgspec.convert(_encodable(msgspec.to_builtins(snapshot)), Snapshot)
    return snapshot


def _encodable(value: Any) -> Any:
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(item) for item in value]
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return value


class _Run:
    """One probe in a daemon thread, which is left behind if it outlasts its limit.

    Where no thread can be started (a limit on memory or on processes), the probe is asked when its
    section is wanted, one after the other: slower, and each bounded by the program that it runs.
    """

    def __init__(self, probe: Probe, host: Host, timeout_s: float) -> None:
        self.probe = probe
        self.seconds = 0.0
        self._limit_s = min(probe.limit_s, timeout_s)
        self._host = host
        self._started = time.monotonic()
        self._answer: Section | None = None
        self._thread = threading.Thread(target=self._ask, daemon=True, name=probe.section)
        try:
            self._thread.start()
        except RuntimeError:  # can't start new thread
            self._in_sequence = True
        else:
            self._in_sequence = False

    def section(self) -> Section:
        """The probe's section, or one in which every fact gives the reason for its absence."""
        if self._in_sequence:
            self._started = time.monotonic()
            self._ask()
            assert self._answer is not None  # noqa: S101 - _ask has given one
            return self._answer
        waited_s = time.monotonic() - self._started
        self._thread.join(max(0.0, self._limit_s + SPARE_S - waited_s))
        if self._answer is None:
            self.seconds = time.monotonic() - self._started
            reason = f"the {self.probe.section} probe gave no answer within {self._limit_s:g} s"
            return self.probe.kind.missing(reason)
        return self._answer

    def _ask(self) -> None:
        try:
            answer = self.probe.ask(self._host, self._limit_s)
        except Exception as error:  # noqa: BLE001 - a probe's crash becomes its section's reason
            reason = f"the {self.probe.section} probe failed: {type(error).__name__}: {error}"
            answer = self.probe.kind.missing(reason)
        self.seconds = time.monotonic() - self._started
        self._answer = answer


__all__ = ["DEFAULT_TIMEOUT_S", "PROBES", "Probe", "take_snapshot"]
