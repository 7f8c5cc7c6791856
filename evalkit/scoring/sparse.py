"""Counts of pairs of classes where a square matrix would be mostly zeros."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from evalkit.errors import InputError
from evalkit.scoring.confusion import BLOCK, as_frame, class_index, coded_pairs
from evalkit.wording import counted

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

DENSE_CLASSES = 10_000  # their matrix takes 800 MB; that of 100,000 would take 80 GB

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SparseConfusion:
    """The non-zero cells of a confusion matrix; those of several shares add up with ``+``.

    Attributes:
        labels: True class of every cell as a position in *classes*, shape (K,), ascending.
        predictions: Given class of every cell in the same way, shape (K,), ascending within a
            label.
        counts: Samples of every cell, shape (K,), none of them 0.
        classes: The C classes in their order.

    Example:
        >>> first = sparse_confusion(["cat", "cat"], ["cat", "dog"], ["cat", "dog"])
        >>> both = first + sparse_confusion(["dog"], ["dog"], ["cat", "dog"])
        >>> both.to_frame()
        predicted  cat  dog
        true
        cat          1    1
        dog          0    1
    """

    labels: Integers
    predictions: Integers
    counts: Integers
    classes: pd.Index[Any]

    def __len__(self) -> int:
        """How many classes there are, C."""
        return len(self.classes)

    def __add__(self, other: SparseConfusion) -> SparseConfusion:
        if not self.classes.equals(other.classes):
            raise InputError(
                "confusions that are added must have the same classes in the same order, got "
                f"{len(self)} from {self.classes[:1].tolist()} and "
                f"{len(other)} from {other.classes[:1].tolist()}"
            )
        keys = np.concatenate([self._keys(), other._keys()])
        return _of_keys(keys, np.concatenate([self.counts, other.counts]), self.classes)

    @property
    def samples(self) -> int:
        """How many samples were counted, N."""
        return int(self.counts.sum())

    @property
    def hits(self) -> Integers:
        """Samples of every class that were given it, shape (C,)."""
        right = self.labels == self.predictions
        return self._per_class(self.labels[right], self.counts[right])

    @property
    def support(self) -> Integers:
        """Samples of every class, shape (C,)."""
        return self._per_class(self.labels, self.counts)

    @property
    def predicted(self) -> Integers:
        """Samples that were given every class, shape (C,)."""
        return self._per_class(self.predictions, self.counts)

    def to_frame(self) -> pd.DataFrame:
        """The square matrix, shape (C, C), as `evalkit.confusion_matrix` returns it."""
        counts = np.zeros((len(self), len(self)), dtype=np.int64)
        counts[self.labels, self.predictions] = self.counts
        return as_frame(counts, self.classes)

    def to_long(self) -> pd.DataFrame:
        """One row per non-zero cell with the columns ``true``, ``predicted`` and ``count``."""
        names = self.classes
        return pd.DataFrame(
            {
                "true": names.take(self.labels),
                "predicted": names.take(self.predictions),
                "count": self.counts,
            }
        )

    def _keys(self) -> Integers:
        return self.labels * len(self) + self.predictions

    def _per_class(self, positions: Integers, counts: Integers) -> Integers:
        sums = np.zeros(len(self), dtype=np.int64)
        np.add.at(sums, positions, counts)  # bincount would add floats, which end at 2**53
        return sums


def sparse_confusion(
    labels: Iterable[Any], predictions: Iterable[Any], classes: int | Iterable[Hashable]
) -> SparseConfusion:
    """Count samples like `evalkit.confusion_matrix`, in memory for what occurs.

    Args:
        labels: True class of every sample, shape (N,).
        predictions: Given class of every sample, shape (N,).
        classes: The C classes in their order, or how many there are.

    Returns:
        At most N cells: 100,000 classes and 10 million samples take 240 MB.

    Raises:
        InputError: As for `evalkit.confusion_matrix`.

    Example:
        >>> sparse_confusion([0, 0, 99_999], [0, 1, 99_999], 100_000).counts
        array([1, 1, 1])
    """
    axis = class_index(classes)
    true, given = coded_pairs(labels, predictions, axis)
    found = of_pairs(true[:0], given[:0], axis)
    block = max(BLOCK, true.size // 8)  # every block is merged into all cells found before
    for start in range(0, true.size, block):
        part = slice(start, start + block)
        found = found + of_pairs(true[part], given[part], axis)
    return found


def of_pairs(labels: Any, predictions: Any, classes: pd.Index[Any]) -> SparseConfusion:
    """Count pairs of positions in *classes*, which are not checked here."""
    keys = np.asarray(labels).astype(np.int64) * len(classes)
    keys += np.asarray(predictions).astype(np.int64)
    return _of_keys(keys, np.ones(keys.size, dtype=np.int64), classes)


def of_cells(
    labels: Integers, predictions: Integers, counts: Integers, classes: pd.Index[Any]
) -> SparseConfusion:
    """Bring cells into order and add up those that are there more than once."""
    return _of_keys(labels * len(classes) + predictions, counts, classes)


def of_frame(confusion: pd.DataFrame) -> SparseConfusion:
    """The non-zero cells of a confusion matrix.

    Raises:
        InputError: The axes do not name the same classes in the same order, or it holds anything
            but counts.

    Example:
        >>> of_frame(pd.DataFrame([[3, 1], [0, 0]], ["cat", "dog"], ["cat", "dog"])).counts
        array([3, 1])
    """
    counts = counts_of(confusion)
    labels, predictions = np.nonzero(counts)
    return SparseConfusion(labels, predictions, counts[labels, predictions], confusion.index)


def counts_of(confusion: pd.DataFrame) -> Integers:
    """The counts of a confusion matrix, shape (C, C).

    Raises:
        InputError: As for `of_frame`.
    """
    if not confusion.index.equals(confusion.columns):
        raise InputError(
            "confusion must name the same classes in the same order on both axes, "
            f"got rows {list(confusion.index[:5])} and columns {list(confusion.columns[:5])}"
        )
    counts = confusion.to_numpy()
    if counts.dtype.kind not in "iu":
        raise InputError(f"confusion must hold counts, which are integers, got {counts.dtype}")
    if counts.size and counts.min() < 0:
        raise InputError(f"confusion must hold counts, got a negative one: {counts.min()}")
    return counts.astype(np.int64, copy=False)


def as_sparse(confusion: pd.DataFrame | SparseConfusion) -> SparseConfusion:
    """The cells of a confusion matrix of either kind."""
    return confusion if isinstance(confusion, SparseConfusion) else of_frame(confusion)


def refuse_dense(classes: int) -> None:
    """Refuse a square matrix that would not fit.

    Raises:
        InputError: There are more than 10,000 classes.
    """
    if classes > DENSE_CLASSES:
        raise InputError(
            f"a square matrix must have at most {DENSE_CLASSES:,} classes, got "
            f"{counted(classes, 'class', 'classes')}: use evalkit.scoring.sparse.sparse_confusion"
        )


def _of_keys(keys: Integers, counts: Integers, classes: pd.Index[Any]) -> SparseConfusion:
    order = np.argsort(keys, kind="stable")
    keys, counts = keys[order], counts[order]
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    sums = np.add.reduceat(counts, starts) if starts.size else counts
    labels, predictions = np.divmod(keys[starts], max(len(classes), 1))
    return SparseConfusion(labels, predictions, sums, classes)
