"""The driver's pieces as the system shows them: PCI, modules, libraries, device nodes, cuInit."""

from __future__ import annotations

import re

import msgspec

from gpudiag import children
from gpudiag.host import Host
from gpudiag.probes.child import LONGEST_REASON, merged, spoken
from gpudiag.probes.processes import others_hidden
from gpudiag.programs import Completed
from gpudiag.snapshot import (
    DeviceNode,
    Driver,
    Missing,
    PciDevice,
    Service,
    Variable,
    known_or,
)

PCI = "/sys/bus/pci/devices"
NVIDIA_VENDOR = "0x10de"
DISPLAY_CLASS = "0x03"  # VGA (0x0300) and 3D (0x0302) controllers, not their audio parts
BRIDGE_CLASS = "0x0680"  # what an NVSwitch is
SERVICES = {  # by the names of their processes, which the kernel cuts to 15 characters
    "nvidia-fabricmanager": "nv-fabricmanage",
    "nvidia-persistenced": "nvidia-persiste",
    "nvidia-cuda-mps-control": "nvidia-cuda-mps",
    "nv-hostengine (DCGM)": "nv-hostengine",
}
LIBRARY_FOLDERS = (
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/nvidia/lib64",
    "/run/opengl-driver/lib",
)
LIBRARIES = ("libcuda", "libnvidia-ml")  # which carry the driver's version in their names
TOOL_SHARE = 0.1  # of the probe's time, for modinfo and for nv-fabricmanager; cuInit gets the rest
VERSION = r"\d{2,4}\.\d+(?:\.\d+)?"  # of a driver: 550.54.15, 390.157
UNINTERRUPTIBLE = "D"  # the state of a process in /proc/PID/stat
SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


def driver(host: Host, limit_s: float) -> Driver:
    """Every piece of the driver, each read for itself."""
    tool_limit_s = limit_s * TOOL_SHARE
    return msgspec.structs.replace(
        _cuda(host, limit_s - 2 * tool_limit_s),
        pci_devices=_pci_devices(host),
        module_loaded=_module_loaded(host),
        module_version=_module_version(host),
        module_kind=_module_kind(host),
        module_on_disk_version=_on_disk_version(host, tool_limit_s),
        library_versions=_library_versions(host),
        device_nodes=_device_nodes(host),
        fabric_manager_version=_fabric_manager_version(host, tool_limit_s),
        nvswitch_count=_nvswitch_count(host),
        parameters=_parameters(host),
        secure_boot=_secure_boot(host),
        **_services(host),
    )


def _pci_devices(host: Host) -> tuple[PciDevice, ...] | Missing:
    addresses = _nvidia_addresses(host, DISPLAY_CLASS)
    if isinstance(addresses, Missing):
        return addresses
    return tuple(
        PciDevice(
            address=address,
            device_id=known_or(host.read(f"{PCI}/{address}/device"), "unknown").strip(),
            kernel_driver=host.link_target_name(f"{PCI}/{address}/driver"),
        )
        for address in addresses
    )


def _nvswitch_count(host: Host) -> int | Missing:
    addresses = _nvidia_addresses(host, BRIDGE_CLASS)
    return addresses if isinstance(addresses, Missing) else len(addresses)


def _nvidia_addresses(host: Host, device_class: str) -> list[str] | Missing:
    addresses = host.names(PCI)
    if isinstance(addresses, Missing):
        return addresses
    found = []
    for address in addresses:
        vendor, kind = (host.read(f"{PCI}/{address}/{name}") for name in ("vendor", "class"))
        for fact in (vendor, kind):
            if isinstance(fact, Missing) and "Too many open files" in fact.missing:
                return fact  # of a machine whose files cannot be read nothing is known
        if known_or(vendor, "").strip() == NVIDIA_VENDOR and known_or(kind, "").startswith(
            device_class
        ):
            found.append(address)
    return found


def _module_loaded(host: Host) -> bool | Missing:
    if host.exists("/proc/driver/nvidia/version"):
        return True
    modules = host.names("/sys/module")
    return modules if isinstance(modules, Missing) else "nvidia" in modules


def _module_version(host: Host) -> str | Missing:
    text = host.read("/sys/module/nvidia/version")
    if isinstance(text, str):
        return text.strip()
    banner = host.read("/proc/driver/nvidia/version")
    if isinstance(banner, Missing):
        return Missing("the nvidia kernel module is not loaded")
    found = re.search(r"Kernel Module.*?\s(\d+\.\d+(?:\.\d+)?)\s", banner)
    return found[1] if found else Missing("/proc/driver/nvidia/version: no version in it")


