"""GD2xx: the torch that is installed, against the driver, the GPUs and its companions."""

from __future__ import annotations

import re

from gpudiag.finding import Finding, Severity, rule, subject_of
from gpudiag.rules.compatibility import MINIMUM_DRIVER, built_for, major, support
from gpudiag.rules.machine import (
    capabilities,
    driver_version,
    has_nvidia_gpu,
    install_distribution,
    install_driver,
    install_torch,
    installed,
    pip_install,
    reinstall_torch,
)
from gpudiag.rules.requirement import release, satisfied
from gpudiag.rules.visible import visible_gpus
from gpudiag.snapshot import Missing, NotObserved, Package, Snapshot, known, known_or

COMPANIONS = ("torchvision", "torchaudio")
NUMPY_2_FROM_TORCH = (2, 3)  # older builds were compiled against NumPy 1
NUMPY_1 = "numpy<2"
NO_COMMAND = ("no published", "install the torch")  # how a cure begins that needs more than pip
NO_NUMPY = "No module named 'numpy'"


@rule("GD201", Severity.ERROR, "https://pytorch.org/get-started/locally/")
def cpu_only_torch(snapshot: Snapshot) -> Finding | None:
    """The installed torch is a CPU-only build, on a machine with an NVIDIA GPU.

    pip took a wheel without CUDA: a lock file from another machine, an index that offers CPU
    builds, or conda's cpuonly. The driver may be perfect; this torch cannot use it.
    """
    torch = snapshot.torch
    if known(torch.cuda_version) is not None or not has_nvidia_gpu(snapshot):
        return None
    version = known_or(torch.version, "unknown")
    if known_or(torch.hip_version, None) is not None or "+xpu" in version:
        return None
    return Finding(
        evidence=(
            f"torch {version} was built without CUDA",
            f"this machine has {_gpu_names(snapshot)}",
        ),
        cause="torch.cuda.is_available() is False whatever the driver is",
        fix=install_torch(snapshot),
    )


@rule(
    "GD202",
    Severity.ERROR,
    "https://docs.nvidia.com/deploy/cuda-compatibility/",
    explains=("GD221",),
)
def driver_too_old(snapshot: Snapshot) -> Finding | None:
    """The driver is too old for this torch build.

    Every CUDA 12.x build runs on a driver of branch 525 or newer, every 13.x build from 580 on,
    every 11.x build from 450 on. The driver's own CUDA version need not be as high as torch's:
    only the major version counts. 580 is the last branch that supports Maxwell, Pascal and Volta,
    and the builds for CUDA 13 have no code for these: there the wheel of cu126 is the cure, on a
    driver of branch 525 to 580.

    Cure: install the torch build that this driver can run (the report has the command); or upgrade
    the driver, where this build has code for the GPUs.
    """
    build = known(snapshot.torch.cuda_version)
    if build is None or not has_nvidia_gpu(snapshot):
        return None
    needed = MINIMUM_DRIVER.get(major(build))
    if needed is None:
        raise NotObserved(f"the driver that CUDA {build} needs is not in gpudiag's table")
    provided = snapshot.driver.cuda_driver_version
    if not isinstance(provided, Missing) and major(provided) >= major(build):
        return None  # a cuda-compat library may give more than the kernel module's branch
    version = driver_version(snapshot)
    if major(version) >= needed:
        return None
    reinstall = install_torch(snapshot)
    driver_cures = built_for(
        build, capabilities(snapshot), known_or(snapshot.torch.arch_list, ())
    ) and not reinstall.startswith(NO_COMMAND)
    return Finding(
        evidence=(
            f"torch {known_or(snapshot.torch.version, '')} is built for CUDA {build}, "
            f"which needs driver {needed} or newer",
            f"the loaded driver is {version}"
            + (f" (CUDA {provided})" if isinstance(provided, str) else ""),
        ),
        cause="CUDA refuses to start with a driver that is older than its major version",
        fix=f"{reinstall}; or upgrade the driver: {install_driver(snapshot)}"
        if driver_cures
        else reinstall,
    )


