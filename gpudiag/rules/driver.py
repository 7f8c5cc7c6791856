"""GD1xx: the driver, its kernel module, its libraries."""

from __future__ import annotations

from gpudiag.finding import Finding, Severity, rule
from gpudiag.rules.machine import (
    NVML_VERSION_MISMATCH,
    OUT_OF_THE_IMAGE,
    cuda_lists_gpus,
    driver_on_disk,
    has_nvidia_gpu,
    in_container,
    install_driver,
    kernel_headers,
    rebuild_initramfs,
)
from gpudiag.snapshot import Missing, Snapshot, known, known_or

NVML_DRIVER_NOT_LOADED = 9

CUDA_NO_DEVICE = 100
NOT_ASKED = "NVML could not be asked"  # the probe's words for a child that did not run
# What cuInit refuses with: cause, cure. Codes as in the documentation of CUresult.
CUDA_REFUSALS = {
    34: (
        "the libcuda.so.1 that was loaded is a stub for linking, not the driver",
        "take the folder that ends in /stubs out of LD_LIBRARY_PATH",
    ),
    46: (
        "every GPU is busy or closed to this process",
        "look who holds them with 'gpudiag processes', and at their compute mode",
    ),
    802: (
        "the NVSwitch fabric of this machine is not ready, so no GPU can be used",
        "sudo systemctl enable --now nvidia-fabricmanager (its version must be the driver's); "
        "right after boot wait a few minutes",
    ),
    803: (
        "the CUDA library and the kernel module come from different drivers",
        "remove the copy of libcuda.so that does not belong to the loaded driver, then reboot",
    ),
    804: (
        "a cuda-compat library is on the path and works on data-centre GPUs only",
        "take /usr/local/cuda/compat out of LD_LIBRARY_PATH, or upgrade the host's driver",
    ),
    805: (
        "the MPS server did not answer or refused this client",
        "restart it: echo quit | nvidia-cuda-mps-control; nvidia-cuda-mps-control -d",
    ),
    999: (
        "the driver's unified-memory part is missing or broken, as after a suspend",
        "sudo modprobe -r nvidia_uvm && sudo modprobe nvidia_uvm; "
        "where /dev/nvidia-uvm is missing: sudo nvidia-modprobe -c 0 -u",
    ),
}


@rule(
    "GD101",
    Severity.ERROR,
    "https://docs.nvidia.com/datacenter/tesla/driver-installation-guide/",
    explains=("GD221", "GD317"),
)
def driver_not_installed(snapshot: Snapshot) -> Finding | None:
    """No NVIDIA driver is installed.

    The PCI bus shows an NVIDIA GPU, but there is neither a kernel module, loaded or on disk, nor
    a user-space library of the driver. Without it no program can use the GPU.
    """
    driver = snapshot.driver
    devices = known(driver.pci_devices)
    if not devices or known(driver.module_loaded) or in_container(snapshot):
        return None
    known(driver.library_versions)
    if driver_on_disk(snapshot) or _bound_to_nouveau(snapshot):
        return None
    return Finding(
        evidence=(
            f"{len(devices)} NVIDIA GPU(s) on the PCI bus: {_addresses(snapshot)}",
            "the nvidia kernel module is not loaded, and no libcuda or libnvidia-ml is installed",
        ),
        cause="without the driver CUDA finds no device and torch.cuda.is_available() is False",
        fix=install_driver(snapshot),
    )


