import pytest
from builders import ABSENT, gpu, only, silent, snapshot

from gpudiag.rules import import_error, machine, torch_build
from gpudiag.rules.compatibility import support, wheel_for
from gpudiag.snapshot import Missing, NotObserved, Package, PciDevice, Requirement

H100 = {"name": "NVIDIA H100 80GB HBM3", "compute_capability": (9, 0)}
NVML_550 = {"driver_version": "550.54.15"}


def torch(**facts):
    return {"python": "python", "version": "2.9.0+cu128", "cuda_version": "12.8"} | facts


def test_a_cpu_wheel_beside_a_gpu_is_replaced_by_one_that_the_driver_can_run():
    seen = snapshot(
        gpus=[gpu(**H100)],
        nvml=NVML_550,
        torch=torch(version="2.9.0+cpu", cuda_version=None, hip_version=None),
    )

    finding = only(torch_build.cpu_only_torch, seen)

    assert finding.id == "GD201"
    assert finding.evidence == (
        "torch 2.9.0+cpu was built without CUDA",
        "this machine has NVIDIA H100 80GB HBM3",
    )
    assert finding.fix == (
        "python -m pip install --force-reinstall torch torchvision "
        "--index-url https://download.pytorch.org/whl/cu126"
    )


@pytest.mark.parametrize(
    "facts",
    [
        torch(),
        torch(version="2.9.0+rocm6.4", cuda_version=None, hip_version="6.4"),
        torch(version="2.9.0+xpu", cuda_version=None, hip_version=None),
    ],
)
def test_builds_for_some_gpu_are_not_cpu_only(facts):
    assert silent(torch_build.cpu_only_torch, snapshot(gpus=[gpu(**H100)], torch=facts))


def test_a_cpu_wheel_is_right_where_there_is_no_gpu():
    seen = snapshot(
        driver={"pci_devices": (), "module_loaded": False, "device_nodes": ()},
        torch=torch(version="2.9.0+cpu", cuda_version=None, hip_version=None),
    )

    assert silent(torch_build.cpu_only_torch, seen)


def test_a_torch_that_was_not_asked_is_not_judged():
    for rule in (
        torch_build.cpu_only_torch,
        torch_build.driver_too_old,
        torch_build.no_kernel_image,
        torch_build.torchvision_does_not_fit,
        import_error.torch_does_not_import,
        torch_build.torch_not_installed,
        torch_build.numpy_too_new_for_torch,
    ):
        with pytest.raises(NotObserved, match=ABSENT):
            rule(snapshot(gpus=[gpu(**H100)]))


@pytest.mark.parametrize(
    ("cuda", "driver", "too_old"),
    [
        ("12.8", "524.99", True),
        ("12.8", "525.60.13", False),
        ("13.0", "579.1", True),
        ("13.0", "580.65.06", False),
        ("11.8", "449.9", True),
        ("11.8", "450.80", False),
    ],
)
def test_each_major_version_of_cuda_has_its_first_driver(cuda, driver, too_old):
    seen = snapshot(
        gpus=[gpu(**H100)], nvml={"driver_version": driver}, torch=torch(cuda_version=cuda)
    )

    assert silent(torch_build.driver_too_old, seen) is not too_old


def test_an_old_driver_gets_the_wheel_that_runs_on_it_first():
    seen = snapshot(
        gpus=[gpu(**H100)],
        nvml=NVML_550,
        driver={"cuda_driver_version": "12.4"},
        torch=torch(version="2.15.0+cu132", cuda_version="13.2"),
    )

    finding = only(torch_build.driver_too_old, seen)

    assert finding.id == "GD202"
    assert finding.evidence == (
        "torch 2.15.0+cu132 is built for CUDA 13.2, which needs driver 580 or newer",
        "the loaded driver is 550.54.15 (CUDA 12.4)",
    )
    wheel, driver = finding.fix.split("; or ")
    assert wheel.endswith("/whl/cu126")
    assert driver.startswith("upgrade the driver")


def test_a_compatibility_library_may_lift_an_old_driver():
    seen = snapshot(
        gpus=[gpu(**H100)],
        nvml={"driver_version": "535.1"},
        driver={"cuda_driver_version": "13.0"},
        torch=torch(cuda_version="13.0"),
    )

    assert silent(torch_build.driver_too_old, seen)


