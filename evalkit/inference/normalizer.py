"""Normalising batch after batch into the same memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from evalkit.transforms import TransformSpec


class Normalizer:
    """Normalises batch after batch into the same memory, and gives the values of `normalize`.

    Fresh memory for every batch costs a CPU three times what the arithmetic costs. What was
    returned for a batch is overwritten by the next one: it is for a loop that has done with a
    batch by then.

    Example:
        >>> from evalkit.transforms import evaluation
        >>> spec = evaluation()
        >>> pixels = torch.full((2, 3, 8, 8), 200, dtype=torch.uint8)
        >>> torch.equal(Normalizer(spec)(pixels), spec.normalize(pixels))
        True
    """

    def __init__(self, spec: TransformSpec) -> None:
        self._spec = spec
        self._memory: torch.Tensor | None = None

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turn pixels of shape (N, C, H, W), uint8, into float32, on the device they are on."""
        if pixels.device.type != "cpu":  # whose allocators keep memory themselves
            return self._spec.normalize(pixels)
        return self._spec.normalize(pixels, into=self._room(pixels))

    def _room(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return memory of the shape and layout of a batch."""
        memory = self._memory
        if (
            memory is None
            or len(memory) < len(pixels)
            or memory.shape[1:] != pixels.shape[1:]
            or memory.stride()[1:] != pixels.stride()[1:]
        ):
            dense = torch.empty_like(pixels, device="meta")
            room = np.empty(dense.numel(), np.float32)  # in large pages, which torch asks not for
            with torch.inference_mode(mode=False):  # it may be used outside of it, too
                flat = torch.from_numpy(room)
                memory = self._memory = flat.as_strided(dense.shape, dense.stride())
        return memory[: len(pixels)]
