"""Copies within a device, to and from the host, between GPUs; memory that keeps its bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from . import devices
from .clock import rate
from .said import Unavailable, attempt, fault, figure

if TYPE_CHECKING:
    from .effort import Effort

PATTERNS = (0x00, 0xFF, 0x55, 0xAA)


def within(device: torch.device, effort: Effort) -> None:
    """Within the device, counting bytes read and written."""
    size = effort.sizes.copy_bytes
    source = numbered(size).to(device)
    target = torch.empty_like(source)

    def run() -> Any:
        return target.copy_(source)

    rate("copy", device, run, 2 * size / 1e9, "GB/s", effort=effort, detail="device")
    if not torch.equal(source, target):
        fault("copy", device, "bytes arrived changed within the device")


def to_and_from_host(device: torch.device, effort: Effort) -> None:
    """To and from memory of the host, pinned and pageable."""
    size = effort.sizes.copy_bytes
    pattern = numbered(size)
    there = torch.empty_like(pattern, device=device)
    for memory, pin in (("pinned", True), ("pageable", False)):
        here = torch.empty(pattern.shape, dtype=pattern.dtype, pin_memory=pin)
        here.copy_(pattern)
        for way, to, of in (("to device", there, here), ("to host", here, there)):

            def run(to: Any = to, of: Any = of) -> Any:
                return to.copy_(of, non_blocking=True)

            detail = f"{memory} {way}"
            rate("copy", device, run, size / 1e9, "GB/s", effort=effort, detail=detail)
        if not torch.equal(here, pattern):
            fault("copy", device, f"bytes came back changed through {memory} memory")


def numbered(size_bytes: int) -> Any:
    """Words of which each tells where it belongs, in the memory of the host."""
    return torch.arange(size_bytes // 8, dtype=torch.int64)


def peers(all_devices: list[torch.device], effort: Effort) -> None:
    """From each GPU to each other one."""
    for source in all_devices:
        for target in all_devices:
            if source != target:
                attempt(f"peer copy to {target}", source, peer_copy, target, effort)


def peer_copy(source: torch.device, target: torch.device, effort: Effort) -> None:
    """Known bytes to one other GPU, compared by way of the host."""
    size = effort.sizes.peer_bytes
    pattern = numbered(size)
    there = pattern.to(source)
    arrived = there.to(target, copy=True)
    if not torch.equal(arrived.cpu(), pattern):
        fault("peer copy", source, f"bytes arrived changed on {target}")
    direct = torch.cuda.can_device_access_peer(source, target)
    detail = f"to {target}, {'direct' if direct else 'by way of the host'}"

    def run() -> Any:
        return arrived.copy_(there)

    rate("peer copy", source, run, size / 1e9, "GB/s", effort=effort, detail=detail)


def memory(device: torch.device, effort: Effort) -> None:
    """Known bytes, and each word's own number, written over free memory and read again."""
    chunk, size = effort.sizes.chunk_bytes, _free_bytes(device, effort)
    if size < chunk:
        raise Unavailable(f"{size / 2**20:.0f} MiB are free, less than the {chunk >> 20} of a part")
    blocks = [
        torch.empty(chunk // 8, dtype=torch.int64, device=device) for _ in range(size // chunk)
    ]
    for pattern in PATTERNS:
        word = int.from_bytes([pattern] * 8, "little", signed=True)
        for block in blocks:
            block.fill_(word)
        wrong = sum(int((block != word).sum()) for block in blocks)
        if wrong:
            fault("memory", device, f"{wrong} words did not keep the pattern 0x{pattern:02X}")
    for number, block in enumerate(blocks):  # a fault of the addressing keeps every pattern
        torch.arange(number * len(block), (number + 1) * len(block), out=block)
    wrong = sum(_misplaced(number, block) for number, block in enumerate(blocks))
    if wrong:
        fault("memory", device, f"{wrong} words lie at the address of another one")
    figure("memory", device, len(blocks) * chunk / 2**30, "GiB checked")


def _misplaced(number: int, block: Any) -> int:
    expected = torch.arange(number * len(block), (number + 1) * len(block), device=block.device)
    return int((block != expected).sum())


def _free_bytes(device: torch.device, effort: Effort) -> int:
    if not devices.is_gpu(device):
        return effort.sizes.chunk_bytes
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    usable = max(0, int(free) - effort.sizes.spare_bytes)
    return min(usable // 2, 4 * effort.sizes.chunk_bytes) if effort.quick else usable
