"""Counting: which class was given to the samples of which class."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from evalkit.errors import InputError
from evalkit.wording import counted

# Keys are made and counted this many at a time. Smaller blocks pay too often for adding up all
# cells (1 << 18: 61 ms for 10 million labels of 1,000 classes, 1 << 20: 39 ms), larger ones are
# no quicker and take 8 bytes per sample.
BLOCK = 1 << 20
SHOWN = 5  # how many offending values a message quotes

Codes = npt.NDArray[np.integer[Any]]


def confusion_matrix(
    labels: Iterable[Any], predictions: Iterable[Any], classes: int | Iterable[Hashable]
) -> pd.DataFrame:
    """Count the samples of every true class that were given every class.

    Classes are names or integers, and what *labels* and *predictions* hold are the classes
    themselves:

    - ``classes=["cat", "dog"]``: both hold these names. Categorical columns with these names are
      counted through their codes, which is as quick as integers are. Integers are refused here,
      because a position in a list of names depends on how somebody sorted it; say which list is
      meant with ``pd.Categorical.from_codes(positions, classes)``.
    - ``classes=[10, 20, 30]``: both hold these integers.
    - ``classes=1000``: short for ``range(1000)``, the output of a network. The quick path.

    Args:
        labels: True class of every sample, shape (N,).
        predictions: Class that was given to every sample, shape (N,).
        classes: The C classes in the order of the axes, or how many there are.

    Returns:
        Counts (int64), shape (C, C): rows are true classes (index ``true``), columns the given
        ones (columns ``predicted``). A class without samples has a row of zeros; without any
        samples all of it is zeros.

    Raises:
        InputError: The two differ in length, hold missing values or anything but *classes* (the
            message counts these and shows the first), or *classes* are not different names or
            different integers.

    Example:
        >>> confusion_matrix(["cat", "cat", "dog"], ["cat", "dog", "dog"], ["cat", "dog"])
        predicted  cat  dog
        true
        cat          1    1
        dog          0    1
    """
    axis = class_index(classes)
    true, given = coded_pairs(labels, predictions, axis)
    return as_frame(count_pairs(true, given, len(axis)), axis)


def coded_pairs(
    labels: Iterable[Any], predictions: Iterable[Any], axis: pd.Index[Any]
) -> tuple[Codes, Codes]:
    """Positions in *axis* of the classes of all samples, as `confusion_matrix` understands them.

    Raises:
        InputError: As for `confusion_matrix`.
    """
    values = {"labels": labels, "predictions": predictions}
    codes = {name: _codes(name, given, axis) for name, given in values.items()}
    if codes["labels"].size != codes["predictions"].size:
        raise InputError(
            "labels and predictions must be equally many, "
            f"got {counted(codes['labels'].size, 'label')} and "
            f"{counted(codes['predictions'].size, 'prediction')}"
        )
    _refuse_strangers(values, codes, axis)
    return codes["labels"], codes["predictions"]


def class_index(classes: int | Iterable[Hashable]) -> pd.Index[Any]:
    """Both axes of a confusion matrix; how `confusion_matrix` understands *classes*."""
    if isinstance(classes, int | np.integer) and not isinstance(classes, bool):
        if classes < 1:
            raise InputError(f"classes must be at least 1, got {classes}")
        return pd.RangeIndex(int(classes))
    if isinstance(classes, str | bytes) or not isinstance(classes, Iterable):
        raise InputError(f"classes must be a number or a list of classes, got {classes!r}")
    names = list(classes)
    kind = pd.api.types.infer_dtype(_objects(names), skipna=False)
    if kind not in {"string", "integer"}:
        raise InputError(
            f"classes must be names or integers, at least one and all of one kind, "
            f"got {kind}: {_quote(names) or 'no classes'}"
        )
    if kind == "integer" and names == list(range(len(names))):
        return pd.RangeIndex(len(names))
    axis = _index("classes", names)
    if axis.has_duplicates:
        twice = axis[axis.duplicated()].unique()
        raise InputError(f"classes must differ from each other, got {_quote(twice)} more than once")
    return axis


def count_pairs(labels: Codes, predictions: Codes, n_classes: int) -> npt.NDArray[np.int64]:
    """Count pairs of positions.

    Args:
        labels: True classes as positions in [0, *n_classes*), shape (N,). Not checked here.
        predictions: Given classes in the same way, shape (N,).
        n_classes: C.

    Returns:
        Counts, shape (C, C), rows true, columns given.

    Example:
        >>> count_pairs(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)
        array([[1, 1],
               [0, 1]])
    """
    cells = n_classes * n_classes
    block = max(BLOCK, cells)  # a block pays for one pass over all cells
    buffer = np.empty(min(block, labels.size), dtype=np.int64)
    counts = np.zeros(0, dtype=np.int64)
    for start in range(0, labels.size, block):
        keys = buffer[: labels.size - start]
        part = slice(start, start + block)
        # In int64 whatever came in: 200 * 10 + 3 is 211 in uint8.
        np.multiply(labels[part], n_classes, out=keys, dtype=np.int64, casting="unsafe")
        np.add(keys, predictions[part], out=keys, dtype=np.int64, casting="unsafe")
        block_counts = np.bincount(keys, minlength=cells)
        counts = np.add(counts, block_counts, out=counts) if counts.size else block_counts
    if not counts.size:
        counts = np.zeros(cells, dtype=np.int64)
    return counts.reshape(n_classes, n_classes)


def as_frame(counts: npt.NDArray[np.int64], axis: pd.Index[Any]) -> pd.DataFrame:
    """Put the class names on both axes of counts of shape (C, C)."""
    return pd.DataFrame(
        counts, index=axis.rename("true"), columns=axis.rename("predicted"), copy=False
    )


def _codes(name: str, values: Any, axis: pd.Index[Any]) -> Codes:
    """Positions of *values* in *axis*, anything outside [0, C) for what is not there."""
    if isinstance(getattr(values, "dtype", None), pd.CategoricalDtype):
        coded = pd.Categorical(values)
        _refuse_missing(name, coded.codes < 0)
        codes: Codes = coded.codes
        if coded.categories.equals(axis):
            return codes
        return _codes(name, coded.categories, axis).astype(np.int64)[codes]
    array = _as_array(name, values)
    integers = array.dtype.kind in "iu"
    if array.size and integers != (axis.dtype.kind in "iu"):
        what = "integers" if integers else "names"
        wanted = "names" if integers else "integers"
        hint = (
            "; integers are never read as positions: "
            f"use classes={len(axis)}, or pd.Categorical.from_codes({name}, classes)"
        )
        raise InputError(
            f"{name} must be {wanted} as the classes are ({_quote(axis)}), "
            f"got {what} ({_quote(array)}){hint if integers else ''}"
        )
    if integers and isinstance(axis, pd.RangeIndex):
        return array
    positions: Codes = axis.get_indexer(_index(name, array))
    return positions


def _as_array(name: str, values: Any) -> npt.NDArray[Any]:
    """*values* as an array of integers or of strings without gaps, shape (N,)."""
    is_plain = isinstance(values, Sequence) and not isinstance(values, str | bytes | range)
    array = _objects(values) if is_plain else np.asarray(values)
    if array.ndim != 1:
        hint = f": use {name}.argmax(axis=1) if these are scores" if array.ndim > 1 else ""
        raise InputError(f"{name} must have one dimension, got shape {array.shape}{hint}")
    if array.dtype.kind in "iu":
        return array if array.dtype.isnative else array.astype(np.int64)
    if not array.size:
        return array.astype(np.int64)
    _refuse_missing(name, pd.isna(array))
    kind = pd.api.types.infer_dtype(array, skipna=False)
    if kind not in {"string", "integer"}:
        raise InputError(
            f"{name} must be class names or integers, got {kind} ({_quote(array)}): "
            "convert them first, for example with .astype(int)"
        )
    if kind == "string":
        return array
    try:
        return array.astype(np.int64)
    except OverflowError as error:
        raise InputError(
            f"{name} must be integers of 64 bits, got {max(array, key=abs)}"
        ) from error


def _index(name: str, values: Any) -> pd.Index[Any]:
    try:
        index: pd.Index[Any] = pd.Index(values)
    except UnicodeEncodeError as error:  # from file names that are not UTF-8
        raise InputError(
            f"{name} must be text that UTF-8 can hold, got {error.object!r}: rename it"
        ) from error
    return index


def _objects(values: Sequence[Any]) -> npt.NDArray[np.object_]:
    """A list as it is: np.asarray([1, "cat"]) would make the 1 a string without a word."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _refuse_missing(name: str, missing: npt.NDArray[np.bool_]) -> None:
    if missing.any():
        raise InputError(
            f"{name} must give a class for every sample, got "
            f"{counted(int(missing.sum()), 'missing value')} in {missing.size}, "
            f"the first at position {int(missing.argmax())}"
        )


def _refuse_strangers(
    values: Mapping[str, Any], codes: Mapping[str, Codes], axis: pd.Index[Any]
) -> None:
    faults = []
    for name, code in codes.items():
        if not code.size or _unsigned(code).max() < len(axis):
            continue
        outside = _unsigned(code) >= len(axis)
        strangers = np.asarray(values[name], dtype=object)[outside]
        faults.append(f"{strangers.size} of {code.size} {name} ({_quote(strangers)})")
    if faults:
        raise InputError(
            f"labels and predictions must be among the {counted(len(axis), 'class', 'classes')} "
            f"({_quote(axis)}), got others: {' and '.join(faults)}; add them to classes or correct "
            "them"
        )


def _unsigned(codes: Codes) -> npt.NDArray[np.unsignedinteger[Any]]:
    """The same bits without a sign: negative numbers become huge, so that one check will do."""
    return codes.view(f"u{codes.dtype.itemsize}")


def _quote(values: Iterable[Any]) -> str:
    """The first few values as Python writes them."""
    first = list(islice(values, SHOWN + 1))
    shown = [repr(value.item() if isinstance(value, np.generic) else value) for value in first]
    return ", ".join(shown[:SHOWN]) + (", ..." if len(shown) > SHOWN else "")
