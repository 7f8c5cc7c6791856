"""A data set of any length that takes no memory, and a tiny net for it."""

from __future__ import annotations

import os

import torch
from torch import nn

SIDE = 8
CLASSES = 10


class Synthetic:
    """The same few images again and again; SYNTHETIC_SAMPLES says how many samples that makes."""

    def __init__(self) -> None:
        """Make the images."""
        generator = torch.Generator().manual_seed(0)
        shape = (64, 3, SIDE, SIDE)
        self.images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        self.classes = [f"class {number}" for number in range(CLASSES)]

    def __len__(self) -> int:
        """How many samples there are."""
        return int(os.environ["SYNTHETIC_SAMPLES"])

    def __getitem__(self, position: int) -> tuple[torch.Tensor, int]:
        """One of them, and its class."""
        return self.images[position % len(self.images)], position * 7 % CLASSES


def samples() -> Synthetic:
    """The data set, for ``synthetic.py:samples``."""
    return Synthetic()


def net() -> nn.Module:
    """A net that costs next to nothing, for ``synthetic.py:net``."""
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, CLASSES))
