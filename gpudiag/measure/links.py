"""What PCIe and NVLink can carry in one direction, in GB/s: the arithmetic of the standards."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gpudiag.snapshot import Gpu, Nvml, known_or

# Per lane: transfers per second x line coding (8b/10b up to generation 2, 128b/130b, from
# generation 6 on the payload of a FLIT, 242 of 256 bytes). https://pcisig.com/faq
PCIE_GB_PER_S = {1: 0.25, 2: 0.5, 3: 0.985, 4: 1.969, 5: 3.938, 6: 7.563}
# Per link: https://www.nvidia.com/en-us/data-center/nvlink/ gives both directions of all links of
# a GPU: 300 GB/s of 6 (2.0), 600 of 12 (3.0), 900 of 18 (4.0), 1800 of 18 (5.0); 160 of 4 (1.0).
NVLINK_GB_PER_S = {"1.0": 20.0, "2.0": 25.0, "2.2": 25.0, "3.0": 25.0, "4.0": 25.0, "5.0": 50.0}
CHIP_TO_CHIP = re.compile(r"\bG[BH]\d{3}\b")  # Grace is not reached by PCIe
PAIR = 2


@dataclass(frozen=True)
class Link:
    """What carries a copy, and how much of it one way."""

    name: str
    gb_per_s: float


def pcie(generation: int | None, lanes: int | None) -> Link | None:
    """A PCIe link, None where it is not known.

    Example:
        >>> pcie(5, 16)
        Link(name='PCIe 5 x16', gb_per_s=63.008)
        >>> pcie(None, 16) is None
        True
    """
    if generation not in PCIE_GB_PER_S or not lanes:
        return None
    return Link(f"PCIe {generation} x{lanes}", PCIE_GB_PER_S[generation] * lanes)


def to_host(name: str | None, *, generation: int | None, lanes: int | None) -> Link | None:
    """What reaches a GPU from the host; not known for a part that is not reached by PCIe."""
    if name is None or CHIP_TO_CHIP.search(name):
        return None
    return pcie(generation, lanes)


def nvlink(nvml: Nvml, source: str | None, target: str | None) -> Link | None:
    """What NVLink carries from one GPU to another, by their UUIDs; None: not known, or no NVLink.

    Behind an NVSwitch all links of a GPU serve each pair, and so they do where a machine has two
    GPUs. How the links of more GPUs without a switch are shared out is not known.
    """
    gpus = known_or(nvml.gpus, ())
    one, other = _by_uuid(gpus, source), _by_uuid(gpus, target)
    if one is None or other is None or not _linked(nvml, one, other):
        return None
    if len(gpus) != PAIR and not (_behind_a_switch(one) and _behind_a_switch(other)):
        return None
    rates = [rate for gpu in (one, other) if (rate := _of_all_links(gpu)) is not None]
    if len(rates) != PAIR:
        return None
    return Link(f"NVLink {known_or(one.nvlink_version, '?')}", min(rates))


def _by_uuid(gpus: tuple[Gpu, ...], uuid: str | None) -> Gpu | None:
    return next((gpu for gpu in gpus if uuid and known_or(gpu.uuid, None) == uuid), None)


def _linked(nvml: Nvml, one: Gpu, other: Gpu) -> bool:
    both = {one.index, other.index}
    return any(
        {pair.first, pair.second} == both and known_or(pair.p2p_nvlink, "") == "ok"
        for pair in known_or(nvml.pairs, ())
    )


def _behind_a_switch(gpu: Gpu) -> bool:
    return known_or(gpu.fabric_state, "not_supported") != "not_supported"


def _of_all_links(gpu: Gpu) -> float | None:
    rate = NVLINK_GB_PER_S.get(known_or(gpu.nvlink_version, ""))
    links = len(known_or(gpu.nvlink_active, ()))
    return rate * links if rate and links else None