@rule("GD203", Severity.ERROR, "https://developer.nvidia.com/cuda-gpus")
def no_kernel_image(snapshot: Snapshot) -> tuple[Finding, ...]:
    """This torch build has no code for the GPU.

    torch carries compiled code for a list of architectures. A GPU runs code of its own major
    version with an equal or lower minor one, or PTX of any earlier architecture. With neither,
    the first kernel fails with "no kernel image is available for execution on the device".
    Maxwell, Pascal and Volta have code in the wheels of cu126 (CUDA 12.6) and in none for CUDA 13;
    driver branch 580 is the last that supports them.
    """
    if known(snapshot.torch.cuda_version) is None:
        return ()
    architectures = known(snapshot.torch.arch_list)
    if not architectures:
        raise NotObserved("torch gives no architecture list")
    gpus = known(snapshot.nvml.gpus)
    without = [gpu for gpu in gpus if support(known(gpu.compute_capability), architectures) is None]
    if 0 < len(without) < len(gpus):
        chosen = visible_gpus(snapshot)  # a GPU for the display alone is no fault
        without = [gpu for gpu in without if gpu in chosen]
    return tuple(
        Finding(
            subject=subject_of(gpu),
            evidence=(
                f"GPU {gpu.index} {known_or(gpu.name, '')} has compute capability "
                f"{'.'.join(map(str, known(gpu.compute_capability)))}",
                f"torch {known_or(snapshot.torch.version, '')} has code for "
                f"{', '.join(architectures)}",
            ),
            cause="every kernel fails with 'no kernel image is available for execution "
            "on the device'",
            fix=install_torch(snapshot),
        )
        for gpu in without
    )


@rule("GD204", Severity.ERROR, "https://github.com/pytorch/pytorch/issues/157648")
def torchvision_does_not_fit(snapshot: Snapshot) -> Finding | None:
    """Torch and its companion (torchvision, torchaudio) do not belong together.

    The companion was built against another torch: another version, or CUDA against CPU. Its
    compiled operators are not registered, and the import ends with "operator torchvision::nms
    does not exist". Where torch is the build that this machine needs, only the companion is
    replaced.

    Cure: install the companion alone, from the index of the torch that is installed (the report has
    the command); or install both from one index.
    """
    packages = installed(snapshot)
    torch = packages.get("torch")
    if torch is None:
        return None
    of_another_version = [
        need
        for need in known(snapshot.packages.requirements)
        if need.package in COMPANIONS
        and need.package in packages  # a snapshot is data from anywhere
        and need.requires == "torch"
        and not satisfied(need)
    ]
    evidence = [
        f"{need.package} {packages[need.package].version} requires torch{need.specifier}, "
        f"installed is {need.installed}"
        for need in of_another_version
    ]
    of_another_kind = []
    for name in COMPANIONS:
        companion = packages.get(name)
        ours, theirs = _flavour(torch.build), _flavour(companion.build if companion else None)
        if ours and theirs and ours != theirs:
            evidence.append(f"torch is a {ours} build, {name} a {theirs} build")
            of_another_kind.append(name)
    if not evidence:
        return None
    return Finding(
        evidence=tuple(evidence),
        cause="importing the companion fails: operator torchvision::nms does not exist",
        fix=_of_one_index(
            snapshot,
            torch,
            [packages[name] for name in of_another_kind],
            {need.package for need in of_another_version},
        ),
    )


@rule("GD206", Severity.NOTE, "https://pytorch.org/get-started/locally/")
def torch_not_installed(snapshot: Snapshot) -> Finding | None:
    """Torch is not installed in this environment.

    gpudiag asked the Python interpreter it runs in. Where torch lives in another environment,
    install gpudiag there.

    Cure: install gpudiag into the environment that has torch and run it there; or install torch
    here (the report has the command).
    """
    version = snapshot.torch.version
    if not isinstance(version, Missing):
        return None
    if "is not installed" not in version.missing:
        known(version)
    return Finding(
        evidence=(version.missing,),
        cause="nothing can be said about torch and CUDA in the environment that you use",
        fix="install gpudiag into the environment that has torch and run it there; or "
        + install_torch(snapshot).replace(" --force-reinstall", ""),
    )


