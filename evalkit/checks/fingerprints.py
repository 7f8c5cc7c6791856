"""What is kept of an image to recognise it, and copies of it, among millions."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from evalkit.images.reading import UnreadableError

if TYPE_CHECKING:
    from evalkit.data.source import Source

BITS = 64  # of a difference hash: whether each of 8 x 8 pixels is brighter than its left neighbour
BANDS = 4  # of 16 bits: hashes that differ in 3 bits or fewer agree in one of them
NEAR_BITS = BANDS - 1
BLOCK = 1024  # images that threads are given at a time
SMALLEST = 32  # pixels: smaller images are so plain that different ones look the same
THUMBNAIL = 32
BLURRED = 8
# Two thumbnails that agree in the coarse and in the fine show the same picture. Of 179,000 pairs
# of different crops from two photographs none do; see docs/checks.md.
LEAST_CORRELATION = 0.95
LEAST_FINE_CORRELATION = 0.8

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Fingerprints:
    """Of N images.

    Attributes:
        digests: Of the pixels; equal for equal images, whatever their files, uint64, shape (N,).
            That two different of 10 million images have the same is less likely than 1 in 300,000.
        hashes: Difference hashes, uint64, shape (N,).
        telling: Whether the hash says anything: the image is not too small or of one colour.
        positions: Of the images in their source, shape (N,); unreadable ones are left out.
    """

    digests: npt.NDArray[np.uint64]
    hashes: npt.NDArray[np.uint64]
    telling: npt.NDArray[np.bool_]
    positions: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.positions)


def fingerprints(source: Source, *, workers: int = 1) -> Fingerprints:
    """Read all images of a source and keep 25 bytes of each."""
    digests, hashes = np.zeros((2, len(source)), dtype=np.uint64)
    telling, readable = np.zeros((2, len(source)), dtype=np.bool_)

    def keep(position: int) -> None:
        try:
            image = _as_image(source.load(position, "RGB").image)
        except UnreadableError:
            return
        bits = difference_bits(image)
        digests[position] = _digest(image)
        hashes[position] = int.from_bytes(np.packbits(bits).tobytes(), "big")
        telling[position] = min(image.size) >= SMALLEST and bits.any()
        readable[position] = True

    with ThreadPoolExecutor(workers, thread_name_prefix="fingerprint") as pool:
        for start in range(0, len(source), BLOCK):
            for _ in pool.map(keep, range(start, min(start + BLOCK, len(source)))):
                pass
    return Fingerprints(
        positions=np.flatnonzero(readable),
        digests=digests[readable],
        hashes=hashes[readable],
        telling=telling[readable],
    )


def _digest(image: Image.Image) -> int:
    size = repr(image.size).encode()
    return int.from_bytes(hashlib.blake2b(image.tobytes(), digest_size=8, key=size).digest(), "big")


def _as_image(image: Image.Image | torch.Tensor) -> Image.Image:
    if not isinstance(image, torch.Tensor):
        return image
    pixels = image.numpy()  # (C, H, W)
    return Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).convert(
        "RGB"
    )


def difference_bits(image: Image.Image) -> npt.NDArray[np.bool_]:
    """Return whether every pixel of a tiny grey copy is brighter than its left neighbour.

    Example:
        >>> difference_bits(Image.linear_gradient("L").rotate(90)).all()
        np.True_
    """
    grey = image.convert("L").resize((9, 8), Image.Resampling.BILINEAR)
    pixels = np.asarray(grey).astype(np.int16)
    return (pixels[:, 1:] > pixels[:, :-1]).ravel()


def look_alike(one: Image.Image | torch.Tensor, other: Image.Image | torch.Tensor) -> bool:
    """Whether two images show the same picture, perhaps recompressed, resized or without colour.

    Example:
        >>> noise = Image.effect_noise((64, 64), 60).convert("RGB")
        >>> look_alike(noise, noise.resize((48, 48))), look_alike(noise, noise.rotate(180))
        (True, False)
    """
    pairs = zip(_thumbnails(one), _thumbnails(other), strict=True)
    least = (LEAST_CORRELATION, LEAST_FINE_CORRELATION)
    return all(_correlation(*pair) >= limit for pair, limit in zip(pairs, least, strict=True))


def _thumbnails(image: Image.Image | torch.Tensor) -> tuple[Floats, Floats]:
    """Return a small grey copy, and what is finer in it than an eighth of its side."""
    size = (THUMBNAIL, THUMBNAIL)
    grey = _as_image(image).convert("L").resize(size, Image.Resampling.BILINEAR)
    coarse = grey.convert("F").resize((BLURRED, BLURRED), Image.Resampling.BOX)
    whole = np.asarray(grey).astype(np.float64)
    return whole, whole - np.asarray(coarse.resize(size, Image.Resampling.BILINEAR))


def _correlation(one: Floats, other: Floats) -> float:
    centred = one - one.mean(), other - other.mean()
    scale = np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum())
    return float((centred[0] * centred[1]).sum() / scale) if scale else 0.0