@rule(
    "GD102",
    Severity.ERROR,
    "https://github.com/GoogleCloudPlatform/compute-gpu-installation/pull/18",
    explains=("GD105", "GD221", "GD317"),
)
def driver_not_loaded(snapshot: Snapshot) -> Finding | None:
    """The NVIDIA driver is installed but not loaded.

    The driver's files are on disk and its kernel module is not in the kernel. Usual reasons: a
    kernel update for which the module was not built (DKMS, missing headers), or Secure Boot that
    rejects an unsigned module.
    """
    driver = snapshot.driver
    refused = known_or(snapshot.nvml.init_code, 0) == NVML_DRIVER_NOT_LOADED
    if not refused and (known(driver.module_loaded) or cuda_lists_gpus(snapshot)):
        return None
    if not has_nvidia_gpu(snapshot) or in_container(snapshot) or _bound_to_nouveau(snapshot):
        return None
    if not (refused or driver_on_disk(snapshot)):
        known(driver.library_versions)
        return None
    secure_boot = known_or(driver.secure_boot, False)  # noqa: FBT003
    evidence = [
        "the nvidia kernel module is not loaded",
        f"driver files on disk: {_on_disk(snapshot)}",
    ]
    if refused:
        evidence.insert(0, f"NVML: {known_or(snapshot.nvml.init_message, 'driver not loaded')}")
    if secure_boot:
        evidence.append("Secure Boot is on, which rejects a module that is not signed")
    kernel = known_or(snapshot.system.kernel, "$(uname -r)")
    return Finding(
        evidence=tuple(evidence),
        cause="the libraries find no driver in the kernel, so every CUDA program sees no GPU",
        fix="sudo modprobe nvidia; or if that fails: "
        + (
            "enrol the module's key with mokutil or switch Secure Boot off, then reboot"
            if secure_boot
            else f"{kernel_headers(snapshot, kernel)} && sudo dkms autoinstall && sudo reboot"
        ),
    )


@rule(
    "GD103",
    Severity.ERROR,
    "https://github.com/NVIDIA/ubuntu-packaging-nvidia-driver/issues/3",
    explains=("GD105", "GD110", "GD119", "GD221"),
)
def driver_library_mismatch(snapshot: Snapshot) -> Finding | None:
    """The driver's library and its kernel module are of different versions.

    An upgrade replaced the libraries on disk while the old kernel module is still loaded. It
    worked yesterday; programs that are already running go on, new ones fail. In a container the
    libraries are those of the driver that ran when it was started, or part of its image.
    """
    driver = snapshot.driver
    code = snapshot.nvml.init_code
    loaded, libraries = driver.module_version, known_or(driver.library_versions, ())
    refused = known_or(code, 0) == NVML_VERSION_MISMATCH
    differ = not isinstance(loaded, Missing) and bool(libraries) and loaded not in libraries
    if not refused and not differ:
        known(code)
        return None
    evidence = (
        *([f"NVML: {known_or(snapshot.nvml.init_message, 'version mismatch')}"] if refused else []),
        f"loaded kernel module: {known_or(loaded, 'version not readable')}",
        f"libraries on disk: {', '.join(libraries) or 'version not readable'}",
    )
    return Finding(
        evidence=evidence,
        cause="new programs cannot talk to the driver until both sides are of one version",
        fix=f"start the container anew; or {OUT_OF_THE_IMAGE}; or where nvidia-smi fails outside "
        "of it, too: sudo reboot"
        if known_or(snapshot.system.container, None) is not None
        else "sudo reboot; or without a reboot: end all GPU programs, then sudo rmmod nvidia_drm "
        "nvidia_modeset nvidia_uvm nvidia && sudo modprobe nvidia",
    )


@rule(
    "GD104",
    Severity.ERROR,
    "https://github.com/NVIDIA/gpu-operator/issues/8",
    explains=("GD102", "GD221", "GD418"),
)
def nouveau_holds_the_gpu(snapshot: Snapshot) -> Finding | None:
    """The nouveau driver holds the GPU.

    The open graphics driver of the Linux kernel is bound to the GPU, so NVIDIA's cannot be.
    """
    devices = [d for d in known(snapshot.driver.pci_devices) if d.kernel_driver == "nouveau"]
    if not devices:
        return None
    return Finding(
        evidence=tuple(f"{d.address} is bound to nouveau" for d in devices),
        cause="CUDA works with NVIDIA's driver only, and one device has one driver",
        fix="printf 'blacklist nouveau\\noptions nouveau modeset=0\\n' | sudo tee "
        f"/etc/modprobe.d/disable-nouveau.conf && {rebuild_initramfs(snapshot)} && sudo reboot",
    )


