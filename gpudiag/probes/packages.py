"""Installed distributions, read from their metadata and version files: nothing is imported."""

from __future__ import annotations

import re
import sys

from gpudiag.host import Host
from gpudiag.snapshot import Missing, Package, Packages, Requirement, known_or

OF_INTEREST = re.compile(
    r"torch.*|numpy|nvidia-.*|cuda-.*|triton.*|pytorch-triton.*|pynvml|py3nvml|safetensors|cupy.*"
    r"|xformers|flash-attn|bitsandbytes|vllm|transformers|lightning|timm|accelerate|deepspeed"
    r"|tensorflow|jax|jaxlib|onnxruntime.*|ctranslate2|gpudiag"
)
TORCH_FAMILY = ("torch", "torchvision", "torchaudio")
COMPILED_FOR_TORCH = ("xformers", "flash-attn", "bitsandbytes", "vllm")  # many pin one torch
REQUIREMENT = re.compile(
    r"^Requires-Dist: ([A-Za-z0-9._-]+)(?:\[([^]]*)\])?[ \t]*([^;\n]*)(?:;(.*))?$", re.MULTILINE
)
NOT_PINNED = ("numpy",)  # of which torch takes nearly any
OF_EXTRA = re.compile(r"\s*(?:and\s*)?extra\s*==\s*['\"]([\w-]+)['\"]\s*$")
# Newer torch requires NVIDIA's wheels as extras of this one, which pins them.
TOOLKIT = "cuda-toolkit"
METADATA_FOLDER = re.compile(r"(.+?)-(\d[^-]*)\.(?:dist-info|egg-info)")
VERSION_LINE = re.compile(r"^__version__\b[^=\n]*=\s*['\"]([^'\"]+)", re.MULTILINE)


def packages(host: Host, limit_s: float) -> Packages:  # noqa: ARG001 - reads a few folders
    """What is installed beside this interpreter, and what torch's family requires of it."""
    folders = [folder for folder in dict.fromkeys(sys.path) if folder.startswith("/")]
    installed = tuple(package for folder in folders for package in in_folder(host, folder))
    return Packages(
        installed=installed,
        requirements=requirements(host, installed),
        environment_kind=_environment_kind(host),
        environment_tool=_environment_tool(host),
        prefix=_prefix(host),
        torch_in_working_folder=torch_in_working_folder(host, folders),
    )


def torch_in_working_folder(host: Host, folders: list[str]) -> str | Missing | None:
    """What a program started here imports in place of the torch that is installed in a folder."""
    here = host.working_folder()
    if isinstance(here, Missing) or host.environment.get("PYTHONSAFEPATH"):
        return here if isinstance(here, Missing) else None
    elsewhere = [folder for folder in folders if not host.same(folder, here)]
    if not any(host.exists(f"{folder}/torch/__init__.py") for folder in elsewhere):
        return None
    ours = (f"{here}/torch/__init__.py", f"{here}/torch.py")
    return next((path for path in ours if host.exists(path)), None)


def in_folder(host: Host, folder: str) -> list[Package]:
    """The distributions of interest whose metadata lie in *folder*."""
    names = host.names(folder)
    if isinstance(names, Missing):
        return []
    found = []
    for entry in names:
        match = METADATA_FOLDER.fullmatch(entry) if entry.endswith("-info") else None
        if match and OF_INTEREST.fullmatch(name := normalized(match[1])):
            build = _build(host, f"{folder}/{name}") if name in TORCH_FAMILY else None
            installer = known_or(host.read(f"{folder}/{entry}/INSTALLER"), "").strip() or None
            found.append(
                Package(
                    name=name, version=match[2], folder=folder, build=build, installer=installer
                )
            )
    return found


def requirements(host: Host, installed: tuple[Package, ...]) -> tuple[Requirement, ...]:
    """What torch, its companions and what is compiled for it require of one another and NVIDIA."""
    by_name = {package.name: package for package in reversed(installed)}  # the first on sys.path
    found: list[Requirement] = []
    extras: set[str] = set()
    for name in (*TORCH_FAMILY, *COMPILED_FOR_TORCH):
        metadata = _metadata(host, by_name.get(name))
        found += _requirements_in(metadata, name, by_name, of_extras=frozenset())
        extras |= _extras_of_toolkit(metadata)
    pinned = _metadata(host, by_name.get(TOOLKIT)) if extras else ""
    found += _requirements_in(pinned, TOOLKIT, by_name, of_extras=frozenset(extras))
    return tuple(dict.fromkeys(found))


def _metadata(host: Host, package: Package | None) -> str:
    """The head of a distribution's metadata, empty where there is none."""
    if package is None:
        return ""
    entry = f"{package.name.replace('-', '_')}-{package.version}.dist-info"
    text = host.read(f"{package.folder}/{entry}/METADATA")
    return text.partition("\n\n")[0] if isinstance(text, str) else ""


def _extras_of_toolkit(metadata: str) -> set[str]:
    return {
        extra.strip()
        for match in REQUIREMENT.finditer(metadata)
        if normalized(match[1]) == TOOLKIT and "extra" not in (match[4] or "")
        for extra in (match[2] or "").split(",")
    }


def _requirements_in(
    metadata: str, name: str, by_name: dict[str, Package], *, of_extras: frozenset[str]
) -> list[Requirement]:
    """The requirements of a distribution: those of no extra, or else those of some extras."""
    found = []
    for match in REQUIREMENT.finditer(metadata):
        required, specifier, marker = normalized(match[1]), match[3].strip("() "), match[4] or ""
        extra = OF_EXTRA.search(marker)
        asked = extra[1] in of_extras if extra else not of_extras and "extra" not in marker
        if not OF_INTEREST.fullmatch(required) or required in NOT_PINNED or not asked:
            continue
        other = by_name.get(required)
        found.append(
            Requirement(
                package=name,
                requires=required,
                specifier=specifier.replace(" ", ""),
                marker=OF_EXTRA.sub("", marker).strip(),
                installed=other.version if other else None,
            )
        )
    return found


def _build(host: Host, package_folder: str) -> str | None:
    text = host.read(f"{package_folder}/version.py")
    found = VERSION_LINE.search(text) if isinstance(text, str) else None
    return found[1] if found else None


def _prefix(host: Host) -> str:
    """The folder of this environment, by the name that activating it gave, if it was this one."""
    active = host.environment.get("VIRTUAL_ENV")
    return active if active and host.same(active, sys.prefix) else sys.prefix


def _environment_kind(host: Host) -> str:
    if host.exists(f"{sys.prefix}/conda-meta"):
        return "conda"
    return "venv" if sys.prefix != sys.base_prefix else "system"


def _environment_tool(host: Host) -> str | None:
    """What made the virtual environment, where it signed its configuration."""
    configuration = known_or(host.read(f"{sys.prefix}/pyvenv.cfg"), "")
    found = re.search(r"^(uv|virtualenv|created-by)\s*=", configuration, re.MULTILINE)
    return found[1] if found else None


def normalized(name: str) -> str:
    """The name of a distribution as PyPI compares it.

    Example:
        >>> normalized("nvidia_ml_py"), normalized("Torch.Vision")
        ('nvidia-ml-py', 'torch-vision')
    """
    return re.sub(r"[-_.]+", "-", name).lower()
