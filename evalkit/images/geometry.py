"""Pixels resized and cropped as tensors, in a quarter of the time that Pillow takes.

Pixels that were resized bilinearly are those of Pillow within 1. Of bicubic ones a few in a million
are off by 2, because torch rounds its weights to 16 bits, and "nearest-exact" chooses others where
two are equally near: for both Pillow is asked, unless only a tensor is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

    from evalkit.transforms import Size

BRIGHTEST = 255


def as_tensor(image: Image) -> torch.Tensor:
    """Return the pixels of an image of mode "RGB" or "L", uint8, shape (C, H, W), channels last."""
    pixels = torch.from_numpy(np.array(image))
    return pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1)  # noqa: PLR2004


def resized_size(height: int, width: int, size: Size) -> tuple[int, int]:
    """Return the (height, width) of an image after resizing, as torchvision counts it.

    Args:
        height: Of the image before, in pixels.
        width: Of the image before, in pixels.
        size: Length of the shorter side afterwards, or (height, width).

    Example:
        >>> resized_size(375, 500, 256), resized_size(500, 375, 256), resized_size(9, 9, (2, 3))
        ((256, 341), (341, 256), (2, 3))
    """
    if isinstance(size, tuple):
        return size
    if width <= height:
        return int(size * height / width), size
    return size, int(size * width / height)


def resized(pixels: torch.Tensor, size: Size, interpolation: str) -> torch.Tensor:
    """Return pixels of another size.

    Args:
        pixels: uint8, shape (C, H, W). Colours that lie side by side in memory (channels last),
            as decoders leave them, are the fast ones.
        size: Length of the shorter side in pixels, or (height, width).
        interpolation: "bilinear" or "bicubic", with antialiasing, or "nearest-exact".
    """
    wanted = resized_size(pixels.shape[1], pixels.shape[2], size)
    if wanted == tuple(pixels.shape[1:]):
        return pixels
    batch = together([pixels])
    if interpolation == "nearest-exact":
        return functional.interpolate(batch, wanted, mode=interpolation).squeeze(0)
    on_cpu = pixels.device.type == "cpu"  # alone computes on whole numbers
    scaled = functional.interpolate(
        batch if on_cpu else batch.float(), wanted, mode=interpolation, antialias=True
    ).squeeze(0)
    return scaled if on_cpu else scaled.round_().clamp_(0, BRIGHTEST).to(torch.uint8)


def middle(pixels: torch.Tensor, size: Size, crop: Size, interpolation: str) -> torch.Tensor:
    """Return the middle of an image of another size: `cropped` of `resized`, to the last bit.

    Where a CPU makes an image smaller bilinearly, what lies below and right of the crop is left out
    of the resizing, which takes a sixth less time; torch has no way to leave out what lies above
    and left of it.

    Args:
        pixels: See `resized`.
        size: See `resized`.
        crop: See `cropped`.
        interpolation: See `resized`.

    Example:
        >>> pixels = torch.arange(3 * 80 * 60).view(3, 80, 60).byte()
        >>> torch.equal(middle(pixels, 32, 28, "bilinear"),
        ...             cropped(resized(pixels, 32, "bilinear"), 28))
        True
    """
    before, after = tuple(pixels.shape[1:]), resized_size(pixels.shape[1], pixels.shape[2], size)
    wanted = crop if isinstance(crop, tuple) else (crop, crop)
    starts = [round((full - kept) / 2) for full, kept in zip(after, wanted, strict=True)]
    read = [
        _read_for(start + kept, old, new)
        for start, kept, old, new in zip(starts, wanted, before, after, strict=True)
    ]
    if (
        interpolation != "bilinear"
        or pixels.device.type != "cpu"
        or min(starts) < 0
        or not all(length < old for length, old in zip(read, before, strict=True))
    ):
        return cropped(resized(pixels, size, interpolation), crop)
    part = functional.interpolate(
        together([pixels[:, : read[0], : read[1]]]),
        scale_factor=[new / old for old, new in zip(before, after, strict=True)],
        mode=interpolation,
        antialias=True,
    ).squeeze(0)
    top, left = starts
    return part[:, top : top + wanted[0], left : left + wanted[1]]


def _read_for(wanted: int, old: int, new: int) -> int:
    """Return from how many of *old* pixels the first *wanted* of *new* can be made, or *old*.

    From so many that all that torch makes of them is made of as many pixels as in the whole image:
    one that lacks some has larger weights, and the largest one decides how all are rounded.
    """
    if new >= old:  # torch does not resize what it takes for as long as before
        return old
    first = -(-(wanted + 1) * old // new)
    whole = (length for length in range(first, old) if 2 * (length * new % old) >= old)
    return next(whole, old)


def together(images: Sequence[torch.Tensor]) -> torch.Tensor:
    """Stack images of one size, shape (C, H, W), the colours side by side: (N, C, H, W).

    What torch.stack and unsqueeze give of images whose colours lie side by side does not pass for
    "channels last" any more, and is slower to resize and to compute with by a third.

    Example:
        >>> stacked = together([torch.zeros(3, 4, 5), torch.ones(3, 4, 5)])
        >>> stacked.shape, stacked.is_contiguous(memory_format=torch.channels_last)
        (torch.Size([2, 3, 4, 5]), True)
    """
    upright = [one.permute(1, 2, 0) for one in images]
    if len(upright) == 1:
        batch = upright[0].unsqueeze(0)
    elif upright[0].device.type == "cpu":
        # torch.stack would share the copying among cores that decode at the same time
        batch = torch.empty((len(upright), *upright[0].shape), dtype=upright[0].dtype)
        np.stack([one.numpy() for one in upright], out=batch.numpy())
    else:
        batch = torch.stack(upright)
    return batch.permute(0, 3, 1, 2)


def cropped(pixels: torch.Tensor, size: Size) -> torch.Tensor:
    """Return the middle of an image; what is smaller is framed in black, as torchvision does.

    Args:
        pixels: Shape (C, H, W).
        size: Side in pixels, or (height, width).

    Example:
        >>> cropped(torch.arange(16).view(1, 4, 4), 2)
        tensor([[[ 5,  6],
                 [ 9, 10]]])
    """
    height, width = size if isinstance(size, tuple) else (size, size)
    lacking_rows = max(height - pixels.shape[1], 0)
    lacking_columns = max(width - pixels.shape[2], 0)
    if lacking_rows or lacking_columns:
        left, top = lacking_columns // 2, lacking_rows // 2
        frame = [left, lacking_columns - left, top, lacking_rows - top]
        pixels = functional.pad(pixels, frame)
    top = round((pixels.shape[1] - height) / 2)
    left = round((pixels.shape[2] - width) / 2)
    return pixels[:, top : top + height, left : left + width]
