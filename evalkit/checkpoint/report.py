"""What a load found and did, as plain frozen data."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evalkit.checkpoint.modules import module_attribute

# Under these names tools and tutorials keep the arguments of the run, and whole models.
PLACES = (
    *("args", "hyper_parameters", "config", "cfg", "opt", "hparams", "meta", "dataset_meta"),
    *("datamodule_hyper_parameters", "model", "ema"),
)

MAX_DEPTH = 3  # of what counts as a transform
MAX_ENTRIES = 100


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What was in a checkpoint, and how much of a model it filled."""

    path: str
    sha256: str  # of the file's bytes, hexadecimal
    kind: str  # of the file, such as "torch zip" or "safetensors"
    container: tuple[str, ...]  # names at the top of the file; empty where they are the weights
    weights: str  # the set of weights that was loaded; "." is the file itself
    candidates: Mapping[str, float]  # every set of weights -> the share of the model it fits
    prefixes: tuple[str, ...]  # removed from the file's keys, such as "module."
    model_prefixes: tuple[str, ...]  # what only the model's keys begin with
    matched: tuple[str, ...]  # keys of the model
    missing: tuple[str, ...]  # keys of the model
    mismatched: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]  # key -> shapes file, model
    unexpected: tuple[str, ...]  # keys of the file
    matched_fraction: float  # share of the model's values that were loaded, in [0, 1]
    dtype_changes: Mapping[str, int]  # "float16 -> float32" -> number of tensors
    head_size: int | None  # outputs of the last layer in the file
    classes: tuple[str, ...] | None  # found in the file, in order of the model's outputs
    transform: Mapping[str, Any] | None  # found in the file
    model_spec: str | None  # found in the file
    unknown_classes: tuple[str, ...]  # named in the file and neither imported nor run
    warnings: tuple[str, ...]
    guess: str | None = None  # why this model was chosen, where nobody named it

    def summary(self) -> dict[str, Any]:
        """Return what the summary of an evaluation says of its checkpoint, ready for JSON."""
        return {
            "path": self.path,
            "sha256": self.sha256,
            "kind": self.kind,
            "container": self.weights,
            "candidates": dict(self.candidates),
            "prefixes": list(self.prefixes),
            "model_prefixes": list(self.model_prefixes),
            "matched_fraction": self.matched_fraction,
            "missing": list(self.missing),
            "mismatched": list(self.mismatched),
            "unexpected": list(self.unexpected),
            "dtype_changes": dict(self.dtype_changes),
            "head_size": self.head_size,
            "unknown_classes": list(self.unknown_classes),
            "guess": self.guess,
        }


def found_value(tree: object, key: str) -> Any:
    """Return what a checkpoint holds under *key*, or None.

    Looked at are its top, what it keeps of its arguments, and modules that were pickled whole.
    """
    places = [tree]
    if isinstance(tree, Mapping):
        places += [tree[name] for name in PLACES if name in tree]
    found = (value_in(place, key) for place in places)
    return next((value for value in found if value is not None), None)


def plain_dict_of(value: object) -> dict[str, Any] | None:
    """Return a copy of a dict if it is small and holds numbers, text, lists and dicts alone.

    Example:
        >>> plain_dict_of({"resize": 256, "mean": (0.5,)})
        {'resize': 256, 'mean': [0.5]}
        >>> plain_dict_of({"crop": object()}) is None
        True
    """
    try:
        found = _plain(value, MAX_DEPTH)
    except TypeError:
        return None
    return found if isinstance(found, dict) else None


def _plain(value: object, depth: int) -> Any:
    """Return a plain copy.

    Raises:
        TypeError: There is something else in it, or too much.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping | list | tuple) and depth and len(value) <= MAX_ENTRIES:
        if isinstance(value, Mapping):
            return {str(key): _plain(inner, depth - 1) for key, inner in value.items()}
        return [_plain(inner, depth - 1) for inner in value]
    raise TypeError(f"{type(value).__name__} in plain values")


def value_in(place: object, key: str) -> Any:
    """Return what a dict, a Namespace or a module holds under *key*, or None."""
    if isinstance(place, argparse.Namespace):
        place = vars(place)
    if isinstance(place, Mapping):
        return place.get(key)
    return module_attribute(place, key)
