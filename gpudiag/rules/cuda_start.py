"""GD1xx: why CUDA does not start although a driver is loaded."""

from __future__ import annotations

import re

from gpudiag.finding import Finding, Severity, rule
from gpudiag.rules.machine import (
    OUT_OF_THE_IMAGE,
    in_container,
    install_driver,
    on_this_machine,
)
from gpudiag.snapshot import Missing, NotObserved, Snapshot, known, known_or

CUDA_SUCCESS = 0
CUDA_MISMATCH, CUDA_COMPATIBILITY, CUDA_UNKNOWN = 803, 804, 999
# What the loader says where this process has too little to load anything.
STARVED = re.compile(r"Too many open files|Error 24\b|Cannot allocate memory|failed to map segment")
UNIFIED_MEMORY_NODE = "/dev/nvidia-uvm"


@rule(
    "GD116",
    Severity.ERROR,
    "https://github.com/pytorch/pytorch/issues/2985",
    explains=("GD221",),
)
def cuda_library_missing(snapshot: Snapshot) -> Finding | None:
    """The driver runs, and its CUDA library is not found.

    A process without torch asked the loader for libcuda.so.1, which every CUDA program needs,
    and the loader found none, although the driver's kernel module is loaded and its device files
    are here.
    """
    driver = snapshot.driver
    path, reason = driver.libcuda_path, _why_not_loaded(snapshot)
    if reason is None:
        known(path)
        return None
    if not known(driver.module_loaded) or not _has_gpu_node(snapshot):
        return None
    return Finding(
        evidence=(
            reason,
            "the nvidia kernel module is loaded, and /dev/nvidia0 or a sibling is here",
        ),
        cause="every CUDA program ends with 'libcuda.so.1: cannot open shared object file'",
        fix="start the container with -e NVIDIA_DRIVER_CAPABILITIES=compute,utility, and without "
        "files of its own in place of the driver's"
        if in_container(snapshot)
        else f"sudo ldconfig; or install the driver's libraries: {install_driver(snapshot)}",
    )


@rule(
    "GD117",
    Severity.ERROR,
    "https://github.com/pytorch/pytorch/issues/49081",
    explains=("GD105", "GD221"),
)
def unified_memory_node_missing(snapshot: Snapshot) -> Finding | None:
    """The device file of unified memory is missing.

    /dev/nvidia0 is here and /dev/nvidia-uvm is not, and cuInit failed. nvidia-smi does not need
    that file and works; every CUDA program does.
    """
    nodes = {node.path for node in known(snapshot.driver.device_nodes)}
    if UNIFIED_MEMORY_NODE in nodes or not _has_gpu_node(snapshot):
        return None
    code = known(snapshot.driver.cuda_init_code)
    if code == CUDA_SUCCESS:
        return None
    return Finding(
        evidence=(f"{UNIFIED_MEMORY_NODE} is missing", f"cuInit returned {code}"),
        cause="CUDA reports an unknown error although nvidia-smi works",
        fix="pass it into the container: --device /dev/nvidia-uvm --device /dev/nvidia-uvm-tools"
        if in_container(snapshot)
        else "sudo nvidia-modprobe -c 0 -u",
    )


@rule(
    "GD118",
    Severity.ERROR,
    "https://github.com/pytorch/pytorch/issues/49081",
    "https://github.com/pytorch/pytorch/issues/88639",
    explains=("GD105", "GD221"),
)
def broken_after_suspend(snapshot: Snapshot) -> Finding | None:
    """CUDA reports an unknown error while nvidia-smi works.

    NVML starts, /dev/nvidia-uvm is here, and cuInit returns 999. On a laptop or workstation that
    is the unified-memory module after the machine slept; nothing but loading it anew helps.
    """
    code = known(snapshot.driver.cuda_init_code)
    if code != CUDA_UNKNOWN or known(snapshot.nvml.init_code) != 0:
        return None
    nodes = {node.path for node in known(snapshot.driver.device_nodes)}
    if UNIFIED_MEMORY_NODE not in nodes:
        return None
    return Finding(
        evidence=("NVML starts", f"cuInit returned {code} (unknown error)"),
        cause="the module nvidia_uvm does not survive a suspend unless video memory is preserved",
        fix="sudo modprobe -r nvidia_uvm && sudo modprobe nvidia_uvm; or for good: options nvidia "
        "NVreg_PreserveVideoMemoryAllocations=1 in /etc/modprobe.d/nvidia.conf and sudo systemctl "
        "enable nvidia-suspend nvidia-resume",
    )


