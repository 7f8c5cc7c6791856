"""What several families of rules ask of a snapshot, and the commands that fit the machine."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

from gpudiag.rules.compatibility import (
    ARCHITECTURES,
    BEFORE_TURING,
    JETSON,
    LAST_DRIVER_BEFORE_TURING,
    Capability,
    Wheel,
    major,
    wheel_for,
)
from gpudiag.rules.requirement import release
from gpudiag.rules.visible import visible_gpus
from gpudiag.snapshot import (
    Gpu,
    Missing,
    NotObserved,
    Package,
    PciDevice,
    Snapshot,
    known,
    known_or,
)

NVML_SUCCESS = 0
NVML_VERSION_MISMATCH = 18
NVML_LIBRARY_NOT_FOUND = 12
DRIVER_TO_INSTALL = 580  # the first branch that runs every published torch wheel
FIRST_BLACKWELL_DEVICE_ID = 0x2900  # 0x2901 is a B200, 0x2b85 an RTX 5090; Ada ends at 0x28ff
FIRST_TURING_DEVICE_ID = 0x1E00  # 0x1db6 is a V100, 0x1e04 an RTX 2080 Ti
FIRST_MAXWELL_DEVICE_ID = 0x1340  # 0x12ba is a Kepler, 0x1380 a GTX 750 Ti
LAST_BRANCH_BEFORE_MAXWELL = 470  # the last that drives Kepler; 390 is Fermi's, 340 Tesla's
RED_HATS = ("red hat", "rocky", "alma", "centos", "fedora", "oracle linux", "amazon linux 2023")
# docs.nvidia.com/datacenter/tesla/driver-installation-guide: no streams to choose a branch by.
WITHOUT_MODULES = re.compile(r"fedora|(?:linux|server|stream) 1\d\b")
NVIDIA_REPOSITORY = "add NVIDIA's repository (developer.nvidia.com/cuda-downloads), then"
DEVICE_ID = re.compile(r"0x[0-9a-fA-F]{1,8}")
JETSON_WHEELS = "https://forums.developer.nvidia.com/t/pytorch-for-jetson/72048"
OUT_OF_THE_IMAGE = (
    "take the driver's files out of the container image: the runtime brings the host's"
)
JUST_BOOTED_S = 300  # services, persistence and the NVLink fabric need minutes after boot


def has_nvidia_gpu(snapshot: Snapshot) -> bool:
    """Whether there is NVIDIA hardware, by whichever source can tell.

    Raises:
        NotObserved: Nothing shows a GPU, and the PCI bus could not be read.
    """
    driver, nvml = snapshot.driver, snapshot.nvml
    if known_or(nvml.init_code, NVML_SUCCESS) == NVML_VERSION_MISMATCH:
        return True  # a kernel module answered
    signs = (nvml.gpus, driver.pci_devices, driver.module_loaded, driver.device_nodes)
    if any(sign for sign in signs if not isinstance(sign, Missing)) or cuda_lists_gpus(snapshot):
        return True
    known(driver.pci_devices)
    return False


def cuda_lists_gpus(snapshot: Snapshot) -> bool:
    """Whether CUDA itself lists a GPU; a Jetson before JetPack 6 has no other sign of one."""
    torch = snapshot.torch
    if known_or(snapshot.driver.cuda_device_count, 0) > 0:
        return True
    return known_or(torch.cuda_available, False) and known_or(torch.cuda_version, None) is not None  # noqa: FBT003


def driver_on_disk(snapshot: Snapshot) -> bool:
    """Whether a file of the driver is seen: a library of its own, or its kernel module."""
    driver = snapshot.driver
    return bool(known_or(driver.library_versions, ())) or not isinstance(
        driver.module_on_disk_version, Missing
    )


def in_container(snapshot: Snapshot) -> bool:
    """Whether the machine's devices are given by a container runtime."""
    return known(snapshot.system.container) is not None


