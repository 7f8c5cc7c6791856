"""The names of the classes in a checkpoint, wherever it keeps them."""

from __future__ import annotations

import argparse
import reprlib
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch

from evalkit.checkpoint.harmless import PlainArray
from evalkit.checkpoint.inert import Inert
from evalkit.checkpoint.report import PLACES, value_in
from evalkit.output_names import TO_NAME, TO_OUTPUT, contradict, names_in_order
from evalkit.wording import some

# Under these names classes are kept and nothing else is: in order of the outputs, as a dict from
# output to name, or as one from name to output. A model of Hugging Face that was given its names as
# the former has the latter of another one, or LABEL_0, LABEL_1, ….
SAY_CLASSES = ("classes", "class_names", "CLASSES", *TO_NAME, *TO_OUTPUT)
# Under these the labels of samples, or names of columns, as well.
CLASS_KEYS = (*SAY_CLASSES, "names", "label_names", "labels")
# Where the arguments of a run keep those of its data and its model.
INNER_PLACES = ("data", "dataset", "datamodule", "model")


@dataclass(frozen=True, kw_only=True)
class StoredClasses:
    """What a checkpoint says of its classes.

    Attributes:
        names: In order of the model's outputs; None where it names none, or not all.
        fault: How it names them where no output can be told from it.
        doubts: What else it says that contradicts the names.
    """

    names: tuple[str, ...] | None = None
    fault: str | None = None
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Told:
    key: str
    value: object
    names: tuple[str, ...] | None

    def __str__(self) -> str:
        value = self.value
        if isinstance(value, Inert | PlainArray):
            what = value.path if isinstance(value, Inert) else "numpy.ndarray"
            return f"{self.key}, an object of {what}"
        return f"{self.key}={reprlib.repr(value)}"

    def contradicts(self, other: _Told) -> bool:
        is_clear = self.key in SAY_CLASSES and other.key in SAY_CLASSES
        return is_clear and bool(contradict(self.names or (), other.names or ()))


def found_classes(tree: object) -> tuple[str, ...] | None:
    """Return the class names that a checkpoint carries, in order of the model's outputs.

    Example:
        >>> found_classes({"class_to_idx": {"dog": 1, "cat": 0}})
        ('cat', 'dog')
        >>> found_classes({"names": {0: "cat", 1: "dog"}})
        ('cat', 'dog')
        >>> found_classes({"classes": 10}) is None
        True
    """
    return stored_classes(tree).names


def stored_classes(tree: object) -> StoredClasses:
    """Find the class names in a checkpoint: at its top, in its arguments, in parts of these.

    What is nearer to the top comes first. Names that contradict each other in the same depth leave
    no choice.

    Example:
        >>> stored_classes({"class_to_idx": {"dog": 1, "cat": 2}}).fault
        "class_to_idx={'cat': 2, 'dog': 1}"
        >>> stored_classes({"classes": ["cat", "cat"]}).fault
        "classes=['cat', 'cat']"
        >>> stored_classes({"classes": ["a", "b"], "class_to_idx": {"b": 0, "a": 1}}).fault
        "classes=['a', 'b'], but class_to_idx={'a': 1, 'b': 0}"
    """
    levels = [[*_told(places)] for places in _places(tree)]
    for depth, level in enumerate(levels):
        named = [one for one in level if one.names]
        if not named:
            continue
        for one, other in combinations(named, 2):
            if one.contradicts(other):
                return StoredClasses(fault=f"{one}, but {other}")
        chosen = named[0]
        deeper = [one for further in levels[depth + 1 :] for one in further if one.names]
        others = [str(one) for one in deeper if one.contradicts(chosen)]
        doubt = f"the checkpoint names its classes in two orders: {chosen} was taken, not "
        return StoredClasses(names=chosen.names, doubts=(doubt + some(others),) if others else ())
    unusable = (one for level in levels for one in level if one.key in SAY_CLASSES)
    fault = next((str(one) for one in unusable if _names_some(one.value)), None)
    return StoredClasses(fault=fault)


def _places(tree: object) -> Iterator[list[object]]:
    """Yield the places where names may be, by depth."""
    yield [tree]
    arguments = [place for name in PLACES if (place := _entry(tree, name)) is not None]
    yield arguments
    yield [
        inner
        for place in arguments
        for name in INNER_PLACES
        if (inner := _entry(place, name)) is not None
    ]


def _entry(place: object, name: str) -> Any:
    if isinstance(place, argparse.Namespace):
        place = vars(place)
    return place.get(name) if isinstance(place, Mapping) else None


def _are_numbers(value: object, names: tuple[str, ...] | None) -> bool:
    """Whether a list counts the outputs and does not name them, as ``np.unique(labels)`` does."""
    counted = names == tuple(map(str, range(len(names or ()))))
    return counted and isinstance(value, list) and not any(isinstance(one, str) for one in value)


def _told(places: list[object]) -> Iterator[_Told]:
    for key in CLASS_KEYS:
        for place in places:
            value = value_in(place, key)
            if value is None or isinstance(value, torch.Tensor):  # a buffer of that name
                continue
            value = _plain(value, key)
            names = names_in_order(value, key)
            if not _are_numbers(value, names):
                yield _Told(key, value, names)


def _plain(value: object, key: str) -> object:
    """Return arrays of NumPy and pandas as lists, but for what is not known of them."""
    kinds = "iuSUO" if key in SAY_CLASSES else "SUO"  # numbers may be the labels of samples
    if isinstance(value, PlainArray):
        if value.text is not None:
            return value.text
        value = value.value if value.value is not None else value
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if isinstance(value, np.ndarray) and kind not in kinds:
        return None
    return value.tolist() if hasattr(value, "tolist") else value


def _names_some(value: object) -> bool:
    """Whether somebody meant to name classes."""
    if isinstance(value, Inert | PlainArray):
        return True
    if isinstance(value, str):
        return any(separator in value for separator in ",;\n")
    if isinstance(value, Mapping):
        return _hold_text([*value, *value.values()])
    return isinstance(value, list | tuple | AbstractSet) and _hold_text([*value])


def _hold_text(values: list[Any]) -> bool:
    return any(
        isinstance(one, str | bytes) or (isinstance(one, list | tuple) and _hold_text([*one]))
        for one in values
    )
