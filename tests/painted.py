"""Images that a tiny net learns in seconds: four classes, each a shape in colours of its own."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import nn

from evalkit.transforms import TransformSpec, evaluation

SIDE = 24
# No class turns into another one when red and blue change places.
PAINTED = {
    "disc": (220, 120, 40),
    "frame": (60, 160, 90),
    "stripes": (200, 190, 60),
    "wedge": (120, 40, 90),
}
CLASSES = tuple(PAINTED)
RIGHT = evaluation(resize=SIDE, crop=SIDE)  # ImageNet's mean and deviation


def painted(name, seed):
    """One image: a shape at a random place, on grey, with noise."""
    random = np.random.default_rng([seed, CLASSES.index(name)])
    y, x = np.mgrid[:SIDE, :SIDE]
    centre_y, centre_x = random.uniform(8, SIDE - 8, 2)
    size = random.uniform(4, 8)
    distance_y, distance_x = np.abs(y - centre_y), np.abs(x - centre_x)
    mask = {
        "disc": np.hypot(distance_y, distance_x) < size,
        "frame": np.abs(np.maximum(distance_y, distance_x) - size) < 1.5,
        "stripes": (np.maximum(distance_y, distance_x) < size) & ((y + x) % 4 < 2),
        "wedge": (distance_y < size) & (distance_x < (y - centre_y + size) / 2),
    }[name]
    pixels = random.normal(110, 25, (SIDE, SIDE, 3))
    colour = np.array(PAINTED[name]) * random.uniform(0.8, 1.2) + random.normal(0, 12, 3)
    pixels[mask] = colour + random.normal(0, 25, (int(mask.sum()), 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_painted(root, *, each, first_seed, names=CLASSES):
    """Write *each* PNG images of every class into root/class."""
    for name in names:
        (root / name).mkdir(parents=True)
        for number in range(each):
            painted(name, first_seed + number).save(root / name / f"{number:03}.png")
    return root


class PaintedNet(nn.Module):
    """Two convolutions with batch norm, the mean, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 5, stride=2), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3), nn.BatchNorm2d(32), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(32, len(CLASSES))

    def forward(self, pixels):
        return self.head(self.features(pixels).mean((2, 3)))


def trained(spec: TransformSpec = RIGHT, *, each=80, epochs=8):
    """Train a net on painted images that are prepared by *spec*."""
    torch.manual_seed(0)
    images = [(painted(name, 10_000 + seed), label) for seed in range(each)
              for label, name in enumerate(CLASSES)]  # fmt: skip
    inputs = torch.stack([spec(image) for image, _ in images])
    labels = torch.tensor([label for _, label in images])
    net = PaintedNet()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(epochs):
        for batch in torch.randperm(len(labels)).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(inputs[batch]), labels[batch]).backward()
            optimizer.step()
    return net.eval()
