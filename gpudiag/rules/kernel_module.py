"""GD1xx: the kernel module: not built, not signed, not for this GPU, or about to change."""

from __future__ import annotations

import re

from gpudiag.finding import Finding, Severity, gpu_rule, rule
from gpudiag.rules.machine import (
    DRIVER_TO_INSTALL,
    in_container,
    install_driver,
    kernel_headers,
)
from gpudiag.snapshot import Gpu, KernelEvent, Missing, NotObserved, Snapshot, known, known_or

REJECTED = re.compile(r"[Ll]oading of .* is rejected|unsigned module loading is restricted")
NEEDS_OPEN_MODULE = "requires use of the NVIDIA open kernel modules"
UNSUPPORTED = re.compile(r"NVRM: .*(?:is not supported by the|supported through the) ")
DATA_CENTRE = re.compile(
    r"Tesla|\b(?:A10G?|A16|A30|A40|A100|A800|H100|H200|H20|B200|L4|L40S?|V100)\b"
)


@rule(
    "GD108",
    Severity.ERROR,
    "https://github.com/GoogleCloudPlatform/compute-gpu-installation/pull/18",
    explains=("GD102", "GD221"),
)
def module_not_built(snapshot: Snapshot) -> Finding | None:
    """The driver has no kernel module for the running kernel.

    The driver's libraries are installed, and modinfo finds no module called nvidia for this
    kernel. A kernel update brings that about where the kernel's headers or DKMS are missing.
    """
    driver = snapshot.driver
    on_disk = driver.module_on_disk_version
    if known(driver.module_loaded) or in_container(snapshot) or not known(driver.library_versions):
        return None
    if not isinstance(on_disk, Missing):
        return None
    if "not found" not in on_disk.missing or "PATH" in on_disk.missing:
        raise NotObserved(on_disk.missing)
    kernel = known_or(snapshot.system.kernel, "$(uname -r)")
    return Finding(
        evidence=(
            f"libraries of driver {', '.join(known(driver.library_versions))} are installed",
            f"{on_disk.missing} (kernel {kernel})",
        ),
        cause="there is nothing to load: the module was not built for this kernel",
        fix=f"{kernel_headers(snapshot, kernel)} && sudo dkms autoinstall && sudo modprobe nvidia",
    )


@rule(
    "GD109",
    Severity.ERROR,
    "https://github.com/MicrosoftDocs/azure-docs/issues/111536",
    explains=("GD102", "GD221"),
)
def module_rejected_by_secure_boot(snapshot: Snapshot) -> Finding | None:
    """Secure Boot rejects the driver's kernel module.

    The kernel log says that a module was rejected for want of a valid signature, and the nvidia
    module is not loaded.
    """
    if known(snapshot.driver.module_loaded):
        return None
    rejections = _lines(snapshot, REJECTED)
    if not rejections:
        return None
    secure_boot = known_or(snapshot.driver.secure_boot, None)
    state = {True: "on", False: "off", None: "not readable"}[secure_boot]
    return Finding(
        evidence=(rejections[-1].text, f"Secure Boot: {state}"),
        cause="a module that was built on this machine is signed with a key the firmware must know",
        fix="sudo mokutil --import /var/lib/shim-signed/mok/MOK.der, reboot and enrol the key; "
        "or switch Secure Boot off in the firmware and reboot",
    )


@rule("GD110", Severity.NOTE, "https://github.com/lyulyul/shine-cluster/issues/30")
def upgrade_waits_for_reboot(snapshot: Snapshot) -> Finding | None:
    """Another version of the driver is on disk than in the kernel.

    modinfo names one version for the next start, and the loaded module is of another.
    """
    driver = snapshot.driver
    on_disk, loaded = known(driver.module_on_disk_version), known(driver.module_version)
    if on_disk == loaded:
        return None
    return Finding(
        evidence=(f"loaded kernel module: {loaded}", f"kernel module on disk: {on_disk}"),
        cause="the driver changes at the next boot, and tools that compare versions may refuse now",
        fix="sudo reboot when the machine is free",
    )


