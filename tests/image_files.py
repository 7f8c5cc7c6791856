"""Images and class folders for tests: every class a colour that a fixed net can tell."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import nn

from evalkit.checkpoint import save_checkpoint
from evalkit.images.jpegs import CANDIDATES

CLASSES = ("blue", "green", "red")  # sorted, as torchvision counts them
CHANNEL = {"red": 0, "green": 1, "blue": 2}


def coloured(name, seed, size=(12, 10)):
    """Noise in which one colour channel is a little stronger: now and then it is mistaken."""
    pixels = np.random.default_rng(seed).integers(0, 200, (size[1], size[0], 3))
    pixels[..., CHANNEL.get(name, 0)] += 25 if seed % 4 else 0
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_folders(root, counts):
    """Write counts[class] PNG images into root/class; a class of 0 is an empty folder."""
    seed = 0
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            coloured(name, seed).save(root / name / f"{number}.png")
            seed += 1
    return root


def picture(width=123, height=77, seed=0):
    """Waves and noise: edges, flat parts and every colour."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [np.sin(rows / 11), np.cos(columns / 9), np.sin(rows * columns / 700)]
    noise = np.random.default_rng(seed).normal(0, 12, (height, width, 3))
    return Image.fromarray((np.stack(waves, -1) * 100 + 127 + noise).clip(0, 255).astype(np.uint8))


def encoded(image, kind="JPEG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def brighter(files, colours, device):
    """As a library that decodes JPEG files, but every pixel is off by one."""
    found = CANDIDATES["torchvision"]().decode(files, colours, device)
    return [one.clamp(max=254) + 1 for one in found]


class ColourNet(nn.Module):
    """The mean of every colour channel, as one logit per class, in the order given."""

    def __init__(self, order=CLASSES):
        super().__init__()
        self.head = nn.Linear(3, len(order), bias=True)
        with torch.no_grad():
            self.head.bias.zero_()
            self.head.weight.zero_()
            for output, name in enumerate(order):
                self.head.weight[output, CHANNEL[name]] = 10.0

    def forward(self, pixels):
        return self.head(pixels.mean((2, 3)))


def colour_net():
    """A net to load into: its weights are those of nobody."""
    net = ColourNet()
    nn.init.zeros_(net.head.weight)
    return net


def write_checkpoint(path, transform):
    """Save a ColourNet with its classes and a transform."""
    save_checkpoint(path, ColourNet(), classes=CLASSES, transform=transform.as_dict())
    return path
