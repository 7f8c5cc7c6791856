"""One model on several processes: DDP where torchrun started them, the model itself where not."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.parallel import DistributedDataParallel

from evalkit.distributed import is_running, rank, ranks
from evalkit.errors import InputError
from evalkit.inference.hardware import HALF, computing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

LOST = re.compile(r"gloo|NCCL|Connection (closed|reset)", re.IGNORECASE)


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


def casting(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Cast automatically to the 16 bits of a precision that has them."""
    half = HALF.get(precision)
    return nullcontext() if half is None else torch.autocast(device.type, dtype=half)


@contextmanager
def partners_explained() -> Iterator[None]:
    """Say that another process is gone, where that is why this one cannot go on.

    Raises:
        InputError: Instead of the error of the connection.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_running() or not LOST.search(str(error)):
            raise
        raise InputError(
            f"all {ranks()} processes must live as long as training, got '"
            f"{' '.join(str(error).split())[:120]}' in that of rank {rank()}: another one ended; "
            "its own message says why"
        ) from error