@rule(
    "GD111",
    Severity.ERROR,
    "https://github.com/NVIDIA/open-gpu-kernel-modules/issues/872",
    explains=("GD113", "GD221", "GD418"),
)
def open_module_required(snapshot: Snapshot) -> Finding | None:
    """This GPU needs the open kernel module, and the proprietary one is loaded.

    NVIDIA ships its driver with two kernel modules. GPUs from Blackwell on (RTX 50, B200) work
    with the open one only; the other says so in the kernel log and lists no device.
    """
    refusals = _lines(snapshot, re.compile(NEEDS_OPEN_MODULE))
    if not refusals:
        return None
    kind = known_or(snapshot.driver.module_kind, "not readable")
    return Finding(
        evidence=(refusals[-1].text, f"kind of the loaded module: {kind}"),
        cause="nvidia-smi says 'No devices were found', and CUDA finds none",
        fix=_install_open_driver(snapshot),
    )


@rule(
    "GD112",
    Severity.ERROR,
    "https://developer.nvidia.com/cuda-gpus",
    explains=("GD113", "GD221", "GD418"),
)
def gpu_not_supported(snapshot: Snapshot) -> Finding | None:
    """The driver is of the wrong age for this GPU.

    The driver says in the kernel log that it does not support the GPU: it is older than the GPU,
    or the GPU is so old that only a legacy branch of the driver knows it.
    """
    refusals = _lines(snapshot, UNSUPPORTED)
    if not refusals:
        return None
    version = known_or(snapshot.driver.module_version, "not readable")
    return Finding(
        evidence=(refusals[-1].text, f"loaded kernel module: {version}"),
        cause="the driver leaves the GPU alone, so that no program can use it",
        fix=f"{install_driver(snapshot)}; or for an old GPU install the legacy branch that the "
        "kernel log names",
    )


@rule(
    "GD113",
    Severity.ERROR,
    "https://github.com/NVIDIA/open-gpu-kernel-modules/issues/789",
    explains=("GD107", "GD221", "GD418"),
)
def gpu_not_initialized(snapshot: Snapshot) -> Finding | None:
    """The driver could not start a GPU.

    The kernel log says "RmInitAdapter failed". Usual reasons: a BIOS without Above 4G Decoding,
    firmware that hangs since a crash, too little power, or a defect.
    """
    failures = _lines(snapshot, re.compile("RmInitAdapter failed"))
    if not failures:
        return None
    return Finding(
        evidence=(failures[-1].text, f"{len(failures)} such line(s) in the kernel log"),
        cause="the GPU is on the bus and missing from nvidia-smi and CUDA",
        fix="power the machine off and on (a reboot does not reset the GPU's firmware); or enable "
        "Above 4G Decoding and Resizable BAR in the BIOS; or try another slot",
    )


@rule(
    "GD114",
    Severity.ERROR,
    "https://github.com/NVIDIA/gpu-operator/issues/492",
    explains=("GD113", "GD221", "GD418"),
)
def no_address_space_for_gpu(snapshot: Snapshot) -> Finding | None:
    """The firmware gave a GPU no address space.

    The driver says in the kernel log that a PCI region (BAR) of the GPU is invalid: the BIOS, or
    the hypervisor that passes the GPU through, has no room for it below or above 4 GiB.
    """
    failures = _lines(snapshot, re.compile(r"PCI I/O region assigned .* is invalid"))
    if not failures:
        return None
    return Finding(
        evidence=(failures[-1].text,),
        cause="the driver cannot reach the GPU and leaves it out",
        fix="boot with the kernel parameter pci=realloc; or enable Above 4G Decoding in the BIOS; "
        "or give the virtual machine 64-bit MMIO space",
    )


