"""Small trainings for tests: tiny images, a net with everything that is random or has a state."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import nn

from evalkit.training.recipe import Recipe
from evalkit.transforms import evaluation

CLASSES = ("left", "right")
# Everything that has a state of its own: moments, schedule, average, dropout, MixUp and CutMix.
FULL = Recipe(
    epochs=4,
    batch_size=8,
    accumulate=2,
    learning_rate=0.01,
    warm_up=1,
    label_smoothing=0.1,
    mixup=0.4,
    cutmix=1.0,
    clip_norm=1.0,
    ema=0.9,
    flip=0.5,
    random_area=0.5,
    seed=3,
)


def write_split(root, counts=(16, 6)):
    """Images of 8 x 8 pixels below train/ and val/: bright on the left or on the right."""
    generator = np.random.default_rng(0)
    for part, count in zip(("train", "val"), counts, strict=True):
        for label, name in enumerate(CLASSES):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 120, (8, 8))
                pixels[:, 4 * label : 4 * label + 4] += 100
                image = Image.fromarray(pixels.astype(np.uint8))
                image.save(root / part / name / f"{number}.png")
    return root


class TinyNet(nn.Module):
    transform = evaluation(mode="L", resize=(8, 8), crop=None, mean=(0.5,), std=(0.5,))

    def __init__(self, num_classes=2, dropout=0.2):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(dropout)
        )
        self.head = nn.Linear(4 * 8 * 8, num_classes)

    def forward(self, pixels):
        return self.head(self.features(pixels).flatten(1))


def tiny_net(num_classes=2):
    return TinyNet(num_classes)


def plain_net(num_classes=2):
    """Without anything that depends on which samples are computed together."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(3 * 8 * 8, 16), nn.Tanh(), nn.Linear(16, num_classes)
    )


def differences(one, other, place=""):
    """Where two trees of tensors and plain values differ, bit for bit."""
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, other) and one.dtype == other.dtype else [place]
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return [f"{place}: {one.keys() ^ other.keys()}"]
        return [
            found for key in one for found in differences(one[key], other[key], f"{place}.{key}")
        ]
    if isinstance(one, list | tuple):
        pairs = enumerate(zip(one, other, strict=True))
        return [
            found for number, pair in pairs for found in differences(*pair, f"{place}[{number}]")
        ]
    return [] if repr(one) == repr(other) else [f"{place}: {one} {other}"]  # NaN equals itself
