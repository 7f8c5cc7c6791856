"""A data set and a net without files: seeded noise, which may end its process in the middle."""

from __future__ import annotations

import os
import signal
import time

import torch
from torch import nn

from evalkit.checkpoint import save_checkpoint
from evalkit.transforms import evaluation

CLASSES = ("ant", "bee", "cat", "dog")
SAMPLES = 2_000
TRANSFORM = evaluation(resize=None, crop=None, mean=(0.5,) * 3, std=(0.25,) * 3)


class Noise:
    """Images whose brightness tells their class, more or less.

    Environment variables make an accident of it: NOISE_KILL_AT is the position at which the process
    ends as by SIGKILL, NOISE_KILL_RANK the one of torchrun's processes that does, NOISE_SLEEP how
    many seconds every sample takes.
    """

    classes = CLASSES

    def __len__(self):
        return SAMPLES

    def __getitem__(self, position):
        time.sleep(float(os.environ.get("NOISE_SLEEP", "0")))
        at = os.environ.get("NOISE_KILL_AT")
        rank = os.environ.get("NOISE_KILL_RANK", os.environ.get("RANK"))
        if at is not None and position >= int(at) and rank == os.environ.get("RANK"):
            os.kill(os.getpid(), signal.SIGKILL)
        label = position * 7 % len(CLASSES)
        generator = torch.Generator().manual_seed(position)
        noise = torch.randint(0, 200, (3, 12, 12), generator=generator, dtype=torch.uint8)
        return noise + 10 * label, label


def noise():
    """The data set, for ``noise:noise``."""
    return Noise()


class ConvNet(nn.Module):
    """Convolutions and batch norm: what could round differently in another batch."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3)
        )
        self.head = nn.Linear(16, len(CLASSES))

    def forward(self, images):
        return self.head(self.features(images).mean((2, 3)))


def conv_net():
    """The net, for ``noise:conv_net``."""
    return ConvNet()


def write_checkpoint(path):
    """A net that has learned a little: it gets more than half of the noise right."""
    images, labels = zip(*(Noise()[position] for position in range(200)), strict=True)
    seen, wanted = TRANSFORM.normalize(torch.stack(images)), torch.tensor(labels)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = ConvNet()
        optimizer = torch.optim.Adam(net.parameters(), 1e-2)
        for _ in range(20):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(seen), wanted).backward()
            optimizer.step()
    save_checkpoint(path, net, classes=CLASSES, transform=TRANSFORM.as_dict())
    return path