@rule("GD105", Severity.ERROR, "https://docs.nvidia.com/cuda/cuda-driver-api/", explains=("GD221",))
def cuda_does_not_start(snapshot: Snapshot) -> Finding | None:
    """CUDA itself refuses to start.

    ``cuInit`` of the driver library was called in a fresh process, without torch, and failed:
    the fault lies below torch.

    Cause: the number that cuInit returns says which: 34 a stub library, 46 every GPU busy or
    closed, 802 the NVSwitch fabric is not ready, 803 libraries of two drivers, 804 a cuda-compat
    library on a GPU that it does not serve, 805 the MPS server, 999 the unified-memory module.

    Cure: the report names the one that belongs to the number.
    """
    code = known(snapshot.driver.cuda_init_code)
    if code == 0 or known_or(snapshot.nvml.init_code, 0) == NVML_VERSION_MISMATCH:
        return None
    if code == CUDA_NO_DEVICE:
        return None  # no device is shown to this process: GD1xx, GD3xx say why
    cause, fix = CUDA_REFUSALS.get(
        code,
        (
            "the driver refuses every CUDA program",
            "read 'sudo dmesg | grep -i nvrm', then reboot",
        ),
    )
    return Finding(
        evidence=(
            f"cuInit returned {code}",
            f"library: {known_or(snapshot.driver.libcuda_path, 'libcuda.so.1')}",
        ),
        cause=cause,
        fix=fix,
    )


@rule("GD106", Severity.NOTE, "https://docs.nvidia.com/cuda/cuda-installation-guide-linux/")
def no_nvidia_gpu(snapshot: Snapshot) -> Finding | None:
    """There is no NVIDIA GPU in this machine.

    Nothing is wrong: torch runs on the CPU. On a rented machine this means that the machine type
    has no GPU, or that none was attached.
    """
    if has_nvidia_gpu(snapshot) or known_or(snapshot.system.wsl, False):  # noqa: FBT003
        return None
    answer = snapshot.nvml.init_code
    if isinstance(answer, Missing) and NOT_ASKED in answer.missing:
        known(answer)
    return Finding(
        evidence=(
            "no NVIDIA device on the PCI bus, no driver loaded, no /dev/nvidia*",
            *(["NVML is installed and says: driver not loaded"] if _not_loaded(snapshot) else []),
        ),
        cause="torch.cuda.is_available() is False here, and that is right",
        fix="nothing to do; or where there should be a GPU: check the machine type or the slot"
        + (", then sudo modprobe nvidia" if _not_loaded(snapshot) else ""),
    )


def _not_loaded(snapshot: Snapshot) -> bool:
    return known_or(snapshot.nvml.init_code, 0) == NVML_DRIVER_NOT_LOADED


@rule(
    "GD107",
    Severity.ERROR,
    "https://github.com/NVIDIA/open-gpu-kernel-modules/issues/446",
    explains=("GD105", "GD221"),
)
def nvml_hangs_or_crashes(snapshot: Snapshot) -> Finding | None:
    """The driver's management library hangs or crashes.

    NVML was asked in a process of its own, which gave no answer in time or died. nvidia-smi is
    the same library and will do the same.
    """
    failure = known(snapshot.nvml.failure)
    if failure is None:
        return None
    gpus = known_or(snapshot.nvml.gpus, ())
    silent = [str(gpu.index) for gpu in gpus if isinstance(gpu.error_codes, Missing)]
    return Finding(
        evidence=(
            f"NVML: {failure}",
            f"first GPU without an answer: {silent[0]}" if silent else "no GPU answered",
        ),
        cause="the driver or a GPU's firmware is stuck; programs that ask it will be, too",
        fix="sudo nvidia-bug-report.sh --safe-mode keeps the evidence; then reboot, and update "
        "the driver if it comes back",
    )


def _on_disk(snapshot: Snapshot) -> str:
    driver = snapshot.driver
    module = known_or(driver.module_on_disk_version, "none found")
    libraries = ", ".join(known_or(driver.library_versions, ())) or "none found"
    return f"kernel module {module}, libraries {libraries}"


def _bound_to_nouveau(snapshot: Snapshot) -> bool:
    return any(d.kernel_driver == "nouveau" for d in known_or(snapshot.driver.pci_devices, ()))


def _addresses(snapshot: Snapshot) -> str:
    return ", ".join(d.address for d in known_or(snapshot.driver.pci_devices, ()))
