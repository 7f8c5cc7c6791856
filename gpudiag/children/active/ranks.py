"""Under torchrun: collectives, and one rank that speaks for all."""

from __future__ import annotations

import datetime as dt
import statistics
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed

from . import said
from .clock import once_s
from .devices import RANK, WORLD
from .said import attempt, fault, figure, say

if TYPE_CHECKING:
    from .effort import Effort

LIMIT_S = 60
REPEATS, QUICK_REPEATS = 20, 3  # as many on every rank, or they would wait for each other forever


def together(device: torch.device, effort: Effort) -> None:
    """Measure the collectives; the first rank then says what all of them did."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=dt.timedelta(seconds=LIMIT_S))
    try:
        attempt("collectives", device, collectives, effort)
        everything: list[Any] = [None] * WORLD
        distributed.all_gather_object(everything, said.lines)
    finally:
        distributed.destroy_process_group()
    if RANK == 0:
        for rank, lines in enumerate(everything):
            for line in lines if rank else ():
                say(**{key: value for key, value in line.items() if key != "time_s"})


def collectives(device: torch.device, effort: Effort) -> None:
    """Bus bandwidth of all-reduce and all-gather, as nccl-tests count it; what arrives is checked.

    https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md
    """
    size = effort.sizes.collective_bytes
    own = torch.full((size // 4,), float(RANK + 1), device=device)
    total = own.clone()
    distributed.all_reduce(total)
    if not bool((total == WORLD * (WORLD + 1) / 2).all()):
        fault("all-reduce", device, "it holds a wrong sum")
    everyone = [torch.empty_like(own) for _ in range(WORLD)]
    distributed.all_gather(everyone, own)
    if any(bool((got != number + 1).any()) for number, got in enumerate(everyone)):
        fault("all-gather", device, "it holds what the others did not send")
    for test, run, work in (
        ("all-reduce", lambda: distributed.all_reduce(total), 2 * size * (WORLD - 1) / WORLD),
        ("all-gather", lambda: distributed.all_gather(everyone, own), size * (WORLD - 1)),
    ):
        found = []
        for _ in range(QUICK_REPEATS if effort.quick else REPEATS):
            distributed.barrier()
            found.append(once_s(device, run))
        bandwidth = work / statistics.median(found) / 1e9
        more: dict[str, Any] = {"detail": f"bus, {WORLD} ranks", "repeats": len(found)}
        figure(test, device, bandwidth, "GB/s", **more)
