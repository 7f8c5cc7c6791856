"""The built-in data set: 1,797 handwritten digits, and their split into two folders of images."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = tuple("0123456789")
INK = 16  # the darkest value in the file
VALIDATION_SHARE = 0.2
SPLITS = ("train", "val")

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class Digits:
    """N digits in the order of their source, see SOURCE.md."""

    images: Bytes  # 0 black to 255 white, shape (N, 8, 8)
    labels: Bytes  # 0 to 9, shape (N,)


def load_digits() -> Digits:
    """Return the digits that come with evalkit, scaled to the 256 levels of an image file.

    Example:
        >>> digits = load_digits()
        >>> digits.images.shape, np.bincount(digits.labels).min()
        ((1797, 8, 8), np.int64(174))
    """
    file = resources.files("evalkit.demo") / "digits.npz"
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
        scaled = np.rint(stored["images"] * (255 / INK)).astype(np.uint8)
        return Digits(images=scaled, labels=stored["labels"])


def split(labels: Bytes, *, seed: int) -> dict[str, list[int]]:
    """Divide samples into training and validation, each class in the same proportion.

    Args:
        labels: Shape (N,).
        seed: Decides which samples go where.

    Returns:
        Positions under "train" and "val", in rising order; together each position once.

    Example:
        >>> split(np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1], np.uint8), seed=0)
        {'train': [0, 1, 3, 4, 5, 6, 7, 8], 'val': [2, 9]}
    """
    generator = np.random.default_rng(seed)
    held_out: set[int] = set()
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        held_out.update(members[: round(len(members) * VALIDATION_SHARE)].tolist())
    positions = range(len(labels))
    return {
        "train": [position for position in positions if position not in held_out],
        "val": sorted(held_out),
    }


def file_names(labels: Bytes, *, seed: int) -> dict[str, int]:
    """Return the path of every image below the demonstration's folder -> its position.

    Example:
        >>> file_names(np.array([7], np.uint8), seed=0)
        {'train/7/0000.png': 0}
    """
    return {
        f"{name}/{CLASSES[labels[position]]}/{position:04}.png": position
        for name, positions in split(labels, seed=seed).items()
        for position in positions
    }


def write_images(root: Path, digits: Digits, *, seed: int) -> None:
    """Write all digits as PNG files into ``train/`` and ``val/`` below *root*."""
    from PIL import Image

    for name, position in file_names(digits.labels, seed=seed).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits.images[position]).save(path)