def _module_kind(host: Host) -> str | Missing:
    banner = host.read("/proc/driver/nvidia/version")
    if isinstance(banner, Missing):
        return banner
    return "open" if "Open Kernel Module" in banner else "proprietary"


def _on_disk_version(host: Host, limit_s: float) -> str | Missing:
    outcome = host.run("modinfo", "-F", "version", "nvidia", timeout_s=limit_s)
    if isinstance(outcome, Completed):
        if outcome.failure is None:
            found = re.fullmatch(VERSION, outcome.stdout.strip())
            return found[0] if found else Missing("modinfo nvidia: it gave no version")
        said = outcome.stderr.strip().splitlines()
        return Missing(f"modinfo nvidia: {said[-1][:LONGEST_REASON] if said else outcome.failure}")
    return outcome


def _library_versions(host: Host) -> tuple[str, ...]:
    versions = set()
    for folder in LIBRARY_FOLDERS:
        names = host.names(folder)
        if isinstance(names, Missing):
            continue
        for name in names:
            library, _, version = name.partition(".so.")
            if library in LIBRARIES and re.fullmatch(VERSION, version):
                versions.add(version)
    return tuple(sorted(versions))


def _services(host: Host) -> dict[str, tuple[Service, ...] | tuple[str, ...] | Missing]:
    """The driver's daemons, and the processes that sleep inside the driver and cannot be woken."""
    pids, hidden = host.names("/proc"), others_hidden(host)
    if isinstance(pids, Missing):
        return {"services": pids, "stuck_processes": pids}
    names, stuck = set(), []
    for pid in filter(str.isdigit, pids):
        found = re.match(r"\d+ \((.*)\) (\S)", known_or(host.read(f"/proc/{pid}/stat"), ""))
        if found is None:
            continue  # it ended since it was listed
        names.add(found[1])
        if found[2] == UNINTERRUPTIBLE:
            waits_in = known_or(host.read(f"/proc/{pid}/wchan"), "")
            if re.search(r"nv(?!me|dimm)|rm_|uvm", waits_in):
                stuck.append(f"{pid} ({found[1]}) in {waits_in}")
    running = {name: process in names for name, process in SERVICES.items()}
    services = tuple(Service(name=name, running=runs) for name, runs in running.items())
    # What this user sees stands; that there is nothing else does not, where others are hidden.
    return {
        "services": hidden or services,
        "stuck_processes": tuple(stuck) if stuck or hidden is None else hidden,
    }


def _fabric_manager_version(host: Host, limit_s: float) -> str | Missing:
    outcome = host.run("nv-fabricmanager", "--version", timeout_s=limit_s)
    if isinstance(outcome, Missing):
        return outcome
    if outcome.failure is not None:
        return Missing(f"nv-fabricmanager --version: {outcome.failure}")
    found = re.search(rf"version[^\n]*?\b({VERSION})\b", outcome.stdout[:LONGEST_REASON])
    return found[1] if found else Missing("nv-fabricmanager --version: it gave no version")


def _parameters(host: Host) -> tuple[Variable, ...] | Missing:
    text = host.read("/proc/driver/nvidia/params")
    if isinstance(text, Missing):
        return text
    pairs = (line.partition(": ") for line in text.splitlines() if ": " in line)
    return tuple(Variable(name=name, value=value.strip()) for name, _, value in pairs)


def _device_nodes(host: Host) -> tuple[DeviceNode, ...] | Missing:
    names = host.names("/dev")
    if isinstance(names, Missing):
        return names
    return tuple(
        DeviceNode(
            path=f"/dev/{name}",
            usable=host.usable(f"/dev/{name}"),
            mode=host.mode(f"/dev/{name}"),
            group=host.group(f"/dev/{name}"),
        )
        for name in names
        if re.fullmatch(r"nvidia(\d+|ctl|-uvm|-uvm-tools|-modeset)|dxg", name)
    )


def _secure_boot(host: Host) -> bool | Missing:
    variable = host.read_bytes(SECURE_BOOT)
    if isinstance(variable, Missing):
        return variable
    return variable[-1:] == b"\x01"


def _cuda(host: Host, limit_s: float) -> Driver:
    """The section with what libcuda itself answers, in a process of its own."""
    objects, failure = spoken(host.run(*children.cuda(), timeout_s=limit_s))
    unanswered = {"missing": failure or "cuInit did not succeed"}
    return msgspec.convert(
        dict.fromkeys(Driver.__struct_fields__, unanswered) | merged(objects), Driver
    )
