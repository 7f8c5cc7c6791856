"""Labels that may be wrong, from the probabilities of all classes: confident learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

VALUES = 1 << 22  # looked at together: 16 MB
ROUNDING = 1e-6  # of a mean over one sample, which is not above itself

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelErrors:
    """Suspected labels.

    Attributes:
        rows: Positions of the samples, the most suspicious first.
        method: How they were found, in words.
    """

    rows: Integers
    method: str


def label_errors(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> LabelErrors:
    """Samples that are confidently of another class than their label says.

    A sample is confidently of a class when it is given at least the probability that samples with
    that label are given on average; of several such classes, of the most probable one. It is
    suspected when that class is not its label, nor its label the most probable class.

    Args:
        labels: Positions of the classes, in [0, C), shape (N,).
        probabilities: Of all classes, rows that add up to 1, shape (N, C).

    Returns:
        Suspects by the margin of the label below the most probable other class: found by cleanlab
        where it is installed, by the same rule in NumPy elsewhere.

    Source:
        Northcutt, Jiang & Chuang, JAIR 70 (2021) 1373: off the diagonal of the confident joint,
        ranked by the normalized margin.

    Example:
        >>> found = label_errors([0, 0, 1, 1], [[0.9, 0.1], [0.1, 0.9], [0.2, 0.8], [0.3, 0.7]])
        >>> found.rows.tolist()
        [1]
    """
    given = np.asarray(labels, dtype=np.int64)
    table = np.asarray(probabilities)
    words = "confident learning on the probabilities of all classes"
    if np.unique(given).size < 2:  # noqa: PLR2004 - one class leaves nothing to suspect
        return LabelErrors(rows=np.zeros(0, dtype=np.int64), method=words)
    try:
        import cleanlab
        from cleanlab.filter import find_label_issues
    except ImportError:
        return LabelErrors(rows=_confident_rows(given, table), method=words)
    rows: Any = find_label_issues(
        given,
        table,
        filter_by="confident_learning",
        return_indices_ranked_by="normalized_margin",
        n_jobs=1,
    )
    return LabelErrors(
        rows=np.asarray(rows, dtype=np.int64), method=f"{words}, by cleanlab {cleanlab.__version__}"
    )


def _confident_rows(labels: Integers, table: npt.NDArray[Any]) -> Integers:
    usual = _self_confidence(labels, table)
    found: list[Integers] = []
    margins: list[npt.NDArray[np.float64]] = []
    rows_together = max(VALUES // table.shape[1], 1)
    for start in range(0, len(labels), rows_together):
        part = table[start : start + rows_together]
        own = labels[start : start + rows_together]
        each = np.arange(len(own))
        confident = np.where(part >= usual - ROUNDING, part, -1.0)  # (rows, C)
        of_class = confident.argmax(axis=1)
        suspected = (confident[each, of_class] >= 0) & (of_class != own)
        suspected &= part.argmax(axis=1) != own
        others = np.where(np.arange(table.shape[1]) == own[:, None], -1.0, part).max(axis=1)
        rows = np.flatnonzero(suspected)
        found.append(rows + start)
        margins.append((part[each, own] - others)[rows])
    if not found:
        return np.zeros(0, dtype=np.int64)
    order = np.argsort(np.concatenate(margins), kind="stable")
    return np.concatenate(found)[order]


def _self_confidence(labels: Integers, table: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Mean probability of every class over the samples that carry it; infinite without any."""
    classes = table.shape[1]
    own = table[np.arange(len(labels)), labels].astype(np.float64)
    sums = np.bincount(labels, weights=own, minlength=classes)
    counts = np.bincount(labels, minlength=classes)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(counts > 0, sums / counts, np.inf)