def test_a_driver_too_old_for_every_wheel_must_be_upgraded():
    seen = snapshot(
        gpus=[gpu(compute_capability=(7, 0))],
        nvml={"driver_version": "418.87"},
        torch=torch(cuda_version="12.8"),
    )

    assert only(torch_build.driver_too_old, seen).fix == (
        "no published torch wheel fits driver 418 and these GPUs: install a driver of branch 525 "
        "to 580 (the last that supports Maxwell, Pascal and Volta) from nvidia.com/drivers and "
        "reboot, then python -m pip install --force-reinstall torch torchvision --index-url "
        "https://download.pytorch.org/whl/cu126"
    )


def test_gpus_that_no_wheel_has_code_for_get_no_driver_as_their_cure():
    seen = snapshot(
        gpus=[gpu(compute_capability=(3, 7))],  # Kepler
        nvml={"driver_version": "418.87"},
        torch=torch(cuda_version="12.8"),
    )

    fix = only(torch_build.driver_too_old, seen).fix
    assert fix.startswith("no published torch wheel has code for all of these GPUs")
    assert "driver" not in fix


@pytest.mark.parametrize(
    ("capability", "arch_list", "offered"),
    [
        ((6, 1), (), False),
        ((6, 1), ("sm_75", "sm_120"), False),
        ((7, 0), (), False),
        ((7, 5), (), True),
        ((7, 5), ("sm_75", "sm_120"), True),
    ],
)
def test_a_driver_is_offered_where_it_alone_cures(capability, arch_list, offered):
    """CUDA 13 has no code for Maxwell, Pascal and Volta, whatever the driver."""
    seen = snapshot(
        gpus=[gpu(compute_capability=capability)],
        nvml={"driver_version": "470.1"},
        torch=torch(version="2.15.0+cu132", cuda_version="13.2", arch_list=arch_list),
    )

    fix = only(torch_build.driver_too_old, seen).fix

    assert fix.partition("; or ")[0].endswith("/whl/cu118")
    assert ("; or upgrade the driver" in fix) is offered
    assert "580 or newer" not in fix or offered


def test_a_volta_under_an_old_driver_needs_another_driver_and_another_wheel():
    seen = snapshot(
        gpus=[gpu(name="Tesla V100", compute_capability=(7, 0))],
        nvml={"driver_version": "418.226.00"},
        system={"os_name": "Ubuntu 22.04"},
        torch=torch(version="2.15.0+cu132", cuda_version="13.2", arch_list=("sm_75", "sm_120")),
    )

    fix = only(torch_build.no_kernel_image, seen).fix

    assert "sudo apt install nvidia-driver-580-server && sudo reboot, then " in fix
    assert fix.endswith("/whl/cu126")


@pytest.mark.parametrize(
    ("device_id", "driver"),
    [
        ("0x1380", "a driver of branch 525 to 580"),  # GTX 750 Ti
        ("0x1db1", "a driver of branch 525 to 580"),  # V100
        ("0x1e04", "driver 580 or newer"),  # RTX 2080 Ti
        ("0x12ba", "driver 580 or newer"),  # Kepler, which no wheel serves anyway
        ("0x2330", "driver 580 or newer"),
    ],
)
def test_a_driver_that_is_not_installed_is_chosen_by_what_the_bus_shows(device_id, driver):
    device = PciDevice(address="0000:01:00.0", device_id=device_id, kernel_driver=None)

    assert f"install {driver}" in machine.install_driver(
        snapshot(driver={"pci_devices": (device,)})
    )


def test_a_future_cuda_is_not_guessed_at():
    with pytest.raises(NotObserved, match=r"CUDA 17\.0"):
        torch_build.driver_too_old(snapshot(gpus=[gpu(**H100)], torch=torch(cuda_version="17.0")))


