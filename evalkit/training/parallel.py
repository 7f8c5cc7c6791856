"""One model on several processes: DDP where torchrun started them, the model itself where not."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from evalkit.distributed import is_running, rank
from evalkit.errors import InputError
from evalkit.hardware import HALF, choose_device, computing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn


def in_parallel(model: nn.Module, device: torch.device) -> nn.Module:
    """Return what computes the gradients of all processes together; alone, the model itself.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(2, 2)
        >>> in_parallel(model, torch.device("cpu")) is model
        True
    """
    if not is_running():
        return model
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


def synchronised(model: nn.Module, wanted: bool) -> AbstractContextManager[Any]:  # noqa: FBT001
    """Add up the gradients of all processes after this pass, or leave it to a later one."""
    if wanted or not isinstance(model, DistributedDataParallel):
        return nullcontext()
    return model.no_sync()


def exact_flags(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Compute with TF32 or without, as `precision` says; casting is left to whoever calls."""
    return computing(device, "fp32" if precision in HALF else precision)


@contextmanager
def joined(device: str) -> Iterator[tuple[int, str]]:
    """Let the processes that torchrun started know each other, for as long as a block runs.

    Args:
        device: As the user gave it; each process of a machine takes a GPU of its own for "auto"
            and "cuda".

    Yields:
        The number of this process among all, and its device. Alone: 0, and *device*.

    Raises:
        InputError: There are fewer GPUs than processes, or a single one was asked for.

    Example:
        >>> with joined("cpu") as (place, device):
        ...     place, device
        (0, 'cpu')
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or is_running():  # noqa: PLR2004
        yield rank(), device
        return
    chosen = choose_device(device)
    if chosen.type == "cuda":
        if ":" in device:
            raise InputError(f"device must be auto, cuda or cpu under torchrun, got '{device}'")
        chosen = choose_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield rank(), str(chosen)
    finally:
        dist.destroy_process_group()
