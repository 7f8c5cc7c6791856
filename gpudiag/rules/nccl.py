"""GD7xx: settings of NCCL that do not fit this machine."""

from __future__ import annotations

from collections.abc import Iterable

from gpudiag.finding import Finding, Severity, rule
from gpudiag.rules.machine import install_package
from gpudiag.snapshot import Snapshot, known

VARIABLES = "https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html"
RECIPES = "https://github.com/stas00/ml-engineering"
OFF = (None, "", "0")
LOCAL_INTERFACES = ("lo", "docker", "veth", "br-")


@rule("GD708", Severity.WARNING, VARIABLES, RECIPES)
def peer_access_disabled(snapshot: Snapshot) -> Finding | None:
    """NCCL_P2P_DISABLE keeps GPUs from reaching one another directly.

    It is set, and this machine has GPUs that can.

    Ignore it when training hangs without it; then look at the findings on ACS and IOMMU.
    """
    if snapshot.environment.get("NCCL_P2P_DISABLE") in OFF:
        return None
    able = [pair for pair in known(snapshot.nvml.pairs) if known(pair.p2p_read) == "ok"]
    if not able:
        return None
    return Finding(
        evidence=(
            f"NCCL_P2P_DISABLE={snapshot.environment.get('NCCL_P2P_DISABLE')}",
            f"{len(able)} pair(s) of GPUs can reach each other directly",
        ),
        cause="all that the GPUs exchange goes through the host's memory",
        fix="unset NCCL_P2P_DISABLE",
    )


@rule("GD709", Severity.WARNING, VARIABLES, RECIPES)
def infiniband_disabled(snapshot: Snapshot) -> Finding | None:
    """NCCL_IB_DISABLE keeps NCCL from InfiniBand, which this machine has.

    The variable is set, and /sys/class/infiniband lists devices.

    Ignore it when the job runs on one machine only, or the fabric is down.
    """
    if snapshot.environment.get("NCCL_IB_DISABLE") in OFF:
        return None
    devices = known(snapshot.system.infiniband_devices)
    if not devices:
        return None
    return Finding(
        evidence=(
            f"NCCL_IB_DISABLE={snapshot.environment.get('NCCL_IB_DISABLE')}",
            f"InfiniBand devices: {', '.join(devices[:4])}",
        ),
        cause="the machines talk over TCP, at a tenth of the speed",
        fix="unset NCCL_IB_DISABLE",
    )


@rule("GD710", Severity.WARNING, VARIABLES, RECIPES)
def nccl_shared_memory_disabled(snapshot: Snapshot) -> Finding | None:
    """NCCL_SHM_DISABLE keeps the processes of a machine from sharing memory.

    It is set on a machine with several GPUs. Those that cannot reach each other directly then
    talk over the network.

    Ignore it when /dev/shm cannot be made large enough.
    """
    if snapshot.environment.get("NCCL_SHM_DISABLE") in OFF or len(known(snapshot.nvml.gpus)) <= 1:
        return None
    return Finding(
        evidence=(f"NCCL_SHM_DISABLE={snapshot.environment.get('NCCL_SHM_DISABLE')}",),
        cause="GPUs without peer access exchange data over the network of the machine",
        fix="unset NCCL_SHM_DISABLE",
    )


@rule("GD711", Severity.ERROR, VARIABLES, "https://github.com/NVIDIA/nccl/issues/1837")
def interface_does_not_exist(snapshot: Snapshot) -> Finding | None:
    """NCCL_SOCKET_IFNAME names no network interface of this machine.

    NCCL takes the value as prefixes; "=" before it means whole names, "^" all but those.
    """
    value = snapshot.environment.get("NCCL_SOCKET_IFNAME")
    if not value:
        return None
    interfaces = known(snapshot.system.network_interfaces)
    if matching(value, interfaces):
        return None
    return Finding(
        evidence=(f"NCCL_SOCKET_IFNAME={value}", f"interfaces: {', '.join(interfaces) or 'none'}"),
        cause="NCCL ends with 'Bootstrap : no socket interface found'",
        fix="unset NCCL_SOCKET_IFNAME; or set it to an interface that all machines of the job have",
    )


