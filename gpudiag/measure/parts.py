"""Peak rates of the parts, as their data sheets have them: dense, with FP32 accumulation."""

from __future__ import annotations

import re
from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Part:
    """A product as NVML names it, and what it can do at best."""

    name: str  # a pattern for the whole name
    half_tflops: float  # fp16, and bf16 where the part has units for it
    memory_gb_per_s: float
    memory_gib: tuple[int, int] = (0, 10**6)  # of parts with one name and several memories
    bf16: bool = True


# Sources: NVIDIA's data sheets as collected by Stas Bekman's "ML engineering" (accelerators) and
# Lightning's fabric/utilities/throughput.py. Parts of which only rates with sparsity or with FP16
# accumulation are printed are left out, as are those that share a name with another part.
PARTS = (
    Part(name=r"Tesla V100-SXM2.*", half_tflops=125, memory_gb_per_s=900, bf16=False),
    Part(name=r"Tesla V100-PCIE.*", half_tflops=112, memory_gb_per_s=900, bf16=False),
    Part(name=r"Tesla T4", half_tflops=65, memory_gb_per_s=320, bf16=False),
    Part(name=r"NVIDIA A10", half_tflops=125, memory_gb_per_s=600),
    Part(name=r".*A100.*-40GB", half_tflops=312, memory_gb_per_s=1555),
    Part(name=r".*A100 80GB PCIe", half_tflops=312, memory_gb_per_s=1935),
    Part(name=r".*A100-SXM.*-80GB", half_tflops=312, memory_gb_per_s=2039),
    Part(name=r"NVIDIA L40S", half_tflops=362, memory_gb_per_s=864),
    Part(name=r"NVIDIA GeForce RTX 3090", half_tflops=71, memory_gb_per_s=936),
    Part(name=r"NVIDIA GeForce RTX 4090", half_tflops=165.2, memory_gb_per_s=1008),
    Part(name=r"NVIDIA H100 PCIe", half_tflops=756, memory_gb_per_s=2000),
    Part(name=r"NVIDIA H100 80GB HBM3", half_tflops=989, memory_gb_per_s=3350),
    Part(name=r"NVIDIA H200", half_tflops=989, memory_gb_per_s=4800),
    Part(
        name=r"NVIDIA GH200.*",
        half_tflops=989,
        memory_gb_per_s=4000,
        memory_gib=(80, 100),
    ),
    Part(name=r"NVIDIA B200", half_tflops=2250, memory_gb_per_s=8000),
)
PCIE_GB_PER_S_A_LANE = {3: 0.985, 4: 1.969, 5: 3.938}  # one way, after line coding


def part_of(name: str | None, memory_total_bytes: int | None) -> Part | None:
    """The part of that name, None where the table has none: never a guess.

    Example:
        >>> part_of("NVIDIA H200", None).memory_gb_per_s
        4800
        >>> part_of("NVIDIA H200 NVL", None) is None
        True
    """
    for part in PARTS:
        if name is not None and re.fullmatch(part.name, name):
            low, high = part.memory_gib
            if low == 0 or (memory_total_bytes and low <= memory_total_bytes / GIB <= high):
                return part
    return None
