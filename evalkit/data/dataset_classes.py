"""Which classes a torch Dataset has, and which of them a label is."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import ConcatDataset, Subset

from evalkit.errors import InputError
from evalkit.output_names import contradict, names_in_order
from evalkit.wording import some


@dataclass(frozen=True, kw_only=True)
class Classes:
    """The classes of a Dataset."""

    names: tuple[str, ...]  # by the position that labels give
    doubts: tuple[str, ...] = ()
    are_numbers: bool = False  # whether a label that is a number may be a name instead


def classes_of(spec: str, dataset: Any) -> Classes:
    """Return the classes of a Dataset, or of all those that it is put together of.

    Raises:
        InputError: It has none, or they are ambiguous.
    """
    first, *others = [_own_classes(spec, part) for part in _parts(dataset)]
    if other := next((one.names for one in others if one.names != first.names), None):
        raise InputError(
            "data must be put together of Datasets with the same classes in the same order, got "
            f"{some(first.names)} and {some(other)} in '{spec}'"
        )
    return first


def _parts(dataset: Any) -> Iterator[Any]:
    """Yield what has the classes: a Dataset itself, or those that it takes its samples from."""
    inner: Sequence[Any] = ()
    if all(getattr(dataset, name, None) is None for name in ("classes", "class_to_idx")):
        if isinstance(dataset, Subset):
            inner = (dataset.dataset,)
        elif isinstance(dataset, ConcatDataset):
            inner = dataset.datasets
    if not inner:
        yield dataset
    for one in inner:
        yield from _parts(one)


def _own_classes(spec: str, dataset: Any) -> Classes:
    listed, by_name = (getattr(dataset, name, None) for name in ("classes", "class_to_idx"))
    named = names_in_order(by_name, "class_to_idx") if isinstance(by_name, Mapping) else None
    names = names_in_order(listed, "classes")
    if names is None and isinstance(listed, list | tuple):
        names = tuple(map(str, listed))  # such as the tuples of torchvision's ImageNet
        if twice := sorted(name for name, times in Counter(names).items() if times > 1):
            raise InputError(
                f"data must have classes of different names, got {some(twice)} more than once in "
                f"the classes of '{spec}': tell them apart"
            )
    if not (names or named):
        raise InputError(
            f"data must be a Dataset with the names of its classes in its attribute classes, got "
            f"'{spec}' without: set it"
        )
    if named is None or names is None:
        are_numbers = named is None and not any(
            isinstance(one, str) for one in (() if listed is None else listed)
        )
        return Classes(names=names or named or (), are_numbers=are_numbers)
    if not contradict(names, named):
        return Classes(names=names)
    if {*names} != {*named}:
        raise InputError(
            f"data must have classes and class_to_idx that agree, got {some(names)} and "
            f"{some(named)} in '{spec}'"
        )
    return Classes(  # as torchvision takes the labels of its folders
        names=named,
        doubts=(
            f"classes and class_to_idx of {spec} have different orders: labels were read by "
            f"class_to_idx, {some(named, shown=3)}",
        ),
    )


def label_of(told: Any, classes: Classes) -> str | None:
    """Return the name of a class from a name or a position; None where it is neither.

    Raises:
        InputError: It may be either, of different classes.
    """
    names = classes.names
    if isinstance(told, str):
        return told
    position = _whole(told)
    if position is None:
        return str(told) if str(told) in names else None
    by_position = names[position] if 0 <= position < len(names) else None
    by_name = str(position) if classes.are_numbers and str(position) in names else None
    if by_position is not None and by_name is not None and by_position != by_name:
        raise InputError(
            "data must tell whether labels are positions or names of its classes "
            f"{some(names)}, got the label {position}, which is both: set class_to_idx, or classes "
            "that are text"
        )
    return by_position if by_name is None else by_name


def _whole(told: Any) -> int | None:
    """Return a whole number, of Python, NumPy or torch, and None for anything else."""
    try:
        value = told.item() if hasattr(told, "item") else told
        is_whole = isinstance(value, float) and value == int(value)
        return operator.index(int(value) if is_whole else value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None