@rule(
    "GD115",
    Severity.NOTE,
    "https://docs.kernel.org/driver-api/vfio.html",
    explains=("GD221", "GD418"),
)
def gpu_reserved_for_virtual_machines(snapshot: Snapshot) -> Finding | None:
    """A GPU is reserved for virtual machines.

    The kernel's driver vfio-pci is bound to it, which passes it through to a virtual machine.

    Ignore it when the GPU is meant for a virtual machine.
    """
    reserved = [d for d in known(snapshot.driver.pci_devices) if d.kernel_driver == "vfio-pci"]
    if not reserved:
        return None
    return Finding(
        evidence=tuple(f"{d.address} is bound to vfio-pci" for d in reserved),
        cause="programs on this machine itself cannot use it",
        fix="take the GPU's id out of vfio-pci.ids in the kernel parameters and /etc/modprobe.d, "
        "then reboot",
    )


@gpu_rule(
    "GD123",
    Severity.NOTE,
    "https://docs.nvidia.com/deploy/driver-persistence",
    "https://github.com/pop-os/system76-power/issues/492",
)
def persistence_off(gpu: Gpu) -> Finding | None:
    """Persistence mode is off on a data-centre GPU that nobody uses.

    Without a client and without persistence mode the driver shuts the GPU down, and the next
    program waits while it starts again. A workstation's display keeps its GPU up.

    Ignore it when the machine has booted just now: nvidia-persistenced may not be up yet.
    """
    if known(gpu.persistence_enabled) or not DATA_CENTRE.search(known(gpu.name)):
        return None
    if known(gpu.processes):
        return None
    return Finding(
        evidence=(f"GPU {gpu.index}: persistence mode is off and no process is on it",),
        cause="the first CUDA call of every program takes 1.5 to 10 seconds longer",
        fix=f"sudo systemctl enable --now nvidia-persistenced; or sudo nvidia-smi -i {gpu.index} "
        "-pm 1",
    )


@rule(
    "GD130",
    Severity.ERROR,
    "https://github.com/NVIDIA/open-gpu-kernel-modules/issues/446",
    "https://github.com/Azure/azurehpc/pull/714",
    explains=("GD105", "GD107", "GD122", "GD221"),
)
def gsp_does_not_answer(snapshot: Snapshot) -> Finding | None:
    """A GPU's system processor stopped answering.

    From Turing on, the driver gives much of its work to a processor on the GPU, the GSP. Xid 119
    and 120 in the kernel log mean that it timed out or failed.

    Cure: sudo reboot, and update the driver; or where the kernel modules are the proprietary ones,
    which work without the GSP, put 'options nvidia NVreg_EnableGpuFirmware=0' into
    /etc/modprobe.d/nvidia.conf and reboot.
    """
    events = [event for event in known(snapshot.kernel_log.events) if event.xid in {119, 120}]
    if not events:
        return None
    version = known_or(snapshot.driver.module_version, "")
    update = f"update to driver {DRIVER_TO_INSTALL} or newer"
    branch = version.partition(".")[0]
    if branch.isdecimal() and int(branch) >= DRIVER_TO_INSTALL:
        update = f"update to a newer driver than {version}"
    without = (  # the open kernel modules do not work without the GSP
        "; or put 'options nvidia NVreg_EnableGpuFirmware=0' into /etc/modprobe.d/nvidia.conf and "
        "reboot"
        if known_or(snapshot.driver.module_kind, "") == "proprietary"
        else ""
    )
    return Finding(
        evidence=(events[-1].text, f"loaded kernel module: {version or 'not readable'}"),
        cause="nvidia-smi and CUDA hang or fail on this GPU until it is reset",
        fix=f"sudo reboot, and {update}{without}",
    )


def _lines(snapshot: Snapshot, pattern: re.Pattern[str]) -> list[KernelEvent]:
    return [event for event in known(snapshot.kernel_log.events) if pattern.search(event.text)]


def _install_open_driver(snapshot: Snapshot) -> str:
    """The command that installs a current driver with the open kernel module."""
    command = install_driver(snapshot)
    return command.replace("-server &&", "-server-open &&").replace(
        f"nvidia-driver:{DRIVER_TO_INSTALL}", "nvidia-driver:open-dkms"
    )
