"""What several families of rules ask of a snapshot, and the commands that fit the machine."""

from __future__ import annotations

from gpudiag.rules.compatibility import Capability, major, wheel_for
from gpudiag.snapshot import Missing, NotObserved, Snapshot, known, known_or

NVML_SUCCESS = 0
NVML_VERSION_MISMATCH = 18
DRIVER_TO_INSTALL = 580  # the first branch that runs every published torch wheel


def has_nvidia_gpu(snapshot: Snapshot) -> bool:
    """Whether there is NVIDIA hardware, by whichever source can tell.

    Raises:
        NotObserved: Nothing shows a GPU, and the PCI bus could not be read.
    """
    driver, nvml = snapshot.driver, snapshot.nvml
    if known_or(nvml.init_code, NVML_SUCCESS) == NVML_VERSION_MISMATCH:
        return True  # a kernel module answered
    signs = (nvml.gpus, driver.pci_devices, driver.module_loaded, driver.device_nodes)
    if any(sign for sign in signs if not isinstance(sign, Missing)):
        return True
    known(driver.pci_devices)
    return False


def in_container(snapshot: Snapshot) -> bool:
    """Whether the machine's devices are given by a container runtime."""
    return known(snapshot.system.container) is not None


def driver_version(snapshot: Snapshot) -> str:
    """The version of the driver that runs: NVML's word, else the loaded module's.

    Raises:
        NotObserved: Neither could be read.
    """
    version = snapshot.nvml.driver_version
    return known(snapshot.driver.module_version if isinstance(version, Missing) else version)


def capabilities(snapshot: Snapshot) -> list[Capability]:
    """The compute capabilities of the GPUs that tell theirs."""
    gpus = known_or(snapshot.nvml.gpus, ())
    return [g.compute_capability for g in gpus if not isinstance(g.compute_capability, Missing)]


def pip(snapshot: Snapshot) -> str:
    """The pip of the environment that was asked."""
    return f"{known_or(snapshot.torch.python, 'python')} -m pip"


def install_torch(snapshot: Snapshot) -> str:
    """The command that installs the torch build which this driver and these GPUs can run."""
    try:
        branch = major(driver_version(snapshot))
    except NotObserved:
        branch = DRIVER_TO_INSTALL
    wheel = wheel_for(branch, capabilities(snapshot))
    if wheel is None:
        return (
            f"no published torch wheel fits driver {branch} and these GPUs: "
            f"{install_driver(snapshot)}"
        )
    return (
        f"{pip(snapshot)} install --force-reinstall {wheel.torch} torchvision "
        f"--index-url https://download.pytorch.org/whl/{wheel.tag}"
    )


def install_driver(snapshot: Snapshot) -> str:
    """The command that installs a current driver on this operating system."""
    if known_or(snapshot.system.container, None) is not None:
        return f"install driver {DRIVER_TO_INSTALL} or newer on the container's host"
    system = known_or(snapshot.system.os_name, "").lower()
    if "ubuntu" in system:
        return f"sudo apt install nvidia-driver-{DRIVER_TO_INSTALL}-server && sudo reboot"
    if "debian" in system:
        return "sudo apt install nvidia-driver firmware-misc-nonfree && sudo reboot"
    if any(name in system for name in ("red hat", "rocky", "alma", "centos", "fedora")):
        return f"sudo dnf module install nvidia-driver:{DRIVER_TO_INSTALL} && sudo reboot"
    return f"install driver {DRIVER_TO_INSTALL} or newer from nvidia.com/drivers and reboot"
