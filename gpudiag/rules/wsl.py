"""GD1xx: Linux on Windows, where the driver is Windows' own."""

from __future__ import annotations

from gpudiag.finding import Finding, Severity, rule
from gpudiag.rules.machine import DRIVER_TO_INSTALL
from gpudiag.snapshot import Missing, NotObserved, Snapshot, known, known_or

WINDOWS_LIBRARIES = "/usr/lib/wsl/lib"
DOCUMENTATION = "https://docs.nvidia.com/cuda/wsl-user-guide/"


@rule(
    "GD127",
    Severity.ERROR,
    "https://github.com/microsoft/WSL/issues/9092",
    DOCUMENTATION,
    explains=("GD102", "GD105", "GD108", "GD119", "GD129", "GD221"),
)
def linux_driver_in_wsl(snapshot: Snapshot) -> Finding | None:
    """A Linux driver is installed inside WSL.

    In WSL the Windows driver brings libcuda along, in /usr/lib/wsl/lib. A second one, from a Linux
    package, stands in the system's folders and is loaded in its place.

    Cure: sudo apt purge 'libnvidia-compute*' (libcuda1 on Debian; with the packages that need it),
    then wsl --shutdown in Windows.
    """
    if not known(snapshot.system.wsl):
        return None
    versions = known(snapshot.driver.library_versions)
    if not versions:
        return None
    return Finding(
        evidence=(
            "this is WSL",
            f"driver libraries of Linux packages: {', '.join(versions)}",
        ),
        cause="the Linux library finds no Linux driver in WSL's kernel: CUDA finds no device",
        fix=f"{_purge(snapshot)} (with the packages that need it), then wsl --shutdown in Windows",
    )


@rule("GD128", Severity.ERROR, DOCUMENTATION, explains=("GD129", "GD221"))
def no_gpu_in_wsl(snapshot: Snapshot) -> Finding | None:
    """Windows does not pass its GPU into WSL.

    WSL 2 shows the GPU as /dev/dxg, and that file is not here: this is WSL 1, or WSL or Windows
    is too old, or GPU support is switched off in .wslconfig.

    Ignore it when the Windows machine has no NVIDIA GPU.
    """
    if not known(snapshot.system.wsl) or known(snapshot.system.container) is not None:
        return None
    nodes = [node.path for node in known(snapshot.driver.device_nodes)]
    if "/dev/dxg" in nodes:
        return None
    return Finding(
        evidence=("this is WSL", "/dev/dxg is missing"),
        cause="no program in WSL can reach the GPU, whatever is installed here",
        fix="in Windows: wsl --update && wsl --shutdown; or convert the distribution: wsl "
        "--set-version <name> 2",
    )


@rule(
    "GD129",
    Severity.ERROR,
    "https://github.com/microsoft/WSL/issues/7056",
    DOCUMENTATION,
    explains=("GD105", "GD221"),
)
def windows_library_not_found(snapshot: Snapshot) -> Finding | None:
    """The Windows driver's CUDA library is not found in WSL.

    /dev/dxg is here, and the loader finds no libcuda.so.1: the Windows driver is missing or too
    old, or the loader does not look into /usr/lib/wsl/lib.
    """
    if not known(snapshot.system.wsl):
        return None
    nodes = [node.path for node in known(snapshot.driver.device_nodes)]
    path = snapshot.driver.libcuda_path
    if not isinstance(path, Missing) or "/dev/dxg" not in nodes:
        return None
    if "cannot be loaded" not in path.missing:
        raise NotObserved(path.missing)
    return Finding(
        evidence=("this is WSL, and /dev/dxg is here", path.missing),
        cause="torch finds no NVIDIA driver on the system",
        fix=f"export LD_LIBRARY_PATH={WINDOWS_LIBRARIES} if libcuda.so.1 lies there; or install "
        f"NVIDIA driver {DRIVER_TO_INSTALL} or newer on Windows, then wsl --shutdown",
    )


@rule("GD131", Severity.NOTE, DOCUMENTATION)
def no_gpu_in_container_of_wsl(snapshot: Snapshot) -> Finding | None:
    """This container in WSL was given no GPU.

    WSL 2 shows the GPU of the Windows machine as /dev/dxg, and a container has it only when it was
    asked for.

    Ignore it when the container is meant to run on the CPU, or the Windows machine has no NVIDIA
    GPU.
    """
    container = known(snapshot.system.container)
    if not known(snapshot.system.wsl) or container is None:
        return None
    nodes = [node.path for node in known(snapshot.driver.device_nodes)]
    if "/dev/dxg" in nodes:
        return None
    return Finding(
        evidence=(f"this is a {container} container in WSL", "/dev/dxg is not in it"),
        cause="no program in this container can reach a GPU",
        fix="start it with 'docker run --gpus all …' (podman: --device nvidia.com/gpu=all)",
    )


def _purge(snapshot: Snapshot) -> str:
    """Removes the package with libcuda.so.1, and leaves the toolkits of CUDA and of containers."""
    system = known_or(snapshot.system.os_name, "").lower()
    package = "libcuda1" if "debian" in system else "'libnvidia-compute*'"
    return f"sudo apt purge {package}"
