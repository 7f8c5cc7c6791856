"""Cures on machines where the usual one does harm, or nothing."""

import pytest
from builders import only, silent, snapshot
from rule_cases import xid

from gpudiag.rules import ecc, kernel_module, nvlink, visibility, wsl
from gpudiag.snapshot import DeviceNode, KernelEvent


def fix(rule, **facts):
    return only(rule, snapshot(**facts)).fix


def test_the_fabric_manager_is_restarted_when_no_program_runs():
    """On the A100 its stop ends every CUDA program."""
    assert nvlink.MEND_LINKS.startswith("end the CUDA programs, then sudo systemctl restart")


def test_only_the_gpu_with_the_memory_error_is_reset():
    nameless = (KernelEvent(text="NVRM: Xid 94", xid=94),)

    assert fix(ecc.contained_memory_error, events=xid(94)).endswith("--gpu-reset -i 0000:1b:00.0")
    assert fix(ecc.contained_memory_error, events=nameless).endswith("--gpu-reset -i <its index>")


@pytest.mark.parametrize(
    ("system", "package"), [("Ubuntu 24.04", "'libnvidia-compute*'"), ("Debian 12", "libcuda1")]
)
def test_toolkits_stay_where_a_linux_driver_is_removed_from_wsl(system, package):
    facts = {
        "system": {"wsl": True, "os_name": system},
        "driver": {"library_versions": ("550.54.15",)},
    }

    assert fix(wsl.linux_driver_in_wsl, **facts).startswith(f"sudo apt purge {package} (")


@pytest.mark.parametrize(
    ("kind", "version", "expected"),
    [
        ("open", "580.82.07", "sudo reboot, and update to a newer driver than 580.82.07"),
        ("open", "570.133.20", "sudo reboot, and update to driver 580 or newer"),
        (
            "proprietary",
            "550.54.15",
            "sudo reboot, and update to driver 580 or newer; or put 'options nvidia "
            "NVreg_EnableGpuFirmware=0' into /etc/modprobe.d/nvidia.conf and reboot",
        ),
    ],
)
def test_the_open_kernel_modules_are_not_told_to_go_without_firmware(kind, version, expected):
    driver = {"module_kind": kind, "module_version": version}

    assert fix(kernel_module.gsp_does_not_answer, events=xid(119), driver=driver) == expected


@pytest.mark.parametrize(
    ("mode", "group", "expected"),
    [
        ("crw-rw----", "video", "sudo usermod -aG video $USER and log in again"),
        ("crw-------", "root", "sudo chmod 0666 /dev/nvidia0, and for the time after the next"),
        ("crw-rw----", "root", "sudo chmod 0666 /dev/nvidia0, and for the time after the next"),
    ],
)
def test_a_group_that_may_open_no_gpu_is_not_to_be_joined(mode, group, expected):
    nodes = (DeviceNode(path="/dev/nvidia0", usable=False, mode=mode, group=group),)

    cure = fix(visibility.device_files_not_accessible, driver={"device_nodes": nodes})

    assert cure.startswith(expected)


def test_a_device_file_that_cuda_does_not_open_may_be_closed():
    closed = tuple(
        DeviceNode(path=path, usable=False) for path in ("/dev/nvidia-modeset", "/dev/nvidia1")
    )
    rule = visibility.device_files_not_accessible

    assert silent(rule, snapshot(driver={"device_nodes": closed[:1]}))
    assert silent(rule, snapshot(driver={"device_nodes": closed, "cuda_init_code": 0}))
    assert only(rule, snapshot(driver={"device_nodes": closed, "cuda_init_code": 100}))
