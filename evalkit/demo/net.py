"""A convolutional net for the digits, small enough for seconds on two cores."""

from __future__ import annotations

import torch
from torch import nn

from evalkit.transforms import TransformSpec, evaluation


class DigitsNet(nn.Module):
    """Three convolutions, each with batch norm, the mean over what is left, and a linear layer."""

    transform: TransformSpec = evaluation(
        mode="L", resize=(8, 8), crop=None, mean=(0.305,), std=(0.376,)
    )  # mean and deviation of the training digits

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _layer(1, 32),
            _layer(32, 64),
            nn.MaxPool2d(2),
            _layer(64, 128),
        )
        self.head = nn.Linear(128, num_classes)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return logits of shape (N, C) for normalised images of shape (N, 1, 8, 8)."""
        features = self.features(pixels)  # (N, 128, 4, 4)
        logits: torch.Tensor = self.head(features.amax((2, 3)))
        return logits


def digits_net(num_classes: int = 10) -> DigitsNet:
    """Build the net of the demonstration: ``--model evalkit.demo.net:digits_net``.

    Example:
        >>> digits_net()(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """
    return DigitsNet(num_classes)


def _layer(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )
