"""GD1xx: the kernel module: not built, not signed, not for this GPU, or about to change."""

from __future__ import annotations

import re
from contextlib import suppress

from gpudiag.finding import Finding, Severity, gpu_rule, rule
from gpudiag.rules.compatibility import major
from gpudiag.rules.kernel_events import is_over, refusals, xid_events
from gpudiag.rules.machine import (
    DRIVER_TO_INSTALL,
    FIRST_MAXWELL_DEVICE_ID,
    LAST_BRANCH_BEFORE_MAXWELL,
    driver_on_disk,
    driver_version,
    has_nvidia_gpu,
    in_container,
    install_driver,
    kernel_headers,
    on_this_machine,
)
from gpudiag.snapshot import Gpu, KernelEvent, Missing, NotObserved, Snapshot, known, known_or

REJECTED = re.compile(r"[Ll]oading of .* is rejected|unsigned module loading is restricted")
NEEDS_OPEN_MODULE = re.compile("requires use of the NVIDIA open kernel modules")
WITHOUT_OPEN_MODULE = "not supported by open nvidia.ko"
UNSUPPORTED = re.compile(
    rf"NVRM: .*(?:is not supported by the|supported through the|{WITHOUT_OPEN_MODULE})\b"
)
PCI_ID = re.compile(r"PCI ID: 10de:([0-9a-fA-F]{4})")
LEGACY_BRANCH = re.compile(r"supported through the NVIDIA (\d+)\.")
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
    module is installed and not loaded.
    """
    if known(snapshot.driver.module_loaded):
        return None
    rejections = [e for e in known(snapshot.kernel_log.events) if REJECTED.search(e.text)]
    if not rejections or not has_nvidia_gpu(snapshot):
        return None
    on_this_machine(snapshot)
    if not driver_on_disk(snapshot):
        known(snapshot.driver.library_versions)
        return None  # it was another module, as of a file system or a virtual machine monitor
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
    refused = refusals(snapshot, NEEDS_OPEN_MODULE)
    if not refused:
        return None
    kind = known_or(snapshot.driver.module_kind, "not readable")
    return Finding(
        evidence=(refused[-1].text, f"kind of the loaded module: {kind}"),
        cause="nvidia-smi says 'No devices were found', and CUDA finds none",
        fix=_install_open_driver(snapshot),
    )


@rule(
    "GD112",
    Severity.ERROR,
    "https://developer.nvidia.com/cuda-gpus",
    "https://github.com/NVIDIA/open-gpu-kernel-modules/blob/main/src/nvidia/arch/nvalloc/unix/src/osapi.c",
    explains=("GD113", "GD221", "GD418"),
)
def gpu_not_supported(snapshot: Snapshot) -> Finding | None:
    """The driver does not support this GPU.

    The driver says so in the kernel log: it is older than the GPU, or the GPU is so old that only
    a legacy branch of the driver knows it, or its open kernel module is loaded, which works from
    Turing on. A GPU of before Maxwell beside others is left out: no published torch runs on it.
    """
    refused = [
        event
        for event in refusals(snapshot, UNSUPPORTED)
        if not (known_or(snapshot.nvml.gpus, ()) and _before_maxwell(event))
    ]
    if not refused:
        return None
    version = known_or(snapshot.driver.module_version, "not readable")
    return Finding(
        evidence=(refused[-1].text, f"loaded kernel module: {version}"),
        cause="the driver leaves the GPU alone, so that no program can use it",
        fix=_install_supporting_driver(snapshot, refused[-1]),
    )


@rule(
    "GD113",
    Severity.ERROR,
    "https://github.com/NVIDIA/open-gpu-kernel-modules/issues/789",
    explains=("GD107", "GD221", "GD418"),
)
def gpu_not_initialized(snapshot: Snapshot) -> Finding | None:
    """The driver could not start a GPU.

    The kernel log says "RmInitAdapter failed", and NVML does not list the GPU. Usual reasons: a
    BIOS without Above 4G Decoding, firmware that hangs since a crash, too little power, or a
    defect.
    """
    failures = refusals(snapshot, re.compile("RmInitAdapter failed"))
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
    failures = refusals(snapshot, re.compile(r"PCI I/O region assigned .* is invalid"))
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
    events = [e for e in xid_events(snapshot, 119, 120) if not is_over(snapshot, e)]
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


def _before_maxwell(event: KernelEvent) -> bool:
    """Whether a refused GPU is older than any that a published torch wheel has code for."""
    number, branch = PCI_ID.search(event.text), LEGACY_BRANCH.search(event.text)
    return (number is not None and int(number[1], 16) < FIRST_MAXWELL_DEVICE_ID) or (
        branch is not None and int(branch[1]) <= LAST_BRANCH_BEFORE_MAXWELL
    )


def _install_supporting_driver(snapshot: Snapshot, refusal: KernelEvent) -> str:
    """How the GPU of a refusal gets a driver that supports it."""
    legacy = "install the legacy branch that the kernel log or nvidia.com/drivers names for it"
    if WITHOUT_OPEN_MODULE in refusal.text:
        return f"with the proprietary kernel module: {install_driver(snapshot)}"
    if "supported through the" in refusal.text or _before_maxwell(refusal):
        return legacy
    newer = install_driver(snapshot)
    with suppress(NotObserved):
        if major(driver_version(snapshot)) >= DRIVER_TO_INSTALL:
            newer = "install the newest driver from nvidia.com/drivers"
    return f"{newer}; or for an old GPU {legacy}"


def _install_open_driver(snapshot: Snapshot) -> str:
    """The command that installs a current driver with the open kernel module."""
    command = install_driver(snapshot)
    return command.replace("-server &&", "-server-open &&").replace(
        f"nvidia-driver:{DRIVER_TO_INSTALL}", "nvidia-driver:open-dkms"
    )
