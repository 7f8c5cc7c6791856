"""Installed distributions, read from their metadata and version files: nothing is imported."""

from __future__ import annotations

import re
import sys

from gpudiag.host import Host
from gpudiag.snapshot import Missing, Package, Packages, Requirement, known_or

OF_INTEREST = re.compile(
    r"torch.*|numpy|nvidia-.*|triton.*|pytorch-triton.*|pynvml|safetensors|cupy.*"
    r"|xformers|flash-attn|bitsandbytes|vllm|transformers|lightning|timm|gpudiag"
)
TORCH_FAMILY = ("torch", "torchvision", "torchaudio")
COMPILED_FOR_TORCH = ("xformers", "flash-attn", "bitsandbytes", "vllm")  # many pin one torch
REQUIREMENT = re.compile(
    r"^Requires-Dist: ([A-Za-z0-9._-]+)(?:\[[^]]*\])?[ \t]*([^;\n]*)(?:;(.*))?$", re.MULTILINE
)
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
        prefix=sys.prefix,
    )


def in_folder(host: Host, folder: str) -> list[Package]:
    """The distributions of interest whose metadata lie in *folder*."""
    names = host.names(folder)
    if isinstance(names, Missing):
        return []
    found = []
    for entry in names:
        match = METADATA_FOLDER.fullmatch(entry)
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
    found = []
    for name in (*TORCH_FAMILY, *COMPILED_FOR_TORCH):
        if (package := by_name.get(name)) is not None:
            entry = f"{name.replace('-', '_')}-{package.version}.dist-info"
            metadata = host.read(f"{package.folder}/{entry}/METADATA")
            if isinstance(metadata, str):
                found += _requirements_in(metadata, name, by_name)
    return tuple(found)


def _requirements_in(metadata: str, name: str, by_name: dict[str, Package]) -> list[Requirement]:
    found = []
    for match in REQUIREMENT.finditer(metadata.partition("\n\n")[0]):
        required, specifier, marker = normalized(match[1]), match[2].strip("() "), match[3] or ""
        if not OF_INTEREST.fullmatch(required) or required == "numpy" or "extra" in marker:
            continue
        other = by_name.get(required)
        found.append(
            Requirement(
                package=name,
                requires=required,
                specifier=specifier.replace(" ", ""),
                marker=marker.strip(),
                installed=other.version if other else None,
            )
        )
    return found


def _build(host: Host, package_folder: str) -> str | None:
    text = host.read(f"{package_folder}/version.py")
    found = VERSION_LINE.search(text) if isinstance(text, str) else None
    return found[1] if found else None


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
