"""Cures on machines where the usual one does harm, or nothing."""

import pytest
from builders import gpu, only, silent, snapshot
from rule_cases import package, xid

from gpudiag.rules import ecc, import_error, kernel_module, machine, nvlink, visibility, wsl
from gpudiag.snapshot import DeviceNode, KernelEvent


def fix(rule, **facts):
    return only(rule, snapshot(**facts)).fix


def test_the_fabric_manager_is_restarted_when_no_program_runs():
    """On the A100 its stop ends every CUDA program."""
    assert nvlink.MEND_LINKS.startswith("end the CUDA programs, then sudo systemctl restart")


ON_A_MACHINE = {"system": {"container": None, "scheduler": None}}


def test_only_the_gpu_with_the_memory_error_is_reset():
    nameless = (KernelEvent(text="NVRM: Xid 94", xid=94),)

    for rule, number in ((ecc.contained_memory_error, 94), (ecc.uncontained_memory_error, 95)):
        cure = fix(rule, events=xid(number), **ON_A_MACHINE)
        assert "--gpu-reset -i 0000:1b:00.0" in cure
    cure = fix(ecc.contained_memory_error, events=nameless, **ON_A_MACHINE)
    assert cure.endswith("--gpu-reset -i <its index>")


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

    assert (
        fix(kernel_module.gsp_does_not_answer, events=xid(119), driver=driver, **ON_A_MACHINE)
        == expected
    )


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


def test_a_mode_that_is_open_already_is_not_to_be_opened():
    nodes = (DeviceNode(path="/dev/nvidia0", usable=False, mode="crw-rw-rw-", group="root"),)

    finding = only(visibility.device_files_not_accessible, snapshot(driver={"device_nodes": nodes}))

    assert "in spite of mode 0666: /dev/nvidia0" in finding.evidence[0]
    assert "chmod" not in finding.fix


@pytest.mark.parametrize(("count", "is_told"), [(8, False), (7, True)])
def test_one_closed_gpu_of_several_is_told_though_cuda_started(count, is_told):
    nodes = (DeviceNode(path="/dev/nvidia1", usable=False, mode="crw-rw----", group="gpu1"),)
    seen = snapshot(
        driver={"device_nodes": nodes, "cuda_init_code": 0, "cuda_device_count": count},
        gpus=[gpu(index) for index in range(8)],
    )

    assert silent(visibility.device_files_not_accessible, seen) != is_told


def test_prose_gets_no_options_of_pip():
    kepler = [gpu(0, compute_capability=(3, 5))]
    facts = {"torch": {"cuda_version": "12.6"}, "system": {"container": None}}

    assert machine.fetch_torch_again(snapshot(gpus=kepler, **facts)).endswith("torch for them")
    usual = machine.fetch_torch_again(snapshot(**facts))
    assert "pip install" in usual
    assert usual.endswith(" --no-cache-dir")


def test_a_device_file_that_cuda_does_not_open_may_be_closed():
    closed = tuple(
        DeviceNode(path=path, usable=False) for path in ("/dev/nvidia-modeset", "/dev/nvidia1")
    )
    rule = visibility.device_files_not_accessible

    assert silent(rule, snapshot(driver={"device_nodes": closed[:1]}))
    assert silent(rule, snapshot(driver={"device_nodes": closed, "cuda_init_code": 0}))
    assert only(rule, snapshot(driver={"device_nodes": closed, "cuda_init_code": 100}))


@pytest.mark.parametrize(
    ("system", "install", "rebuild"),
    [
        ("Ubuntu 24.04.1 LTS", "sudo apt install python3-dev", "sudo update-initramfs -u"),
        ("Oracle Linux Server 9.4", "sudo dnf install python3-devel", "sudo dracut --force"),
        ("Amazon Linux 2023", "sudo dnf install python3-devel", "sudo dracut --force"),
        (
            "SUSE Linux Enterprise Server 15",
            "install with the package manager of this system python3-dev (",
            "sudo dracut --force",
        ),
        (
            "Arch Linux",
            "install with the package manager of this system python3-dev (",
            "rebuild the initramfs (",
        ),
    ],
)
def test_a_system_without_apt_is_not_told_to_use_it(system, install, rebuild):
    seen = snapshot(system={"os_name": system})

    command = machine.install_package(seen, apt="python3-dev", dnf="python3-devel")
    assert command.startswith(install)
    assert machine.rebuild_initramfs(seen).startswith(rebuild)


def test_a_pascal_gets_the_driver_of_debian_itself():
    """Which is older than 580, and the newest of NVIDIA's repository leaves it out."""
    seen = snapshot(
        gpus=[gpu(compute_capability=(6, 1))], system={"os_name": "Debian GNU/Linux 12"}
    )

    assert machine.install_driver(seen).startswith("sudo apt install nvidia-driver firmware-misc")


def torch_cure(driver="580.82.07", capability=(9, 0), gpus=1, packages=None, **system):
    return machine.install_torch(
        snapshot(
            gpus=[gpu(index, compute_capability=capability) for index in range(gpus)],
            nvml={"driver_version": driver},
            system={"architecture": "x86_64", "container": None} | system,
            packages=packages or {},
            torch={"python": "/usr/bin/python3"},
        )
    )


@pytest.mark.parametrize(
    ("architecture", "driver", "expected"),
    [
        ("x86_64", "470.256.02", "/whl/cu118"),
        ("aarch64", "470.256.02", "no published torch wheel fits driver 470 and these GPUs"),
        ("ppc64le", "580.82.07", "no torch wheel for ppc64le is published"),
    ],
)
def test_a_wheel_is_one_that_is_published_for_the_processor(architecture, driver, expected):
    assert expected in torch_cure(driver, architecture=architecture)


@pytest.mark.parametrize(
    ("python", "expected"), [("3.13.1", "/whl/cu118"), ("3.14.0", "no published torch wheel fits")]
)
def test_a_wheel_is_one_that_is_published_for_this_python(python, expected):
    assert expected in torch_cure("470.256.02", python_version=python)


def test_gpus_of_one_kind_need_no_environments_of_their_own():
    assert torch_cure(capability=(3, 7), gpus=8).endswith("build torch for them")


@pytest.mark.parametrize(
    ("kind", "container", "expected"),
    [
        ("system", None, "/usr/bin/python3 -m venv ~/venv && ~/venv/bin/python -m pip install"),
        ("system", "docker", "/usr/bin/python3 -m pip install"),
        ("venv", None, "/usr/bin/python3 -m pip install"),
    ],
)
def test_the_python_of_the_system_is_left_alone(kind, container, expected):
    cure = torch_cure(container=container, packages={"environment_kind": kind})

    assert cure.startswith(f"{expected} --force-reinstall torch torchvision")


@pytest.mark.parametrize(
    ("installer", "expected"),
    [
        ("pip", "python -m pip install --force-reinstall torch torchvision --no-cache-dir"),
        (
            "conda",
            "conda clean --all && conda install -c conda-forge --force-reinstall pytorch "
            "torchvision",
        ),
    ],
)
def test_a_library_that_is_cut_short_is_fetched_again_by_what_fetched_it(installer, expected):
    cure = fix(
        import_error.torch_does_not_import,
        torch={"import_error": "libtorch_cuda.so: file too short", "python": "python"},
        packages={"installed": (package("torch", "2.9.0", installer=installer),)},
    )

    assert cure == f"make room (df -h), then {expected}"
