"""Host -> Snapshot: seven probes side by side, each with its own limit."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec

from gpudiag.host import Host
from gpudiag.probes.asking import Probe, ask_all
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
    Snapshot,
    System,
    TorchBuild,
)
from gpudiag.version import __version__

DEFAULT_TIMEOUT_S = 20.0

# An unloaded driver without persistence mode needs seconds per GPU, torch on a network disk longer.
# Those that read a few files come first: see gpudiag.probes.asking.
WITHOUT_TORCH = (
    Probe(section="system", kind=System, ask=system, limit_s=5.0),
    Probe(section="environment", kind=Environment, ask=environment, limit_s=5.0),
    Probe(section="packages", kind=Packages, ask=packages, limit_s=5.0),
    Probe(section="kernel_log", kind=KernelLog, ask=kernel_log, limit_s=5.0),
    Probe(section="driver", kind=Driver, ask=driver, limit_s=15.0),
    Probe(section="nvml", kind=Nvml, ask=nvml, limit_s=15.0),
    Probe(section="torch", kind=TorchBuild, ask=torch_not_asked, limit_s=1.0),
)
PROBES = (
    *WITHOUT_TORCH[:-1],
    Probe(section="torch", kind=TorchBuild, ask=torch_build, limit_s=60.0),
)


def take_snapshot(
    host: Host | None = None,
    *,
    torch: bool = True,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    probes: tuple[Probe, ...] | None = None,
) -> Snapshot:
    """Ask every probe about the machine; nothing is changed and nothing is raised.

    Args:
        host: The machine, by default this one.
        torch: Whether torch is imported (in a process of its own).
        timeout_s: Upper limit for the whole (for each probe, where no thread can be started); a
            probe's own limit may be shorter.
        probes: What to ask instead of the seven.

    Returns:
        The snapshot; a probe that failed, hung or crashed leaves its reason in every fact.
    """
    host = host or Host()
    asked = ask_all(probes or (PROBES if torch else WITHOUT_TORCH), host, timeout_s=timeout_s)
    sections = {one.probe.section: one.section() for one in asked}
    host.end_programs()
    seen = Snapshot(
        gpudiag_version=__version__,
        taken_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        probe_times_s={one.probe.section: round(one.seconds, 3) for one in asked},
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


__all__ = ["DEFAULT_TIMEOUT_S", "PROBES", "Probe", "take_snapshot"]
