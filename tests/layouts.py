"""Models that tell in which layout they are computed, or mind it."""

import torch
from torch import nn


class Laid(nn.Module):
    """Notes how its input lies in memory."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.seen = []

    def forward(self, images):
        self.seen.append(images.is_contiguous(memory_format=torch.channels_last))
        return self.convolution(images).mean((2, 3))


class Turning(nn.Module):
    """Takes either layout; three classes."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 3)

    def forward(self, images):
        return self.convolution(images).mean((2, 3))


class Awkward(nn.Module):
    """Computes with the layout that its convolutions leave, as some models do."""

    def __init__(self):
        super().__init__()
        self.convolutions = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3))
        self.linear = nn.Linear(4 * 16, 3)

    def forward(self, images):
        return self.linear(self.flat(self.convolutions(images)))


class Viewing(Awkward):
    """As tutorials write it."""

    def flat(self, found):
        return found.view(len(found), -1)


class Striding(Awkward):
    """Gives other numbers, without an error."""

    def flat(self, found):
        return found.as_strided((len(found), 64), (64, 1))


class Insisting(Awkward):
    """Fails in its own words."""

    def flat(self, found):
        assert found.is_contiguous()
        return found.flatten(1)


class Merging(Awkward):
    """Fails for more samples than one."""

    def flat(self, found):
        return found.view(len(found) * 2, 2, 4, 4).reshape(len(found), -1)


class Buffered(Awkward):
    """Has a buffer of the shape of images, and takes it apart."""

    def __init__(self):
        super().__init__()
        self.register_buffer("filter", torch.rand(4, 4, 5, 5))

    def flat(self, found):
        return found.flatten(1) + self.filter.view(4, -1).sum()


class Deep(Awkward):
    """Has weights that cannot lie so."""

    def __init__(self):
        super().__init__()
        self.third = nn.Conv3d(4, 4, 1)

    def flat(self, found):
        return self.third(found.unsqueeze(2)).flatten(1)


AWKWARD = (Viewing, Striding, Insisting, Merging, Buffered, Deep)