@rule(
    "GD119",
    Severity.WARNING,
    "https://github.com/llm-d/llm-d/issues/706",
    explains=("GD105", "GD221"),
)
def libraries_of_two_drivers(snapshot: Snapshot) -> Finding | None:
    """Libraries of two driver versions are installed.

    The folders of the system hold libcuda or libnvidia-ml in more than one version. Which one a
    program loads depends on the order in which the loader looks.

    Ignore it when the second version is a deliberate leftover that no loader path names.
    """
    versions = known(snapshot.driver.library_versions)
    if len(versions) <= 1:
        return None
    loaded = known_or(snapshot.driver.module_version, "not readable")
    return Finding(
        evidence=(f"libraries on disk: {', '.join(versions)}", f"loaded kernel module: {loaded}"),
        cause="a program that loads the wrong one ends with error 803, or finds no GPU",
        fix=OUT_OF_THE_IMAGE
        if in_container(snapshot)
        else f"remove the packages or files of every version but {loaded}, then sudo ldconfig",
    )


@rule(
    "GD120",
    Severity.ERROR,
    "https://github.com/NVIDIA/nvidia-docker/issues/1515",
    "https://docs.nvidia.com/deploy/cuda-compatibility/",
    explains=("GD105", "GD221"),
)
def compatibility_library_unusable(snapshot: Snapshot) -> Finding | None:
    """A cuda-compat library is loaded that this machine cannot use.

    libcuda.so.1 comes from a folder called compat, and cuInit fails with 803 or 804. The
    compatibility library serves data-centre GPUs only, and only drivers older than itself.
    """
    path, code = known(snapshot.driver.libcuda_path), known(snapshot.driver.cuda_init_code)
    if "/compat" not in path or code not in {CUDA_MISMATCH, CUDA_COMPATIBILITY}:
        return None
    return Finding(
        evidence=(f"libcuda.so.1 is {path}", f"cuInit returned {code}"),
        cause="forward compatibility is not supported here: on this GPU, or with this newer driver",
        fix="take the folder out of LD_LIBRARY_PATH and /etc/ld.so.conf.d, then sudo ldconfig; "
        f"or upgrade the driver: {install_driver(snapshot)}",
    )


@rule(
    "GD121",
    Severity.ERROR,
    "https://github.com/NVIDIA/warp/issues/219",
    "https://github.com/horovod/horovod/issues/3831",
    explains=("GD105", "GD221"),
)
def stub_library(snapshot: Snapshot) -> Finding | None:
    """The CUDA library that is loaded is a stub.

    The toolkit brings a libcuda.so without content, for linking on machines without a driver. A
    folder called stubs stands in the loader's path before the driver's.
    """
    path = known(snapshot.driver.libcuda_path)
    if "/stubs/" not in path:
        return None
    return Finding(
        evidence=(f"libcuda.so.1 is {path}",),
        cause="every call fails with error 34: the CUDA driver is a stub library",
        fix="take the folder that ends in /stubs out of LD_LIBRARY_PATH and /etc/ld.so.conf.d",
    )


@rule(
    "GD122",
    Severity.WARNING,
    "https://github.com/NVIDIA/open-gpu-kernel-modules/issues/446",
    explains=("GD105", "GD107", "GD221"),
)
def process_stuck_in_driver(snapshot: Snapshot) -> Finding | None:
    """A process is stuck inside the driver.

    It sleeps uninterruptibly (state D) in a function of the NVIDIA driver, where no signal
    reaches it.

    Ignore it when NVML answers and the process is gone a moment later.
    """
    on_this_machine(snapshot)
    stuck = known(snapshot.driver.stuck_processes)
    if not stuck:
        return None
    return Finding(
        evidence=tuple(f"process {process}" for process in stuck),
        cause="the driver or a GPU's firmware hangs: kill has no effect, and others hang behind it",
        fix="sudo nvidia-bug-report.sh --safe-mode keeps the evidence; then sudo reboot",
    )


def _has_gpu_node(snapshot: Snapshot) -> bool:
    nodes = known(snapshot.driver.device_nodes)
    return any(re.fullmatch(r"/dev/nvidia\d+", node.path) for node in nodes)


def _why_not_loaded(snapshot: Snapshot) -> str | None:
    """The loader's words where libcuda.so.1 cannot be loaded, None where it was loaded.

    Raises:
        NotObserved: Nobody asked the loader, or it had no memory or no open files left.
    """
    path = snapshot.driver.libcuda_path
    if not isinstance(path, Missing):
        return None
    if "cannot be loaded" not in path.missing or STARVED.search(path.missing):
        raise NotObserved(path.missing)
    return path.missing