def on_this_machine(snapshot: Snapshot) -> None:
    """Go on only where the host's own processes and devices are seen, not those of a container.

    Raises:
        NotObserved: This is a container, or nobody knows whether it is.
    """
    container = known(snapshot.system.container)
    if container is not None:
        raise NotObserved(f"in a {container} container the host's processes are not seen")


def just_booted(snapshot: Snapshot) -> bool:
    """Whether what starts with the machine may not be up yet."""
    return known_or(snapshot.system.uptime_s, JUST_BOOTED_S) < JUST_BOOTED_S


def driver_version(snapshot: Snapshot) -> str:
    """The version of the driver that runs: NVML's word, else the loaded module's.

    Raises:
        NotObserved: Neither could be read.
    """
    version = snapshot.nvml.driver_version
    return known(snapshot.driver.module_version if isinstance(version, Missing) else version)


def capabilities(snapshot: Snapshot) -> list[Capability]:
    """The compute capabilities of the GPUs that this process may use, where they tell theirs."""
    try:
        return _told(visible_gpus(snapshot))
    except NotObserved:
        return _told(known_or(snapshot.nvml.gpus, ()))


def _told(gpus: Iterable[Gpu]) -> list[Capability]:
    return [g.compute_capability for g in gpus if not isinstance(g.compute_capability, Missing)]


def installed(snapshot: Snapshot) -> dict[str, Package]:
    """The distributions that an import finds, by name: the first on sys.path where one is twice."""
    return {package.name: package for package in reversed(known(snapshot.packages.installed))}


def library_path(snapshot: Snapshot) -> tuple[str, ...]:
    """LD_LIBRARY_PATH as evidence, nothing where it is not set or not known."""
    variables = known_or(snapshot.environment.variables, ())
    return tuple(
        f"{v.name}={v.value}" for v in variables if v.name == "LD_LIBRARY_PATH" and v.value
    )


def quoted(text: str) -> str:
    """A text as a word of a command, but for a leading ``~/``, which quotes would keep as it is.

    Example:
        >>> quoted("~/my project/bin/python")
        "~/'my project/bin/python'"
    """
    if text == "~":
        return text
    return f"~/{shlex.quote(text[2:])}" if text.startswith("~/") else shlex.quote(text)


def pip_install(snapshot: Snapshot) -> str:
    """Pip install, or uv's, for the environment that was asked."""
    return _pip(snapshot, "install")


def _pip_install_torch(snapshot: Snapshot) -> str:
    """Pip install; in a new environment where that of the system refuses ("externally managed").

    In a container its image may have allowed it.
    """
    python = known_or(snapshot.torch.python, "python")
    is_system = known_or(snapshot.packages.environment_kind, "") == "system"
    on_host = not known_or(snapshot.system.container, "unknown")
    if is_system and on_host and python.startswith("/usr/bin/") and _installer(snapshot) == "pip":
        return f"{python} -m venv ~/venv && ~/venv/bin/python -m pip install"
    return pip_install(snapshot)


def _pip(snapshot: Snapshot, command: str) -> str:
    python = quoted(known_or(snapshot.torch.python, "python"))
    if _installer(snapshot) == "uv":
        return f"uv pip {command} --python {python}"
    return f"{python} -m pip {command}"


def install_distribution(snapshot: Snapshot, requirement: str) -> str:
    """The command that installs a Python distribution by what installed torch.

    Example:
        >>> install_distribution(Snapshot(), "numpy<2")
        "python -m pip install 'numpy<2'"
    """
    shown = shlex.quote(requirement)
    if _installer(snapshot) == "conda":
        return f"conda install -c conda-forge {shown}"
    return f"{pip_install(snapshot)} {shown}"


def pip_uninstall(snapshot: Snapshot) -> str:
    """Pip uninstall, or uv's, for the environment that was asked."""
    return _pip(snapshot, "uninstall")