@pytest.mark.parametrize(
    ("capability", "architectures", "how"),
    [
        ((8, 9), ["sm_80", "sm_86"], "cubin"),  # RTX 40 runs code of its own major version
        ((8, 0), ["sm_86"], None),  # but not of a higher minor one
        ((9, 0), ["sm_90a"], "cubin"),
        ((9, 1), ["sm_90a"], None),  # an "a" build is for its own capability only
        ((10, 3), ["sm_100f"], "cubin"),
        ((12, 0), ["sm_90", "compute_90"], "ptx"),
        ((12, 0), ["sm_90", "compute_120"], "ptx"),
        ((7, 0), ["sm_75", "compute_75"], None),
        ((8, 7), ["sm_80"], None),  # Jetson Orin is left out of the discrete range
        ((8, 7), ["sm_87"], "cubin"),
        ((9, 0), ["gfx90a"], None),
    ],
)
def test_code_runs_where_nvidia_says_it_does(capability, architectures, how):
    assert support(capability, architectures) == how


def test_a_gpu_that_the_build_has_no_code_for_is_named():
    seen = snapshot(
        gpus=[gpu(0, **H100), gpu(1, name="NVIDIA GeForce GTX 1080 Ti", compute_capability=(6, 1))],
        nvml={"driver_version": "580.65"},
        torch=torch(arch_list=("sm_75", "sm_90")),
    )

    finding = only(torch_build.no_kernel_image, seen)

    assert (finding.id, finding.subject) == ("GD203", "gpu:GPU-00000001")
    assert finding.evidence == (
        "GPU 1 NVIDIA GeForce GTX 1080 Ti has compute capability 6.1",
        "torch 2.9.0+cu128 has code for sm_75, sm_90",
    )


def test_gpus_with_code_in_the_build_are_fine():
    assert silent(
        torch_build.no_kernel_image,
        snapshot(gpus=[gpu(**H100)], torch=torch(arch_list=("sm_90",))),
    )


def test_no_wheel_is_offered_that_does_not_run():
    assert wheel_for(570, [(12, 0)]).torch == "torch==2.9.1"  # Blackwell below driver 580
    assert wheel_for(580, [(7, 0), (12, 0)]).tag == "cu128"  # both ends in one build
    assert wheel_for(580, [(6, 1), (12, 0)]) is None


def installed(**versions):
    return tuple(
        Package(name=name, version=version.partition("|")[0], folder="/lib", build=version)
        for name, version in versions.items()
    )


def need(specifier, version):
    return Requirement(
        package="torchvision", requires="torch", specifier=specifier, marker="", installed=version
    )


def test_a_torchvision_that_requires_another_torch_is_reported():
    seen = snapshot(
        packages={
            "installed": installed(torch="2.9.0", torchvision="0.23.0"),
            "requirements": (need("==2.8.0", "2.9.0"),),
        },
        driver={"pci_devices": (), "module_loaded": False, "device_nodes": ()},
    )

    finding = only(torch_build.torchvision_does_not_fit, seen)

    assert finding.id == "GD204"
    assert finding.evidence == ("torchvision 0.23.0 requires torch==2.8.0, installed is 2.9.0",)


NO_GPU = {"pci_devices": (), "module_loaded": False, "device_nodes": ()}


@pytest.mark.parametrize(
    ("vision_version", "needs", "fix"),
    [
        (
            "0.24.0+cu126",
            "==2.9.0",
            "--force-reinstall --no-deps torchvision==0.24.0",
        ),
        ("0.23.0+cpu", "==2.8.0", "--upgrade torch==2.9.0 torchvision"),
        ("0.23.0+cu126", "==2.8.0", "--upgrade torch==2.9.0 torchvision"),
    ],
)
def test_a_right_torch_stays_and_its_companion_is_replaced(vision_version, needs, fix):
    seen = snapshot(
        packages={
            "installed": installed(torch="2.9.0+cpu", torchvision=vision_version),
            "requirements": (need(needs, "2.9.0+cpu"),),
        },
        driver=NO_GPU,
    )

    assert only(torch_build.torchvision_does_not_fit, seen).fix == (
        f"python -m pip install {fix} --index-url https://download.pytorch.org/whl/cpu"
    )


