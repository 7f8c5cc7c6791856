"""Which driver runs which CUDA build, which build runs which GPU, and the wheel that fits both.

Sources: docs.nvidia.com/deploy/cuda-compatibility (drivers), the section on binary and PTX
compatibility of the CUDA C++ Programming Guide, the architecture lists of torch's wheels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gpudiag.snapshot import NotObserved

Capability = tuple[int, int]

# The first driver branch that runs any CUDA build of a major version.
MINIMUM_DRIVER = {11: 450, 12: 525, 13: 580}
# Maxwell, Pascal and Volta: 580 is the last driver branch that supports them, CUDA 12 the last with
# code for them.
BEFORE_TURING = ((5, 0), (7, 2))
LAST_DRIVER_BEFORE_TURING = 580
# Tegra and Jetson parts: a build for a discrete GPU of the same major version leaves them out.
INTEGRATED: frozenset[Capability] = frozenset({(5, 3), (6, 2), (7, 2), (8, 7), (10, 1), (11, 0)})

# Those of them for which no build is published: NVIDIA's own are for a version of JetPack.
JETSON = INTEGRATED - {(10, 1), (11, 0)}
LOWEST_ON_AARCH64: Capability = (8, 0)  # its wheels begin at sm_80, those of x86 at sm_50 or sm_75
ARCHITECTURES = ("x86_64", "aarch64")


class Wheel(NamedTuple):
    """A published CUDA build of torch: the pip requirement, its index, and what it runs on."""

    torch: str
    tag: str
    minimum_driver: int
    capabilities: tuple[Capability, Capability]  # lowest and highest
    highest_python: tuple[int, int] | None = None  # of an old torch, which knows no newer one
    architectures: tuple[str, ...] = ARCHITECTURES


# Newest first: the first that fits is the one to install.
WHEELS = (
    Wheel("torch", "cu130", 580, ((7, 5), (12, 1))),
    Wheel("torch", "cu126", 525, ((5, 0), (9, 0))),
    Wheel("torch==2.9.1", "cu128", 525, ((7, 0), (12, 1)), (3, 14)),
    Wheel("torch==2.7.1", "cu118", 450, ((5, 0), (9, 0)), (3, 13), ("x86_64",)),
)


def wheel_for(
    driver_major: int,
    capabilities: Iterable[Capability],
    *,
    architecture: str = "x86_64",
    python: tuple[int, ...] = (),
) -> Wheel | None:
    """The newest published wheel that this driver and all these GPUs can run.

    Args:
        driver_major: The branch of the driver, 550 of 550.54.15.
        capabilities: Of all GPUs.
        architecture: Of the processor, as ``uname -m`` has it.
        python: The first two numbers of Python's version; empty where it is not known.

    Example:
        >>> wheel_for(550, [(9, 0)]).tag, wheel_for(580, [(12, 0)]).tag
        ('cu126', 'cu130')
        >>> wheel_for(390, [(6, 1)]) is None
        True
    """
    wanted = list(capabilities)
    if JETSON.intersection(wanted):
        return None
    for wheel in WHEELS:
        lowest, highest = wheel.capabilities
        if architecture not in wheel.architectures or python > (wheel.highest_python or python):
            continue
        if architecture == "aarch64":
            lowest = max(lowest, LOWEST_ON_AARCH64)
        if driver_major >= wheel.minimum_driver and all(lowest <= c <= highest for c in wanted):
            return wheel
    return None


def support(capability: Capability, arch_list: Sequence[str]) -> str | None:
    """How a build runs on a GPU: "cubin" (at once), "ptx" (compiled at first use) or not (None).

    A cubin ``sm_XY`` runs on the same major version with an equal or higher minor one (``sm_86``
    on 8.9), an ``a`` build on its own capability only; PTX ``compute_XY`` on anything later.

    Example:
        >>> support((8, 9), ["sm_80", "sm_86"]), support((12, 0), ["sm_80", "compute_90"])
        ('cubin', 'ptx')
        >>> support((12, 0), ["sm_80", "sm_90"]) is None
        True
    """
    ptx = False
    for architecture in arch_list:
        found = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", architecture)
        if not found:
            continue
        kind, major, minor, variant = found[1], int(found[2]), int(found[3]), found[4]
        built_for = (major, minor)
        if kind == "sm":
            exact = variant == "a" or capability in INTEGRATED or built_for in INTEGRATED
            runs = major == capability[0] and minor <= capability[1]
            if built_for == capability or (runs and not exact):
                return "cubin"
        elif capability >= built_for and not variant:
            ptx = True
    return "ptx" if ptx else None


def built_for(
    cuda_version: str, capabilities: Iterable[Capability], arch_list: Sequence[str]
) -> bool:
    """Whether a build has code for all of these GPUs, by its CUDA version where its list is empty.

    Example:
        >>> built_for("13.2", [(6, 1)], []), built_for("12.6", [(6, 1)], [])
        (False, True)
    """
    if arch_list:
        return all(support(capability, arch_list) for capability in capabilities)
    return major(cuda_version) <= 12 or all(c > BEFORE_TURING[1] for c in capabilities)  # noqa: PLR2004


def major(version: str) -> int:
    """The leading number of a version.

    Raises:
        NotObserved: What was recorded is no version.

    Example:
        >>> major("550.54.15"), major("12.4")
        (550, 12)
    """
    found = re.match(r"[0-9]{1,9}(?![0-9])", version)
    if found is None:
        raise NotObserved(f"{version[:40]!r} is no version")
    return int(found[0])
