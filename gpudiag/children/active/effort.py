"""How much is measured: the seconds of a figure, and how large things are."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20
LEAST_REPEATS, MOST_REPEATS = 3, 500


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How large things are on one kind of device."""

    side: int  # of the square matrices whose product is timed
    repeated_side: int  # of those whose product is compared bit by bit
    copy_bytes: int
    peer_bytes: int
    collective_bytes: int
    allocation_bytes: int
    chunk_bytes: int  # of the memory that is written and read again
    spare_bytes: int  # of the memory that is left free meanwhile
    images: int
    image_side: int
    convolution_side: int


GPU = Sizes(
    side=8192,
    repeated_side=2048,
    copy_bytes=1024 * MIB,
    peer_bytes=256 * MIB,
    collective_bytes=1024 * MIB,
    allocation_bytes=256 * MIB,
    chunk_bytes=256 * MIB,
    spare_bytes=1024 * MIB,
    images=64,
    image_side=224,
    convolution_side=56,
)
CPU = Sizes(
    side=1024,
    repeated_side=256,
    copy_bytes=128 * MIB,
    peer_bytes=MIB,
    collective_bytes=32 * MIB,
    allocation_bytes=16 * MIB,
    chunk_bytes=16 * MIB,
    spare_bytes=0,
    images=4,
    image_side=64,
    convolution_side=28,
)
CPU_QUICK = Sizes(
    side=512,
    repeated_side=256,
    copy_bytes=32 * MIB,
    peer_bytes=MIB,
    collective_bytes=4 * MIB,
    allocation_bytes=16 * MIB,
    chunk_bytes=16 * MIB,
    spare_bytes=0,
    images=4,
    image_side=64,
    convolution_side=28,
)


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is measured on one device."""

    seconds: float  # of the repeats of a figure, after a warm-up of a third of it
    quick: bool
    sizes: Sizes
