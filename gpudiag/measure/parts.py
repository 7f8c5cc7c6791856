"""Peak rates of the parts, as their data sheets have them: dense, with FP32 accumulation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Part:
    """A product as NVML names it, and what it can do at best.

    Attributes:
        name: A pattern for the whole name.
        tflops: By precision; one that the part has no units for, or that is not printed, is left
            out.
        memory_gb_per_s: Reading and writing together.
        memory_gib: Of parts with one name and several memories: the least and the most.
    """

    name: str
    tflops: Mapping[str, float]
    memory_gb_per_s: float
    memory_gib: tuple[int, int] = (0, 10**6)


def _half(tflops: float, **others: float) -> dict[str, float]:
    return {"fp16": tflops, "bf16": tflops, **others}


_H100_SXM = _half(989, fp32=67, tf32=494, fp8=1979)

# Sources: NVIDIA's data sheets, what is printed with sparsity halved: A10, A100, B200 and B300 of
# HGX, GB200 NVL72, H100, H200, L4, L40S, T4, V100, V100S; of the A10G, which is not the A10,
# https://d1.awsstatic.com/product-marketing/ec2/NVIDIA_AWS_A10G_DataSheet_FINAL_02_17_2022.pdf
# Of GeForce the tables of the whitepapers of GA102, Ada and RTX Blackwell with FP32 accumulation,
# which torch uses: half of the rate in advertisements. As collected by Stas Bekman's "ML
# engineering" (compute/accelerator) and Lightning's fabric/utilities/throughput.py. Parts that
# share a name with another part are left out.
PARTS = (
    Part(
        name=r"Tesla V100-SXM2-(16|32)GB", tflops={"fp16": 125, "fp32": 15.7}, memory_gb_per_s=900
    ),
    Part(name=r"Tesla V100-PCIE-(16|32)GB", tflops={"fp16": 112, "fp32": 14}, memory_gb_per_s=900),
    Part(name=r"Tesla V100S-PCIE-32GB", tflops={"fp16": 130, "fp32": 16.4}, memory_gb_per_s=1134),
    Part(name=r"Tesla T4", tflops={"fp16": 65, "fp32": 8.1}, memory_gb_per_s=320),
    Part(name=r"NVIDIA A10", tflops=_half(125, fp32=31.2, tf32=62.5), memory_gb_per_s=600),
    Part(name=r"NVIDIA A10G", tflops=_half(70, fp32=35), memory_gb_per_s=600),
    Part(name=r".*A100.*-40GB", tflops=_half(312, fp32=19.5, tf32=156), memory_gb_per_s=1555),
    Part(name=r".*A100 80GB PCIe", tflops=_half(312, fp32=19.5, tf32=156), memory_gb_per_s=1935),
    Part(name=r".*A100-SXM.*-80GB", tflops=_half(312, fp32=19.5, tf32=156), memory_gb_per_s=2039),
    Part(name=r"NVIDIA L4", tflops=_half(121, fp32=30.3, tf32=60, fp8=242), memory_gb_per_s=300),
    Part(name=r"NVIDIA L40S", tflops=_half(362, fp32=91.6, tf32=183, fp8=733), memory_gb_per_s=864),
    Part(name=r"NVIDIA GeForce RTX 3090", tflops=_half(71), memory_gb_per_s=936),
    Part(name=r"NVIDIA GeForce RTX 4090", tflops=_half(165.2), memory_gb_per_s=1008),
    Part(name=r"NVIDIA GeForce RTX 5090", tflops=_half(209.5), memory_gb_per_s=1792),
    Part(
        name=r"NVIDIA H100 PCIe",
        tflops=_half(756, fp32=51, tf32=378, fp8=1513),
        memory_gb_per_s=2000,
    ),
    Part(name=r"NVIDIA H100 80GB HBM3", tflops=_H100_SXM, memory_gb_per_s=3350),
    Part(name=r"NVIDIA H200", tflops=_H100_SXM, memory_gb_per_s=4800),
    Part(name=r"NVIDIA GH200.*", tflops=_H100_SXM, memory_gb_per_s=4000, memory_gib=(80, 100)),
    Part(name=r"NVIDIA B200", tflops=_half(2250), memory_gb_per_s=8000),
    Part(name=r"NVIDIA GB200", tflops=_half(2500), memory_gb_per_s=8000),
    Part(name=r"NVIDIA B300( SXM6 AC)?", tflops=_half(2250), memory_gb_per_s=8000),
)


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
