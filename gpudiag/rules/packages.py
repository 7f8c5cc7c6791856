"""GD2xx: distributions that do not belong together, or stand in one another's way."""

from __future__ import annotations

import re

from gpudiag.finding import Finding, Severity, rule
from gpudiag.rules.machine import (
    install_distribution,
    install_torch,
    installed,
    pip_install,
    pip_uninstall,
    reinstall_torch,
)
from gpudiag.rules.requirement import release, satisfied, unmet
from gpudiag.rules.torch_build import COMPANIONS
from gpudiag.snapshot import Package, Snapshot, known, known_or

RIVALS_OF_NVML = ("pynvml", "nvidia-ml-py3", "nvidia-ml-py2")
FIRST_SHIM_PYNVML = 12  # from here on pynvml brings no module pynvml, it requires nvidia-ml-py
OF_NVIDIA = ("nvidia-", "cuda-")
SAFE_LOAD_FROM = (2, 6)
# Distributions whose second copy shadows the first without a word.
SHADOWED = re.compile(r"torch|torchvision|torchaudio|triton|pytorch-triton|nvidia-.*-cu\d\d")


@rule("GD211", Severity.WARNING, "https://github.com/pytorch/pytorch/issues/131312")
def nvidia_wheels_of_other_versions(snapshot: Snapshot) -> Finding | None:
    """NVIDIA's library wheels are not the ones this torch was built with.

    torch pins the version of each nvidia-* wheel that it needs, newer ones through the metadata of
    cuda-toolkit. Another package, or an upgrade by hand, has replaced some of them.

    Ignore it when you replaced one on purpose, as for a newer cuDNN or NCCL, and it works.
    """
    wrong = [
        f"{need.package} requires {need.requires}{need.specifier}, installed is {need.installed}"
        for need in unmet(snapshot)
        if need.requires.startswith(OF_NVIDIA) and need.installed
    ]
    if not wrong:
        return None
    return Finding(
        evidence=tuple(wrong),
        cause="symbols are missing at import, or a library fails in the middle of a run",
        fix=reinstall_torch(snapshot),
    )


@rule("GD212", Severity.WARNING, "https://github.com/pytorch/pytorch/issues/131312")
def nvidia_wheels_missing(snapshot: Snapshot) -> Finding | None:
    """NVIDIA's library wheels that torch needs are not installed.

    torch's metadata requires them for this platform, and they are not there: an installation
    with --no-deps, or one that was taken apart.

    Ignore it when torch imports and the system provides the libraries, as in NVIDIA's images.
    """
    absent = [
        need.requires
        for need in unmet(snapshot)
        if need.requires.startswith(OF_NVIDIA) and need.installed is None
    ]
    if not absent or known(snapshot.torch.import_error) is None:
        return None
    return Finding(
        evidence=(f"not installed: {', '.join(absent)}", "import torch fails"),
        cause="torch cannot load the CUDA libraries that it was built with",
        fix=reinstall_torch(snapshot),
    )


@rule("GD213", Severity.WARNING, "https://github.com/pytorch/pytorch/issues/188892")
def two_cuda_versions_in_one_folder(snapshot: Snapshot) -> Finding | None:
    """The same NVIDIA library is installed for two CUDA versions.

    nvidia-cudnn-cu12 and nvidia-cudnn-cu13, for one, put their files into the same folder: the
    one that was installed last has overwritten the other.
    """
    packages = installed(snapshot)
    pairs = [
        f"{name} {package.version} and {twin.version} of {twin.name}"
        for name, package in packages.items()
        if name.endswith("-cu12") and (twin := packages.get(name.removesuffix("12") + "13"))
    ]
    if not pairs:
        return None
    return Finding(
        evidence=tuple(pairs),
        cause="a part of the files is of the wrong version, and removing one breaks the other",
        fix=f"make a fresh environment; or uninstall both and then: {reinstall_torch(snapshot)}",
    )


@rule(
    "GD214",
    Severity.WARNING,
    "https://github.com/mlco2/codecarbon/issues/933",
    "https://github.com/astral-sh/uv/issues/11700",
)
def two_nvml_bindings(snapshot: Snapshot) -> Finding | None:
    """Two packages provide the Python module pynvml.

    nvidia-ml-py is NVIDIA's own; pynvml before version 12, nvidia-ml-py3 and nvidia-ml-py2 are
    copies by others under the same module name. Which one is imported depends on the form and the
    order of installation.
    """
    packages = installed(snapshot)
    own = packages.get("nvidia-ml-py")
    rivals = [
        packages[name]
        for name in RIVALS_OF_NVML
        if name in packages and not _is_shim(packages[name])
    ]
    if own is None or not rivals:
        return None
    named = " and ".join(f"{rival.name} {rival.version}" for rival in rivals)
    return Finding(
        evidence=(f"{named} beside nvidia-ml-py {own.version}",),
        cause="the copy may be imported in place of NVIDIA's: programs that ask NVML lack its "
        "newer functions, or read its structures wrongly",
        fix=f"{pip_uninstall(snapshot)} {' '.join(rival.name for rival in rivals)}, then "
        f"{pip_install(snapshot)} --force-reinstall nvidia-ml-py",
    )


