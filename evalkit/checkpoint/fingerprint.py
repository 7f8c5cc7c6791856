"""What tells architectures apart: names and shapes of tensors, hashed; and the shipped index."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources

INDEX = "fingerprints.json"
COUNTER = "num_batches_tracked"  # came with torch 0.4.1: files may have it or not
SKETCH_LENGTH = 8  # hashes kept of each architecture, the smallest ones
SKETCH_DIGITS = 8

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Models that have the same tensors, whatever their number of classes."""

    names: str  # hash of all names
    shapes: str  # hash of all names and shapes but those of the head
    head: tuple[tuple[str, int], ...]  # key, and which of its dimensions is the number of classes
    groups: tuple[tuple[str, ...], ...]  # specs; those of one group compute the same
    sketch: tuple[str, ...]

    def fits(self, shapes: Shapes) -> bool:
        """Whether tensors of these names, which are its own, have its shapes as well."""
        return shapes_hash(shapes, without={key for key, _axis in self.head}) == self.shapes

    def num_classes(self, shapes: Shapes) -> int | None:
        """Return the number of classes that the head has in these shapes, or None without one."""
        sizes = {shapes[key][axis] for key, axis in self.head}
        return sizes.pop() if len(sizes) == 1 else None

    @property
    def specs(self) -> list[str]:
        """All models of this architecture, in order of the index."""
        return [spec for group in self.groups for spec in group]


def names_hash(shapes: Shapes) -> str:
    """Return what all files of one architecture have in common, in any number of classes.

    Example:
        >>> names_hash({"fc.weight": (2, 4)}) == names_hash({"fc.weight": (3, 4)})
        True
    """
    return _digest(sorted(_relevant(shapes)))[:16]


def shapes_hash(shapes: Shapes, *, without: Iterable[str]) -> str:
    """Return the hash of names and shapes, but those *without*, which is the head."""
    left_out = set(without)
    body = (f"{key}{tuple(shapes[key])}" for key in _relevant(shapes) if key not in left_out)
    return _digest(sorted(body))[:16]


def sketch(shapes: Shapes) -> tuple[str, ...]:
    """Return the smallest hashes of single tensors: similar sets of tensors share many of them."""
    hashes = (_digest([f"{key}{tuple(shapes[key])}"]) for key in _relevant(shapes))
    return tuple(sorted(one[:SKETCH_DIGITS] for one in hashes)[:SKETCH_LENGTH])


@functools.cache
def architectures() -> tuple[Architecture, ...]:
    """Return the index that is shipped: all of torchvision and timm, made by build_index.py."""
    text = resources.files(__package__).joinpath(INDEX).read_text(encoding="utf-8")
    return tuple(
        Architecture(
            names=names,
            shapes=shapes,
            head=tuple((key, axis) for key, axis in head),
            groups=tuple(tuple(group) for group in groups),
            sketch=tuple(
                together[start : start + SKETCH_DIGITS]
                for start in range(0, len(together), SKETCH_DIGITS)
            ),
        )
        for names, shapes, head, groups, together in json.loads(text)["architectures"]
    )


def _relevant(shapes: Shapes) -> list[str]:
    return [key for key in shapes if not key.endswith(COUNTER)]


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