def install_torch(snapshot: Snapshot) -> str:
    """The command that installs the torch build which this driver and these GPUs can run."""
    try:
        branch = major(driver_version(snapshot))
    except NotObserved:
        branch = DRIVER_TO_INSTALL
    of_gpus = capabilities(snapshot)
    if JETSON.intersection(of_gpus):
        return f"install the torch that NVIDIA builds for Jetson: {JETSON_WHEELS}"
    architecture = known_or(snapshot.system.architecture, "x86_64")
    if architecture not in ARCHITECTURES:
        return f"no torch wheel for {architecture} is published: build torch from its source"
    python = release(known_or(snapshot.system.python_version, ""))
    wheel = wheel_for(branch, of_gpus, architecture=architecture, python=python)
    if wheel is not None:
        return _install_wheel(snapshot, wheel)
    later = wheel_for(DRIVER_TO_INSTALL, of_gpus, architecture=architecture, python=python)
    if later is None:
        several = ", or use an environment of its own for each kind"
        return "no published torch wheel has code for all of these GPUs: build torch for them" + (
            several if len(set(of_gpus)) > 1 else ""
        )
    return (
        f"no published torch wheel fits driver {branch} and these GPUs: "
        f"{install_driver(snapshot)}, then {_install_wheel(snapshot, later)}"
    )


def _install_wheel(snapshot: Snapshot, wheel: Wheel) -> str:
    if _installer(snapshot) == "conda":
        return f"conda install -c conda-forge pytorch-gpu 'cuda-version={_series(wheel.tag)}'"
    return (
        f"{_pip_install_torch(snapshot)} --force-reinstall {wheel.torch} torchvision "
        f"--index-url https://download.pytorch.org/whl/{wheel.tag}"
    )


def reinstall_torch(snapshot: Snapshot) -> str:
    """The command that installs torch anew, in the build that fits this machine."""
    try:
        if has_nvidia_gpu(snapshot):
            return install_torch(snapshot)
    except NotObserved:
        pass  # nothing is known of the hardware: the plain wheel is the best advice
    if _installer(snapshot) == "conda":
        return "conda install -c conda-forge --force-reinstall pytorch torchvision"
    return f"{_pip_install_torch(snapshot)} --force-reinstall torch torchvision"


def fetch_torch_again(snapshot: Snapshot) -> str:
    """The command of `reinstall_torch`, without the files that were downloaded before."""
    command = reinstall_torch(snapshot)
    if command.startswith("conda install"):
        forced = "" if "--force-reinstall" in command else " --force-reinstall"
        return f"conda clean --all && {command}{forced}"
    return f"{command} --no-cache-dir" if "pip install" in command else command


def install_driver(snapshot: Snapshot) -> str:
    """The command that installs a driver for these GPUs on this operating system."""
    driver = _driver_to_install(snapshot)
    if known_or(snapshot.system.wsl, False):  # noqa: FBT003
        return (
            f"install {driver} on Windows (nvidia.com/drivers), never in WSL, then wsl --shutdown"
        )
    if known_or(snapshot.system.container, None) is not None:
        return f"install {driver} on the container's host"
    kind = "-server-open" if _needs_open_module(snapshot) else "-server"
    system = known_or(snapshot.system.os_name, "").lower()
    if "ubuntu" in system:
        return f"sudo apt install nvidia-driver-{DRIVER_TO_INSTALL}{kind} && sudo reboot"
    if "debian" in system and _before_turing(snapshot):
        return "sudo apt install nvidia-driver firmware-misc-nonfree && sudo reboot"
    if "debian" in system:  # its own packages end with branch 550
        return f"{NVIDIA_REPOSITORY} sudo apt install nvidia-open && sudo reboot"
    if _is_red_hat(system) and WITHOUT_MODULES.search(system) and not _before_turing(snapshot):
        return f"{NVIDIA_REPOSITORY} sudo dnf install nvidia-open && sudo reboot"
    if _is_red_hat(system) and not WITHOUT_MODULES.search(system):
        stream = "open-dkms" if _needs_open_module(snapshot) else str(DRIVER_TO_INSTALL)
        return f"sudo dnf module install nvidia-driver:{stream} && sudo reboot"
    return f"install {driver} from nvidia.com/drivers and reboot"