@rule("GD712", Severity.WARNING, VARIABLES)
def adapter_does_not_exist(snapshot: Snapshot) -> Finding | None:
    """NCCL_IB_HCA names no InfiniBand device of this machine.

    NCCL takes the value as prefixes of devices, with a port after a colon; "=" before it means
    whole names, "^" all but those.
    """
    value = snapshot.environment.get("NCCL_IB_HCA")
    if not value:
        return None
    devices = known(snapshot.system.infiniband_devices)
    wanted = ",".join(part.partition(":")[0] for part in value.split(","))
    if not devices or matching(wanted, devices):
        return None
    return Finding(
        evidence=(f"NCCL_IB_HCA={value}", f"devices: {', '.join(devices)}"),
        cause="NCCL uses no InfiniBand and falls back to TCP, at a tenth of the speed",
        fix="unset NCCL_IB_HCA; or name devices that /sys/class/infiniband lists",
    )


@rule("GD713", Severity.ERROR, VARIABLES, "https://github.com/NVIDIA/nccl/issues/286")
def interface_reaches_nobody(snapshot: Snapshot) -> Finding | None:
    """NCCL is told to use an interface that does not leave this machine.

    The job has several machines (SLURM_NNODES), and NCCL_SOCKET_IFNAME names the loopback or a
    bridge of containers.
    """
    value = snapshot.environment.get("NCCL_SOCKET_IFNAME")
    nodes = snapshot.environment.get("SLURM_NNODES")
    if (
        not value
        or value.startswith("^")
        or nodes is None
        or not nodes.isdecimal()
        or int(nodes) < 2  # noqa: PLR2004
    ):
        return None
    names = value.lstrip("=").split(",")
    if not all(name.startswith(LOCAL_INTERFACES) for name in names):
        return None
    return Finding(
        evidence=(f"NCCL_SOCKET_IFNAME={value}", f"SLURM_NNODES={nodes}"),
        cause="the machines do not find one another: the job hangs at its first collective",
        fix="unset NCCL_SOCKET_IFNAME; or name the interface that joins the machines",
    )


@rule("GD714", Severity.WARNING, "https://github.com/NVIDIA/nccl/issues/417", RECIPES)
def infiniband_library_missing(snapshot: Snapshot) -> Finding | None:
    """This machine has InfiniBand, and the library that NCCL needs for it is missing.

    NCCL loads libibverbs.so.1 at run time and goes on without it. Slim container images lack it.

    Ignore it when the job runs on one machine only.
    """
    devices = known(snapshot.system.infiniband_devices)
    if not devices or known(snapshot.system.infiniband_library):
        return None
    return Finding(
        evidence=(
            f"InfiniBand devices: {', '.join(devices[:4])}",
            "libibverbs.so.1 is not installed",
        ),
        cause="NCCL says NET/Socket and talks over TCP, at a tenth of the speed",
        fix=install_package(snapshot, apt="libibverbs1 ibverbs-providers", dnf="libibverbs"),
    )


@rule("GD715", Severity.NOTE, VARIABLES)
def nccl_talks(snapshot: Snapshot) -> Finding | None:
    """NCCL_DEBUG is left on.

    With INFO or TRACE every process writes pages of text.

    Ignore it while you look for a fault, or when you keep the logs on purpose.
    """
    value = snapshot.environment.get("NCCL_DEBUG")
    if value is None or value.upper() not in {"INFO", "TRACE"}:
        return None
    return Finding(
        evidence=(f"NCCL_DEBUG={value}",),
        cause="logs grow by megabytes per process, and TRACE slows collectives down",
        fix="export NCCL_DEBUG=WARN",
    )


def matching(value: str, names: Iterable[str]) -> list[str]:
    """The names that a value of NCCL_SOCKET_IFNAME or NCCL_IB_HCA lets through.

    Example:
        >>> matching("eth", ["eth0", "lo"]), matching("=eth", ["eth0"])
        (['eth0'], [])
        >>> matching("^lo", ["lo", "ib0"])
        ['ib0']
    """
    excluded, exact = value.startswith("^"), value.lstrip("^").startswith("=")
    wanted = [part for part in value.lstrip("^=").split(",") if part]
    return [
        name
        for name in names
        if any(name == part if exact else name.startswith(part) for part in wanted) != excluded
    ]