@rule("GD215", Severity.WARNING, "https://github.com/pytorch/pytorch/issues/122494")
def installed_twice(snapshot: Snapshot) -> Finding | None:
    """A distribution is installed twice, in different versions.

    Two folders of the path, or leftovers of an interrupted upgrade in one folder, hold metadata
    of the same distribution. The first on sys.path is imported.
    """
    copies: dict[str, list[Package]] = {}
    for package in known(snapshot.packages.installed):
        if SHADOWED.fullmatch(package.name):
            copies.setdefault(package.name, []).append(package)
    doubled = {name: found for name, found in copies.items() if len({p.version for p in found}) > 1}
    if not doubled:
        return None
    return Finding(
        evidence=tuple(
            f"{name}: " + ", ".join(f"{p.version} in {p.folder}" for p in found)
            for name, found in doubled.items()
        ),
        cause="another version is imported than pip shows, or files of both are mixed",
        fix="make a fresh environment; or uninstall every copy and then: "
        + reinstall_torch(snapshot),
    )


@rule("GD216", Severity.WARNING, "https://github.com/pytorch/pytorch/issues/131312")
def triton_of_another_version(snapshot: Snapshot) -> Finding | None:
    """Triton is not the version that torch requires.

    torch.compile writes its kernels for one version of Triton, which torch pins.
    """
    wrong = [need for need in unmet(snapshot) if "triton" in need.requires and need.installed]
    if not wrong:
        return None
    need = wrong[0]
    return Finding(
        evidence=(
            f"torch requires {need.requires}{need.specifier}, installed is {need.installed}",
        ),
        cause="torch.compile fails, often with a message that does not mention Triton's version",
        fix=install_distribution(snapshot, f"{need.requires}{need.specifier}"),
    )


@rule("GD217", Severity.ERROR, "https://github.com/vllm-project/vllm/issues/5736")
def built_for_another_torch(snapshot: Snapshot) -> Finding | None:
    """A package with compiled code requires another torch.

    xformers, vllm, flash-attn and others carry code that was compiled against one torch; their
    metadata names it, and another one is installed.
    """
    wrong = [
        need
        for need in known(snapshot.packages.requirements)
        if need.requires == "torch" and need.package not in COMPANIONS and not satisfied(need)
    ]
    if not wrong:
        return None
    names = sorted({need.package for need in wrong})
    return Finding(
        evidence=tuple(
            f"{need.package} requires torch{need.specifier}, installed is {need.installed}"
            for need in wrong
        ),
        cause="its operators are not registered, or the import ends with an undefined symbol",
        fix=f"{pip_install(snapshot)} --upgrade {' '.join(names)}; or install the torch "
        "that it requires",
    )


@rule("GD222", Severity.ERROR, "https://pytorch.org/get-started/locally/")
def built_for_amd(snapshot: Snapshot) -> Finding | None:
    """The installed torch is built for AMD GPUs, and this machine has NVIDIA's.

    torch.version.hip is set: this is a ROCm build. It names its devices "cuda", too, and finds
    none here.

    Ignore it when an AMD GPU in this machine is the one to be used.
    """
    hip = known(snapshot.torch.hip_version)
    if hip is None or not known(snapshot.nvml.gpus):
        return None
    return Finding(
        evidence=(
            f"torch {known_or(snapshot.torch.version, '')} is built for ROCm {hip}",
            f"NVML lists {len(known(snapshot.nvml.gpus))} NVIDIA GPU(s)",
        ),
        cause="torch.cuda.is_available() is False whatever the NVIDIA driver is",
        fix=install_torch(snapshot),
    )


@rule(
    "GD223",
    Severity.NOTE,
    "https://github.com/advisories/GHSA-53q9-r3pm-6pq6",
    "https://nvd.nist.gov/vuln/detail/CVE-2025-32434",
)
def unsafe_loading(snapshot: Snapshot) -> Finding | None:
    """Loading a checkpoint with this torch can run code that is hidden in it.

    Before torch 2.6, torch.load could be made to run code even with weights_only=True, and
    transformers refuses to load .bin files with it.

    Ignore it when all your checkpoints are your own.
    """
    torch = installed(snapshot).get("torch")
    if torch is None or release(torch.version) >= SAFE_LOAD_FROM:
        return None
    return Finding(
        evidence=(f"torch {torch.version}",),
        cause="a checkpoint from a stranger can take over the account that loads it",
        fix=f"load safetensors files only; or upgrade: {reinstall_torch(snapshot)}",
    )


@rule("GD224", Severity.WARNING, "https://github.com/pytorch/pytorch/issues/122494")
def user_site_shadows(snapshot: Snapshot) -> Finding | None:
    """Packages of the home folder stand in for those of the environment.

    Python in a conda or system environment also looks into ~/.local/lib, and finds torch or an
    NVIDIA library there first.
    """
    if known(snapshot.packages.environment_kind) != "conda":
        return None
    found = [
        f"{package.name} {package.version} in {package.folder}"
        for package in installed(snapshot).values()
        if "/.local/lib/python" in package.folder and SHADOWED.fullmatch(package.name)
    ]
    if not found:
        return None
    return Finding(
        evidence=tuple(found[:4]),
        cause="every environment of this Python version gets that copy, whatever it has installed",
        fix="export PYTHONNOUSERSITE=1; or uninstall it: PYTHONNOUSERSITE= python -m pip uninstall "
        "torch",
    )


def _is_shim(package: Package) -> bool:
    """Whether it is the pynvml that brings no module of its own."""
    return package.name == "pynvml" and release(package.version) >= (FIRST_SHIM_PYNVML,)
