"""Checkpoints for tests: a small real model, and files as other people's programs leave them."""

from __future__ import annotations

import zipfile

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x):
        return torch.relu(self.bn(self.conv(x)) + x)


class SmallNet(nn.Module):
    """Stem, numbered blocks and a head: the shape of every real classifier, in 1,000 values."""

    def __init__(self, num_classes=10, blocks=2):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.layer1 = nn.Sequential(*(Block(4) for _ in range(blocks)))
        self.submodule = nn.Linear(4, 4)  # a name that a blind replace of "module." destroys
        self.fc = nn.Linear(4, num_classes)

    def forward(self, x):
        features = self.layer1(self.stem(x)).mean((2, 3))
        return self.fc(torch.relu(self.submodule(features)))


def small_net(seed=0, **options):
    torch.manual_seed(seed)
    return SmallNet(**options)


def prefixed(prefix, state):
    return {prefix + key: tensor for key, tensor in state.items()}


def same_weights(one, other):
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(name == key and torch.equal(left, right) for (name, left), (key, right) in pairs)


def tag_as_cuda(source, target, device="cuda:0"):
    """Copy a zip checkpoint as a machine with a GPU would have written it.

    Only the location of the storages differs: text that pickle prefixes with its length.
    """

    def text(name):
        return b"X" + len(name).to_bytes(4, "little") + name.encode()

    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("/data.pkl"):
                assert text("cpu") in data
                data = data.replace(text("cpu"), text(device))
            new.writestr(name, data)
    return target
