"""Which tensors hold values that are no numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

# Of which torch tells the extremes on a CPU, in no memory of its own.
_LOOKED_AT = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def not_finite(tensors: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
    """Return the names of the tensors with a NaN or an infinite value in them.

    Example:
        >>> not_finite({"a": torch.ones(2), "b": torch.tensor([1.0, float("nan")])})
        ('b',)
    """
    return tuple(name for name, tensor in tensors.items() if not _is_finite(tensor))


def _is_finite(tensor: torch.Tensor) -> bool:
    if tensor.dtype not in _LOOKED_AT or tensor.layout != torch.strided or tensor.is_meta:
        return True
    if not tensor.numel():
        return True
    least, most = tensor.aminmax()
    return bool(torch.isfinite(least)) and bool(torch.isfinite(most))