@pytest.mark.parametrize(
    ("tag", "driver", "capability", "stays"),
    [
        ("cu130", "580.65", (9, 0), True),
        ("cu130", "550.54", (9, 0), False),  # the driver is too old for it
        ("cu130", "580.65", (7, 0), False),  # it has no code for the GPU
        ("cu126", "580.65", (7, 0), True),
        ("cpu", "580.65", (9, 0), False),  # there is a GPU for it
        ("cu170", "580.65", (9, 0), False),  # nothing is known of it
    ],
)
def test_a_torch_that_runs_on_the_gpus_here_stays(tag, driver, capability, stays):
    other = "cu126" if tag == "cpu" else "cpu"
    seen = snapshot(
        gpus=[gpu(compute_capability=capability)],
        nvml={"driver_version": driver},
        packages={
            "installed": installed(torch=f"2.9.0+{tag}", torchvision=f"0.24.0+{other}"),
            "requirements": (need("==2.9.0", f"2.9.0+{tag}"),),
        },
    )

    fix = only(torch_build.torchvision_does_not_fit, seen).fix

    assert ("install both from one index" in fix) is not stays
    if stays:
        assert fix == (
            "python -m pip install --force-reinstall --no-deps torchvision==0.24.0 "
            f"--index-url https://download.pytorch.org/whl/{tag}"
        )


@pytest.mark.parametrize(
    ("torch_version", "vision_version", "evidence"),
    [
        ("2.13.0+cpu", "0.29.2+cu132", "torch is a CPU build, torchvision a CUDA 13 build"),
        ("2.9.0+cu130", "0.24.0+cu126", "torch is a CUDA 13 build, torchvision a CUDA 12 build"),
    ],
)
def test_builds_of_different_kinds_do_not_fit(torch_version, vision_version, evidence):
    seen = snapshot(
        gpus=[gpu(**H100)],
        packages={
            "installed": installed(torch=torch_version, torchvision=vision_version),
            "requirements": (need(">=2.13", "2.13.0"),),
        },
    )

    finding = only(torch_build.torchvision_does_not_fit, seen)

    assert finding.evidence[0] == evidence
    assert "--index-url" in finding.fix


def test_a_pair_from_one_index_fits():
    seen = snapshot(
        packages={
            "installed": installed(torch="2.9.0+cu128", torchvision="0.24.0+cu126"),
            "requirements": (need("==2.9.0", "2.9.0+cu128"),),
        }
    )

    assert silent(torch_build.torchvision_does_not_fit, seen)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (
            "ImportError: libcusparse.so.12: undefined symbol: __nvJitLinkAddData_12_1",
            "an older libnvJitLink",
        ),
        ("ImportError: undefined symbol: ncclCommWindowRegister", "another copy of an NVIDIA"),
        (
            "OSError: libcudnn.so.9: cannot open shared object file: No such file or directory",
            "is not where its wheel puts it",
        ),
        ("OSError: libtorch_cpu.so: file too short", "truncated"),
        (
            "ImportError: libtorch_python.so: failed to map segment from shared object",
            "too little memory",
        ),
        (
            "OSError: libcudnn.so.9: cannot open shared object file: Too many open files",
            "too few files",
        ),
        ("ImportError: /lib/libc.so.6: version `GLIBC_2.28' not found", "C library is older"),
        ("the process that ran 'import torch' ended: killed by signal 4 (SIGILL)", "AVX2"),
        ("the process … ended: killed by signal 11 (SIGSEGV)", "crashes the process"),
        ("AttributeError: module 'torch' has no attribute 'version'", "called torch is imported"),
        ("ModuleNotFoundError: No module named 'sympy'", "a package that torch needs"),
        ("RuntimeError: nobody has seen this before", "incomplete or mixed"),
    ],
)
def test_known_import_errors_are_traced_to_their_cause(error, cause):
    seen = snapshot(torch=torch(import_error=error), env={})

    finding = only(import_error.torch_does_not_import, seen)

    assert finding.id == "GD205"
    assert finding.evidence == (error,)
    assert cause in finding.cause
    assert "{" not in finding.fix


def test_the_library_path_is_evidence_for_a_failing_import():
    seen = snapshot(
        torch=torch(import_error="ImportError: undefined symbol: ncclX\n  a\n  b\n  c"),
        env={"LD_LIBRARY_PATH": "/usr/local/cuda/lib64"},
    )

    assert only(import_error.torch_does_not_import, seen).evidence == (
        "ImportError: undefined symbol: ncclX",
        "…",
        "  c",
        "LD_LIBRARY_PATH=/usr/local/cuda/lib64",
    )


