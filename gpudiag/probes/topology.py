"""How PCI traffic between GPUs is routed: IOMMU, access control, virtual machine, InfiniBand."""

from __future__ import annotations

import re
import struct

from gpudiag.host import Host
from gpudiag.snapshot import Missing, known_or

PCI = "/sys/bus/pci/devices"
BRIDGE_CLASS = "0x0604"
LIBRARY_FOLDERS = (
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
)
OF_INTEREST = re.compile(r"^(?:(?:intel_|amd_)?iommu|pci|pcie_\w+|nvidia|rd\.driver|nouveau)[=.]")
KNOWN_HYPERVISORS = ("KVM", "QEMU", "VMware", "VirtualBox", "Xen", "Bochs", "Hyper-V")

# PCI Express: extended capabilities begin at 0x100 of the configuration space, which only root
# can read beyond its first 64 bytes. ACS is capability 0x000d; its control word lies at +6.
EXTENDED_FROM = 0x100
ACS = 0x000D
ACS_CONTROL = 6
REQUEST_REDIRECT = 0x04
COMPLETION_REDIRECT = 0x08


def virtual_machine(host: Host) -> str | Missing | None:
    """The hypervisor under this system, None on bare metal."""
    vendor = known_or(host.read("/sys/class/dmi/id/sys_vendor"), "").strip()
    product = known_or(host.read("/sys/class/dmi/id/product_name"), "").strip()
    for name in KNOWN_HYPERVISORS:
        if name.lower() in f"{vendor} {product}".lower():
            return name
    if (vendor, product) == ("Microsoft Corporation", "Virtual Machine"):
        return "Hyper-V"
    if vendor in {"Google", "Amazon EC2"} and "metal" not in product.lower():
        return vendor
    flags = host.read("/proc/cpuinfo")
    if isinstance(flags, Missing):
        return flags
    hypervisor = re.search(r"^flags\s*:.*\bhypervisor\b", flags, re.MULTILINE)
    return "unknown hypervisor" if hypervisor else None


def iommu_groups(host: Host) -> int | Missing:
    """How many IOMMU groups there are; 0 means that no IOMMU translates."""
    groups = host.names("/sys/kernel/iommu_groups")
    return groups if isinstance(groups, Missing) else len(groups)


def kernel_parameters(host: Host) -> tuple[str, ...] | Missing:
    """The boot parameters that bear on PCI, the IOMMU and the driver."""
    line = host.read("/proc/cmdline")
    if isinstance(line, Missing):
        return line
    return tuple(parameter for parameter in line.split() if OF_INTEREST.match(parameter))


def acs_redirects(host: Host) -> tuple[str, ...] | Missing:
    """The PCI bridges whose access control sends peer-to-peer traffic through the processor."""
    addresses = host.names(PCI)
    if isinstance(addresses, Missing):
        return addresses
    redirecting = []
    for address in addresses:
        kind = known_or(host.read(f"{PCI}/{address}/class"), "")
        if not kind.startswith(BRIDGE_CLASS):
            continue
        space = host.read_bytes(f"{PCI}/{address}/config")
        if isinstance(space, Missing):
            return space
        if len(space) <= EXTENDED_FROM:
            return Missing(f"{PCI}/{address}/config: only root may read access control")
        if acs_control(space) & (REQUEST_REDIRECT | COMPLETION_REDIRECT):
            redirecting.append(address)
    return tuple(redirecting)


def acs_control(space: bytes) -> int:
    """The ACS control word of a PCI configuration space, 0 where it has no such capability.

    Args:
        space: The whole space, 4096 bytes for PCI Express.

    Source:
        PCI Express Base Specification, "Access Control Services Extended Capability".
    """
    offset, seen = EXTENDED_FROM, set()
    while offset and offset not in seen and offset + 8 <= len(space):
        seen.add(offset)  # a broken device may link its capabilities in a circle
        (header,) = struct.unpack_from("<I", space, offset)
        if header & 0xFFFF == ACS:
            (control,) = struct.unpack_from("<H", space, offset + ACS_CONTROL)
            return int(control)
        offset = header >> 20
    return 0


def infiniband_devices(host: Host) -> tuple[str, ...] | Missing:
    """The InfiniBand and RoCE devices, which NCCL uses between machines."""
    names = host.names("/sys/class/infiniband")
    return () if isinstance(names, Missing) and "No such file" in names.missing else names


def infiniband_library(host: Host) -> bool:
    """Whether libibverbs is installed, without which NCCL does not use InfiniBand."""
    return any(
        name.startswith("libibverbs.so.1")
        for folder in LIBRARY_FOLDERS
        for name in known_or(host.names(folder), ())
    )
