"""The driver's pieces as the system shows them: PCI, modules, libraries, device nodes, cuInit."""

from __future__ import annotations

import re

import msgspec

from gpudiag.host import Completed, Host
from gpudiag.probes.child import CHILDREN, merged, spoken
from gpudiag.snapshot import DeviceNode, Driver, Missing, PciDevice

PCI = "/sys/bus/pci/devices"
NVIDIA_VENDOR = "0x10de"
DISPLAY_CLASS = "0x03"  # VGA (0x0300) and 3D (0x0302) controllers; not the audio or NVSwitch parts
LIBRARY_FOLDERS = (
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/nvidia/lib64",
    "/run/opengl-driver/lib",
)
SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


def driver(host: Host, limit_s: float) -> Driver:
    """Every piece of the driver, each read for itself."""
    return msgspec.structs.replace(
        _cuda(host, limit_s),
        pci_devices=_pci_devices(host),
        module_loaded=_module_loaded(host),
        module_version=_module_version(host),
        module_kind=_module_kind(host),
        module_on_disk_version=_on_disk_version(host, limit_s),
        library_versions=_library_versions(host),
        device_nodes=_device_nodes(host),
        secure_boot=_secure_boot(host),
    )


def _pci_devices(host: Host) -> tuple[PciDevice, ...] | Missing:
    addresses = host.names(PCI)
    if isinstance(addresses, Missing):
        return addresses
    found = []
    for address in addresses:
        vendor = host.read(f"{PCI}/{address}/vendor")
        kind = host.read(f"{PCI}/{address}/class")
        if isinstance(vendor, Missing) or isinstance(kind, Missing):
            continue
        if vendor.strip() == NVIDIA_VENDOR and kind.startswith(DISPLAY_CLASS):
            device_id = host.read(f"{PCI}/{address}/device")
            found.append(
                PciDevice(
                    address=address,
                    device_id="unknown" if isinstance(device_id, Missing) else device_id.strip(),
                    kernel_driver=host.link_target_name(f"{PCI}/{address}/driver"),
                )
            )
    return tuple(found)


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
        if outcome.failure is None and outcome.stdout.strip():
            return outcome.stdout.split()[0]
        said = outcome.stderr.strip().splitlines()
        return Missing(f"modinfo nvidia: {said[-1] if said else outcome.failure}")
    return outcome


def _library_versions(host: Host) -> tuple[str, ...]:
    versions = set()
    for folder in LIBRARY_FOLDERS:
        names = host.names(folder)
        if isinstance(names, Missing):
            continue
        for name in names:
            found = re.fullmatch(r"lib(?:cuda|nvidia-ml)\.so\.(\d+\.\d+(?:\.\d+)?)", name)
            if found:
                versions.add(found[1])
    return tuple(sorted(versions))


def _device_nodes(host: Host) -> tuple[DeviceNode, ...] | Missing:
    names = host.names("/dev")
    if isinstance(names, Missing):
        return names
    return tuple(
        DeviceNode(path=f"/dev/{name}", usable=host.usable(f"/dev/{name}"))
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
    objects, failure = spoken(host.run_python_bare(CHILDREN / "ask_cuda.py", timeout_s=limit_s))
    unanswered = {"missing": failure or "cuInit did not succeed"}
    return msgspec.convert(
        dict.fromkeys(Driver.__struct_fields__, unanswered) | merged(objects), Driver
    )
