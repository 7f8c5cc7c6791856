"""What a load found and did, as plain frozen data."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Under these names tools and tutorials keep the classes; the first two in order of the outputs,
# the third as a dict from name to output.
CLASS_KEYS = ("classes", "class_names", "class_to_idx")


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What was in a checkpoint, and how much of a model it filled."""

    path: str
    sha256: str  # of the file's bytes, hexadecimal
    kind: str  # of the file: "torch zip", "legacy torch" or "safetensors"
    container: tuple[str, ...]  # names at the top of the file; empty where they are the weights
    weights: str  # the set of weights that was loaded; "." is the file itself
    candidates: Mapping[str, float]  # every set of weights -> the share of the model it fits
    prefixes: tuple[str, ...]  # removed from the file's keys, such as "module."
    matched: tuple[str, ...]  # keys of the model
    missing: tuple[str, ...]  # keys of the model
    mismatched: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]  # key -> shapes file, model
    unexpected: tuple[str, ...]  # keys of the file
    matched_fraction: float  # share of the model's values that were loaded, in [0, 1]
    dtype_changes: Mapping[str, int]  # "float16 -> float32" -> number of tensors
    classes: tuple[str, ...] | None  # found in the file, in order of the model's outputs
    transform: Mapping[str, Any] | None  # found in the file
    model_spec: str | None  # found in the file
    warnings: tuple[str, ...]

    def summary(self) -> dict[str, Any]:
        """Return what the summary of an evaluation says of its checkpoint, ready for JSON."""
        return {
            "path": self.path,
            "sha256": self.sha256,
            "kind": self.kind,
            "container": self.weights,
            "candidates": dict(self.candidates),
            "prefixes": list(self.prefixes),
            "matched_fraction": self.matched_fraction,
            "missing": list(self.missing),
            "mismatched": list(self.mismatched),
            "unexpected": list(self.unexpected),
            "dtype_changes": dict(self.dtype_changes),
        }


def found_classes(tree: object) -> tuple[str, ...] | None:
    """Return the class names that a checkpoint carries, in order of the model's outputs.

    Example:
        >>> found_classes({"class_to_idx": {"dog": 1, "cat": 0}})
        ('cat', 'dog')
        >>> found_classes({"classes": 10}) is None
        True
    """
    for key in CLASS_KEYS:
        names = _ordered_names(found_value(tree, key))
        if names:
            return names
    return None


def found_value(tree: object, key: str) -> Any:
    """Return what a checkpoint holds under *key*, at its top or among its ``args``, or None."""
    if not isinstance(tree, Mapping):
        return None
    arguments = tree.get("args")
    places: list[Mapping[Any, Any]] = [tree]
    if isinstance(arguments, argparse.Namespace):
        places.append(vars(arguments))
    return next((place[key] for place in places if place.get(key) is not None), None)


def _ordered_names(value: object) -> tuple[str, ...] | None:
    if isinstance(value, Mapping):
        outputs = list(value.values())
        if sorted(outputs, key=str) != sorted(range(len(outputs)), key=str):
            return None
        value = sorted(value, key=value.__getitem__)
    if not isinstance(value, list | tuple) or len(set(map(str, value))) < len(value):
        return None
    return tuple(str(name) for name in value) if value else None