def test_a_torch_that_imports_is_no_finding():
    assert silent(
        import_error.torch_does_not_import, snapshot(torch=torch(import_error=None), env={})
    )


def test_an_environment_without_torch_gets_a_note():
    absent = Missing("torch is not installed for /usr/bin/python3")
    seen = snapshot(torch=torch(version=absent))

    finding = only(torch_build.torch_not_installed, seen)

    assert (finding.id, str(finding.severity)) == ("GD206", "note")
    assert finding.evidence == ("torch is not installed for /usr/bin/python3",)
    assert silent(torch_build.torch_not_installed, snapshot(torch=torch()))


@pytest.mark.parametrize(
    ("torch_version", "numpy_version", "reported"),
    [("2.2.2", "2.0.0", True), ("2.3.0", "2.0.0", False), ("2.2.2", "1.26.4", False)],
)
def test_numpy_2_needs_torch_2_3(torch_version, numpy_version, reported):
    seen = snapshot(packages={"installed": installed(torch=torch_version, numpy=numpy_version)})

    assert silent(torch_build.numpy_too_new_for_torch, seen) is not reported


@pytest.mark.parametrize(
    ("driver", "capabilities", "architecture", "tag"),
    [
        (580, [(7, 5)], "x86_64", "cu130"),
        (580, [(7, 0)], "x86_64", "cu126"),
        (580, [(5, 0)], "x86_64", "cu126"),
        (580, [(3, 7)], "x86_64", None),
        (580, [(12, 1)], "x86_64", "cu130"),
        (580, [(12, 2)], "x86_64", None),
        (579, [(8, 0)], "x86_64", "cu126"),
        (525, [(9, 0)], "x86_64", "cu126"),
        (524, [(9, 0)], "x86_64", "cu118"),
        (450, [(6, 1)], "x86_64", "cu118"),
        (449, [(6, 1)], "x86_64", None),
        (570, [(10, 0)], "x86_64", "cu128"),
        (580, [(9, 0)], "aarch64", "cu130"),  # GH200
        (580, [(8, 0)], "aarch64", "cu130"),
        (580, [(7, 5)], "aarch64", None),  # a T4G: no wheel of aarch64 has code for it
        (580, [(11, 0)], "aarch64", "cu130"),  # Thor
        (540, [(8, 7)], "aarch64", None),  # Orin: NVIDIA builds for it
        (580, [], "x86_64", "cu130"),
    ],
)
def test_the_wheel_is_the_newest_that_driver_gpus_and_processor_run(
    driver, capabilities, architecture, tag
):
    wheel = wheel_for(driver, capabilities, architecture=architecture)

    assert (wheel and wheel.tag) == tag


def test_a_jetson_is_told_where_its_torch_comes_from():
    seen = snapshot(
        gpus=[gpu(name="Orin", compute_capability=(8, 7))],
        nvml={"driver_version": "540.4.0"},
        torch=torch(version="2.9.0+cpu", cuda_version=None, hip_version=None),
        system={"architecture": "aarch64"},
    )

    fix = only(torch_build.cpu_only_torch, seen).fix

    assert fix.startswith("install the torch that NVIDIA builds for Jetson: https://forums.")


@pytest.mark.parametrize(
    ("python", "installer", "shown"),
    [
        ("/venv/bin/python", "pip", "/venv/bin/python -m pip"),
        ("/my envs/a/bin/python", "pip", "'/my envs/a/bin/python' -m pip"),
        ("~/main/.venv/bin/python", "pip", "~/main/.venv/bin/python -m pip"),
        ("~/my envs/bin/python", "pip", "~/'my envs/bin/python' -m pip"),
        ("/install/bin/python", "uv", "uv pip"),
    ],
)
def test_the_installer_is_named_as_a_shell_takes_it(python, installer, shown):
    seen = snapshot(
        torch={"python": python},
        packages={
            "installed": (Package(name="torch", version="2", folder="/", installer=installer),),
            "environment_tool": None,
        },
    )

    assert machine.pip_install(seen).startswith(f"{shown} install")
    assert machine.pip_uninstall(seen).startswith(f"{shown} uninstall")
    assert machine.pip_uninstall(seen).count("uninstall") == 1
