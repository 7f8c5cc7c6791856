"""GD2xx: what torch finds when it runs: code for the GPU, libraries, a compiler, devices."""

from __future__ import annotations

import re

from gpudiag.finding import Finding, Severity, rule, subject_of
from gpudiag.rules.compatibility import major, support
from gpudiag.rules.machine import (
    capabilities,
    driver_version,
    has_nvidia_gpu,
    install_package,
    install_torch,
    installed,
    library_path,
    reinstall_torch,
)
from gpudiag.snapshot import MappedLibrary, NotObserved, Snapshot, known, known_or

# Libraries that torch's wheels bring; libcuda belongs to the driver and always lies elsewhere.
OF_THE_WHEELS = re.compile(r"lib(cudnn|cublas|nccl|nvJitLink|cudart|cusparse|nvrtc)")


@rule(
    "GD208",
    Severity.WARNING,
    "https://github.com/pytorch/pytorch/issues/537",
    "https://github.com/pytorch/pytorch/issues/12283",
    explains=("GD624",),
)
def compiled_at_first_use(snapshot: Snapshot) -> tuple[Finding, ...]:
    """This torch build must compile every kernel for the GPU at first use.

    The build has no machine code for the GPU, only PTX of an earlier architecture, which the
    driver compiles when a kernel is called for the first time.
    """
    if known(snapshot.torch.cuda_version) is None:
        return ()
    architectures = known(snapshot.torch.arch_list)
    if not architectures:
        raise NotObserved("torch gives no architecture list")
    return tuple(
        Finding(
            subject=subject_of(gpu),
            evidence=(
                f"GPU {gpu.index} {known_or(gpu.name, '')} has compute capability "
                + ".".join(map(str, known(gpu.compute_capability))),
                f"torch {known_or(snapshot.torch.version, '')} has code for "
                f"{', '.join(architectures)}",
            ),
            cause="the first call of .cuda() takes minutes, again whenever the cache is empty",
            fix=f"{install_torch(snapshot)}; or keep the cache: export "
            "CUDA_CACHE_MAXSIZE=4294967296",
        )
        for gpu in known(snapshot.nvml.gpus)
        if support(known(gpu.compute_capability), architectures) == "ptx"
    )


@rule(
    "GD209",
    Severity.WARNING,
    "https://github.com/pytorch/pytorch/issues/134929",
    "https://github.com/pytorch/pytorch/issues/119989",
    explains=("GD205", "GD210"),
)
def libraries_from_elsewhere(snapshot: Snapshot) -> Finding | None:
    """Torch runs with CUDA libraries that its wheels did not bring.

    The process that imported torch mapped a library from another folder although a wheel of it
    is installed: LD_LIBRARY_PATH, LD_PRELOAD or a system toolkit comes first.

    Ignore it when you replace the library on purpose, with one of the same major version.
    """
    wheels = {name for name in installed(snapshot) if name.startswith("nvidia-")}
    strangers = [
        library
        for library in known(snapshot.torch.libraries)
        if not library.from_wheel and _brought_by(library, wheels)
    ]
    if not strangers:
        return None
    return Finding(
        evidence=(
            *(f"{library.name} is {library.path}" for library in strangers[:4]),
            *library_path(snapshot),
        ),
        cause="versions that were not built for one another meet: undefined symbols, or a cuDNN "
        "error in the first convolution",
        fix="unset LD_LIBRARY_PATH; or put the wheels' folders (site-packages/nvidia/*/lib) in "
        "front of it",
    )


@rule("GD210", Severity.ERROR, "https://github.com/pytorch/pytorch/issues/119989")
def cudnn_of_another_version(snapshot: Snapshot) -> Finding | None:
    """The cuDNN that torch loaded is not the one that is installed for it.

    torch.backends.cudnn.version() is compared with the version of the wheel nvidia-cudnn-cu*,
    by major and minor number.
    """
    loaded = known(snapshot.torch.cudnn_version)
    if loaded is None:
        return None
    wheel = next(
        (p for name, p in installed(snapshot).items() if re.fullmatch(r"nvidia-cudnn-cu\d+", name)),
        None,
    )
    if wheel is None or loaded.split(".")[:2] == wheel.version.split(".")[:2]:
        return None
    return Finding(
        evidence=(f"torch runs with cuDNN {loaded}", f"{wheel.name} {wheel.version} is installed"),
        cause="cuDNN version incompatibility: convolutions fail, or run on untested code",
        fix=f"unset LD_LIBRARY_PATH; or {reinstall_torch(snapshot)}",
    )


