"""Names of a model's outputs, in their order, from what people keep them in."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterator, KeysView, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import product
from typing import Any

from evalkit.errors import InputError

_NAMES, _INDICES = ("class", "label"), ("idx", "id", "index")
_TO = ("2", "_to_")
# Dicts under these names lead from name to output ("class_to_idx"), or back ("id2label").
TO_OUTPUT = tuple(f"{name}{to}{index}" for name, to, index in product(_NAMES, _TO, _INDICES))
TO_NAME = tuple(f"{index}{to}{name}" for name, to, index in product(_NAMES, _TO, _INDICES))


def names_in_order(value: object, key: str = "") -> tuple[str, ...] | None:
    """Return the names of all outputs, or None where it is no name for each, once and in order.

    Args:
        value: Names in their order, or a dict from name to output or from output to name; numbers
            are names as well.
        key: Under which it was found. A dict between numbers has two readings, of which some keys
            tell the right one.

    Example:
        >>> names_in_order({"dog": 1, "cat": 0}), names_in_order({"0": "cat", "1": "dog"})
        (('cat', 'dog'), ('cat', 'dog'))
        >>> names_in_order({2: 0, 0: 1, 1: 2}, "class_to_idx"), names_in_order({2: 0, 0: 1, 1: 2})
        (('2', '0', '1'), None)
        >>> names_in_order({"cat", "dog"}) is None
        True
    """
    if isinstance(value, Mapping):
        return _of_dict(value, key)
    if hasattr(value, "tolist"):  # of NumPy, pandas and torch
        value = value.tolist()
    if not isinstance(value, Sequence) or isinstance(value, str | bytes | bytearray):
        return None
    names = [_text(one) for one in value]
    found = tuple(name for name in names if name is not None)
    return found if found and len(found) == len({*names}) == len(names) else None


def names_given(classes: Any) -> tuple[str, ...]:
    """Return the names of all outputs as a user gave them, see `names_in_order`.

    Raises:
        InputError: There is not one name for every output.

    Example:
        >>> names_given({"dog": 1, "cat": 0})
        ('cat', 'dog')
    """
    if isinstance(classes, Iterator | KeysView):  # both have an order
        classes = list(classes)
    is_one = isinstance(classes, str | bytes) or not isinstance(classes, Collection)
    if (is_one and not hasattr(classes, "tolist")) or isinstance(classes, AbstractSet):
        raise InputError(
            "classes must be a list of names, one for each output of the model, in their order, "
            f"got {classes!r}"
        )
    if isinstance(classes, Mapping):
        names = names_in_order(classes)
        if names is None:
            raise InputError(
                "classes must name every output once, from 0 on, in a dict from name to output, "
                f"got {classes!r}"
            )
        return names
    listed = [*(classes.tolist() if hasattr(classes, "tolist") else classes)]
    names = names_in_order(listed)
    if names is None and listed:
        texts = [_text(one) for one in listed]
        if None in texts:
            wrong = listed[texts.index(None)]
            raise InputError(f"classes must be names, got {wrong!r} of {type(wrong).__name__}")
        raise InputError(f"classes must differ from each other, got {listed}")
    return names or ()


def contradict(one: Sequence[str], other: Sequence[str]) -> list[str]:
    """Return the names that two lists give to different outputs.

    Example:
        >>> contradict(["cat", "dog", "yak"], ["dog", "cat", "eel"])
        ['cat', 'dog']
    """
    position = {name: number for number, name in enumerate(other)}
    return [name for number, name in enumerate(one) if position.get(name, number) != number]


def _of_dict(value: Mapping[Any, Any], key: str) -> tuple[str, ...] | None:
    by_value = _sorted_by(list(value.values()), list(value))
    by_key = _sorted_by(list(value), list(value.values()))
    if key in TO_NAME:
        return by_key or by_value
    if by_key and by_value and by_key != by_value and key not in TO_OUTPUT:
        return None
    return by_value or by_key


def _sorted_by(outputs: Sequence[object], names: Sequence[object]) -> tuple[str, ...] | None:
    numbers = [_number(one) for one in outputs]
    if {*numbers} != {*range(len(numbers))}:
        return None
    at = dict(zip(numbers, names, strict=True))
    return names_in_order([at[number] for number in range(len(numbers))])


def _number(value: Any) -> int | None:
    """Return a whole number from one of any library, or from text, as JSON has its keys."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return int(value) if value.isdecimal() else None
    try:
        value = value.item() if hasattr(value, "item") else value
    except (RuntimeError, ValueError):  # a tensor or an array of several
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int) else None


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return None
    try:
        return str(value if isinstance(value, bool) else operator.index(value))
    except TypeError:
        return None