@rule("GD207", Severity.WARNING, "https://github.com/pytorch/pytorch/issues/135013")
def numpy_too_new_for_torch(snapshot: Snapshot) -> Finding | None:
    """NumPy 2 is installed beside a torch that was built for NumPy 1.

    torch imports, but tensor.numpy() and torch.from_numpy() fail with "Numpy is not available".
    """
    packages = installed(snapshot)
    torch, numpy = packages.get("torch"), packages.get("numpy")
    if torch is None or numpy is None or major(numpy.version) < 2:  # noqa: PLR2004 - NumPy 2
        return None
    if release(torch.version) >= NUMPY_2_FROM_TORCH:
        return None
    return Finding(
        evidence=(f"numpy {numpy.version}", f"torch {torch.version}"),
        cause="the two exchange arrays through a binary interface that changed with NumPy 2",
        fix=f"{install_distribution(snapshot, NUMPY_1)}; or upgrade torch: "
        f"{reinstall_torch(snapshot)}",
    )


@rule("GD226", Severity.WARNING, "https://pytorch.org/docs/stable/generated/torch.from_numpy.html")
def numpy_not_installed(snapshot: Snapshot) -> Finding | None:
    """NumPy is not installed beside torch.

    torch does not require NumPy and imports without it, with a warning that is easily missed;
    torchvision, most data loaders and every conversion to an array need it.

    Ignore it when your program neither converts tensors to arrays nor uses torchvision.
    """
    packages = installed(snapshot)
    torch = packages.get("torch")
    if torch is None:
        return None
    warned = snapshot.torch.import_warnings
    said = [line for line in known_or(warned, ()) if NO_NUMPY in line]
    if not said and ("numpy" in packages or not isinstance(warned, Missing)):
        return None
    wanted = "numpy" if release(torch.version) >= NUMPY_2_FROM_TORCH else NUMPY_1
    return Finding(
        evidence=(
            f"import torch warns: {said[0].partition(' (Triggered')[0]}"
            if said
            else "there is no numpy beside torch",
        ),
        cause="tensor.numpy() and torch.from_numpy() fail with 'Numpy is not available'",
        fix=install_distribution(snapshot, wanted),
    )


def _of_one_index(
    snapshot: Snapshot, torch: Package, of_another_kind: list[Package], of_another_version: set[str]
) -> str:
    """The command that makes torch and its companions one pair, leaving alone what is right."""
    tag = _tag_that_stays(snapshot, torch)
    if tag is None:
        return f"install both from one index: {reinstall_torch(snapshot)}"
    pip, index = pip_install(snapshot), f"--index-url https://download.pytorch.org/whl/{tag}"
    alone = [one for one in of_another_kind if one.name not in of_another_version]
    commands = []
    if of_another_version:
        names = " ".join(sorted(of_another_version))
        commands.append(f"{pip} --upgrade torch=={_public(torch.version)} {names} {index}")
    if alone:
        pinned = " ".join(f"{one.name}=={_public(one.version)}" for one in alone)
        commands.append(f"{pip} --force-reinstall --no-deps {pinned} {index}")
    return " && ".join(commands)


def _tag_that_stays(snapshot: Snapshot, torch: Package) -> str | None:
    """The tag of the installed torch (cpu, cu126), None where it is not the right one here."""
    found = re.search(r"\+(cpu|cu(\d+)(\d))$", torch.build or "")
    if found is None:
        return None
    try:
        if not has_nvidia_gpu(snapshot):
            return found[1]
        if found[2] is None or major(driver_version(snapshot)) < MINIMUM_DRIVER[int(found[2])]:
            return None
    except (KeyError, NotObserved):
        return None
    code = known_or(snapshot.torch.arch_list, ())
    runs = built_for(f"{found[2]}.{found[3]}", capabilities(snapshot), code)
    return found[1] if runs else None


def _public(version: str) -> str:
    """A version without the tag of its build."""
    return version.partition("+")[0]


def _flavour(build: str | None) -> str | None:
    """CPU or CUDA with its major version, from the local tag of a build; None without a tag."""
    found = re.search(r"\+(?:(cpu)|cu(\d+)\d$)", build or "")
    if not found:
        return None
    return "CPU" if found[1] else f"CUDA {found[2]}"


def _gpu_names(snapshot: Snapshot) -> str:
    gpus = known_or(snapshot.nvml.gpus, ())
    names = sorted({known_or(gpu.name, "an NVIDIA GPU") for gpu in gpus})
    return ", ".join(names) if names else "an NVIDIA GPU on the PCI bus"
