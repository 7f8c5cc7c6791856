"""Tensors that lie in parts, as several processes saved them: put together when they are used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

Begin = tuple[int, ...]  # where a part begins in the whole, one number per dimension


class Scattered(torch.Tensor):
    """Shape and type of a tensor whose values are elsewhere; `whole` puts them together.

    It is on torch's "meta" device: whatever would need its values raises, and what is done to it
    gives a plain tensor of that device.
    """

    parts: tuple[tuple[Begin, torch.Tensor], ...]
    # As torch's documentation of subclasses has it; its own types do not know.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]  # noqa: SLF001


def scattered(size: Sequence[int], parts: Sequence[tuple[Begin, torch.Tensor]]) -> torch.Tensor:
    """Return a tensor that is put together from parts; the only part itself where it is all of it.

    Args:
        size: Its shape.
        parts: Where each part begins, and the part: of one type, on the mapped file.

    Raises:
        ValueError: The parts do not fill it, each place once.

    Example:
        >>> top, bottom = torch.zeros(1, 2), torch.ones(1, 2)
        >>> found = scattered((2, 2), [((1, 0), bottom), ((0, 0), top)])
        >>> found.shape, whole(found).tolist()
        (torch.Size([2, 2]), [[0.0, 0.0], [1.0, 1.0]])
    """
    size = tuple(size)
    if len(parts) == 1 and tuple(parts[0][1].shape) == size:
        return parts[0][1]
    values = sum(part.numel() for _begin, part in parts)
    if values != math.prod(size):
        raise ValueError(f"parts with {values} of the {math.prod(size)} values of a tensor")
    kinds = {part.dtype for _begin, part in parts}
    if len(kinds) != 1:
        raise ValueError(f"parts of {len(kinds)} types in one tensor")
    _require_apart(size, [(begin, tuple(part.shape)) for begin, part in parts if part.numel()])
    found = torch.empty(size, dtype=kinds.pop(), device="meta").as_subclass(Scattered)
    found.parts = tuple(parts)
    return found


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor with its values: put together where it is `Scattered`, else as it is."""
    if not isinstance(tensor, Scattered):
        return tensor
    found = torch.empty(tensor.shape, dtype=tensor.dtype)
    for begin, part in tensor.parts:
        if part.numel():
            ends = zip(begin, part.shape, strict=True)
            found[tuple(slice(start, start + length) for start, length in ends)].copy_(part)
    return found


def _require_apart(size: tuple[int, ...], boxes: Sequence[tuple[Begin, tuple[int, ...]]]) -> None:
    """Raise unless all boxes lie within the shape and no two share a place.

    As many values as the shape has are then each of them there once.
    """
    if any(len(begin) != len(size) or len(shape) != len(size) for begin, shape in boxes):
        raise ValueError(f"parts of other dimensions than a tensor of shape {size}")
    begins: Any = np.array([begin for begin, _shape in boxes], dtype=np.int64)
    ends: Any = begins + np.array([shape for _begin, shape in boxes], dtype=np.int64)
    if (begins < 0).any() or (ends > np.array(size, dtype=np.int64)).any():
        raise ValueError(f"a part that reaches beyond a tensor of shape {size}")
    for number in range(1, len(boxes)):
        shared = (begins[:number] < ends[number]) & (begins[number] < ends[:number])
        if shared.all(axis=1).any():
            raise ValueError(f"parts of a tensor of shape {size} that overlap")