def install_package(snapshot: Snapshot, *, apt: str, dnf: str) -> str:
    """The command that installs a package of the operating system."""
    system = known_or(snapshot.system.os_name, "").lower()
    if _is_red_hat(system):
        return f"sudo dnf install {dnf}"
    if _is_debian(system):
        return f"sudo apt install {apt}"
    names = apt if apt == dnf else f"{apt} ({dnf} on Red Hat's systems)"
    return f"install with the package manager of this system {names}"


def kernel_headers(snapshot: Snapshot, kernel: str) -> str:
    """The command that installs what a kernel module is built with."""
    return install_package(snapshot, apt=f"linux-headers-{kernel}", dnf=f"kernel-devel-{kernel}")


def rebuild_initramfs(snapshot: Snapshot) -> str:
    """The command that takes a change of the kernel modules into the boot image."""
    system = known_or(snapshot.system.os_name, "").lower()
    if _is_red_hat(system) or "suse" in system:
        return "sudo dracut --force"
    if _is_debian(system):
        return "sudo update-initramfs -u"
    return "rebuild the initramfs (update-initramfs -u, dracut --force or mkinitcpio -P)"


def _is_red_hat(system: str) -> bool:
    return any(name in system for name in RED_HATS)


def _is_debian(system: str) -> bool:
    return any(name in system for name in ("debian", "ubuntu", "mint", "pop!_os"))


def _installer(snapshot: Snapshot) -> str:
    """What put torch, or else the environment, where it is: pip, uv or conda."""
    packages = snapshot.packages
    torch = next((p for p in known_or(packages.installed, ()) if p.name == "torch"), None)
    if torch is not None and torch.installer is not None:
        return torch.installer
    return known_or(packages.environment_tool, None) or "pip"


def _driver_to_install(snapshot: Snapshot) -> str:
    """The driver branches that support these GPUs and run a published wheel."""
    if not _before_turing(snapshot):
        return f"driver {DRIVER_TO_INSTALL} or newer"
    return (
        f"a driver of branch 525 to {LAST_DRIVER_BEFORE_TURING} (the last that supports Maxwell, "
        "Pascal and Volta)"
    )


def is_abandoned(snapshot: Snapshot, device: PciDevice) -> bool:
    """Whether the driver that runs has left a GPU of before Maxwell behind, as every later one has.

    Raises:
        NotObserved: The version of the driver could not be read.
    """
    if not DEVICE_ID.fullmatch(device.device_id):
        return False
    is_old = int(device.device_id, 16) < FIRST_MAXWELL_DEVICE_ID
    return is_old and major(driver_version(snapshot)) > LAST_BRANCH_BEFORE_MAXWELL


def _before_turing(snapshot: Snapshot) -> bool:
    """Whether a GPU is of the generations that newer driver branches have left behind."""
    lowest, highest = BEFORE_TURING
    of_gpus = _told(known_or(snapshot.nvml.gpus, ()))
    return any(lowest <= capability <= highest for capability in of_gpus) or any(
        FIRST_MAXWELL_DEVICE_ID <= number < FIRST_TURING_DEVICE_ID for number in _ids(snapshot)
    )


def _needs_open_module(snapshot: Snapshot) -> bool:
    """Whether a GPU is of the Blackwell generation, which has no proprietary kernel module."""
    return any(number >= FIRST_BLACKWELL_DEVICE_ID for number in _ids(snapshot))


def _ids(snapshot: Snapshot) -> list[int]:
    devices = known_or(snapshot.driver.pci_devices, ())
    return [int(d.device_id, 16) for d in devices if DEVICE_ID.fullmatch(d.device_id)]


def _series(tag: str) -> str:
    """The CUDA version that a wheel's tag names: cu126 is 12.6."""
    return f"{tag[2:-1]}.{tag[-1]}"