@rule(
    "GD218",
    Severity.NOTE,
    "https://github.com/pytorch/pytorch/issues/92745",
    "https://github.com/MIC-DKFZ/nnUNet/issues/2268",
)
def no_compiler(snapshot: Snapshot) -> Finding | None:
    """There is no C compiler for torch.compile.

    Triton compiles a small launcher in C for each kernel. Neither $CC nor gcc, cc or clang is on
    PATH.

    Ignore it when you do not use torch.compile or Triton.
    """
    if known(snapshot.torch.cuda_version) is None or known(snapshot.system.compiler) is not None:
        return None
    return Finding(
        evidence=("none of $CC, gcc, cc, clang is on PATH",),
        cause="torch.compile ends with 'Failed to find C compiler'",
        fix=install_package(snapshot, apt="gcc", dnf="gcc"),
    )


@rule(
    "GD219",
    Severity.NOTE,
    "https://github.com/pytorch/pytorch/issues/103417",
)
def no_python_headers(snapshot: Snapshot) -> Finding | None:
    """Python's headers are missing, which torch.compile needs.

    Triton's launcher includes Python.h, which distributions put into a package of its own.

    Ignore it when you do not use torch.compile or Triton.
    """
    if known(snapshot.torch.cuda_version) is None or known(snapshot.system.python_headers):
        return None
    return Finding(
        evidence=(f"Python.h of Python {known_or(snapshot.system.python_version, '')} is missing",),
        cause="torch.compile ends with 'Python.h: No such file or directory'",
        fix=install_package(snapshot, apt="python3-dev", dnf="python3-devel"),
    )


@rule("GD220", Severity.NOTE, "https://github.com/SarahWeiii/diso/issues/25")
def toolkit_of_another_version(snapshot: Snapshot) -> Finding | None:
    """The CUDA toolkit of this machine is of another major version than torch.

    CUDA_HOME, or /usr/local/cuda where it is not set, holds a toolkit; torch brings its own
    libraries and does not need it, extensions that are compiled here do.

    Ignore it when you compile no CUDA extensions.
    """
    build, toolkit = known(snapshot.torch.cuda_version), known(snapshot.system.cuda_toolkit_version)
    if build is None or toolkit is None or major(build) == major(toolkit):
        return None
    return Finding(
        evidence=(f"CUDA toolkit {toolkit}", f"torch is built for CUDA {build}"),
        cause="building an extension ends with 'The detected CUDA version mismatches the version "
        "that was used to compile PyTorch'",
        fix=f"install the CUDA {build} toolkit and export CUDA_HOME with its folder",
    )


@rule("GD221", Severity.ERROR, "https://pytorch.org/get-started/locally/")
def torch_finds_no_gpu(snapshot: Snapshot) -> Finding | None:
    """Torch finds no GPU on a machine that has one.

    torch is a CUDA build, and torch.cuda.is_available() is False. Where another rule names the
    cause, this is listed under it.
    """
    torch = snapshot.torch
    if known(torch.cuda_version) is None or known(torch.cuda_available):
        return None
    if not has_nvidia_gpu(snapshot):
        return None
    return Finding(
        evidence=(
            "torch.cuda.is_available() is False",
            *([known_or(torch.cuda_error, "") or ""] if known_or(torch.cuda_error, None) else []),
        ),
        cause="everything runs on the CPU, or ends with an error at the first .cuda()",
        fix="start with the other findings and those that could not be asked (-v); or where "
        "there are none: sudo dmesg | grep -i nvrm",
    )


@rule("GD225", Severity.NOTE, "https://docs.nvidia.com/deploy/cuda-compatibility/")
def newer_build_possible(snapshot: Snapshot) -> Finding | None:
    """This torch is built for CUDA 11, which its newer versions have left behind.

    The driver and the GPUs would run a build for CUDA 12 or 13.

    Ignore it when something that you use needs CUDA 11.
    """
    build = known(snapshot.torch.cuda_version)
    if build is None or major(build) > 11:  # noqa: PLR2004 - CUDA 11
        return None
    driver = driver_version(snapshot)
    if not capabilities(snapshot):
        raise NotObserved("no GPU tells its compute capability")
    command = install_torch(snapshot)
    if "cu118" in command or "no published" in command:
        return None
    return Finding(
        evidence=(f"torch is built for CUDA {build}", f"driver {driver} runs newer builds"),
        cause="new versions of torch and of what builds on it are no longer published for CUDA 11",
        fix=command,
    )


def _brought_by(library: MappedLibrary, wheels: set[str]) -> bool:
    """Whether an installed wheel should have brought this library."""
    found = OF_THE_WHEELS.match(library.name)
    if not found:
        return False
    part = {"cudart": "cuda-runtime", "nvrtc": "cuda-nvrtc"}.get(found[1], found[1].lower())
    return any(name.startswith(f"nvidia-{part}") for name in wheels)
