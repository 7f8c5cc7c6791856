"""Scores as pure functions of counts. Nothing here knows about torch or devices."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from evalkit.errors import InputError
from evalkit.scoring.averages import AVERAGE_RULES, AVERAGED, averages
from evalkit.scoring.intervals import (
    CONFIDENCE_LEVEL,
    effective_wilson,
    f1_interval,
    simultaneous_level,
    wilson,
)
from evalkit.scoring.sparse import SparseConfusion, counts_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Fractions = npt.NDArray[np.float64]


def per_class_scores(
    confusion: pd.DataFrame | SparseConfusion,
    *,
    level: float = CONFIDENCE_LEVEL,
    simultaneous: bool = False,
    effective: Mapping[str, Fractions] | None = None,
) -> pd.DataFrame:
    """Precision, recall and F1 of every class, with intervals.

    Args:
        confusion: Sample counts, shape (C, C). Rows are true classes, columns the given ones;
            both axes carry the C class names in the same order.
        level: Nominal coverage of every interval, between 0 and 1.
        simultaneous: Widen the intervals of each score so that those of all classes together hold
            with *level*; otherwise one in twenty misses.
        effective: How many independent samples every score is worth where samples come in
            groups, see `evalkit.scoring.clusters.effective_counts`.

    Returns:
        One row per class, in the order of *confusion* (index ``class``), with the columns

        - ``precision``, ``recall``, ``f1``: fractions in [0, 1]; NaN where undefined, which is a
          precision without predictions, a recall without samples, an F1 without either;
        - each followed by its ``_low`` and ``_high``: Wilson's interval, for F1 by way of the
          Jaccard index (`evalkit.scoring.intervals`);
        - ``support``: number of samples whose true class this is;
        - ``predicted``: number of samples that were given this class.

    Raises:
        InputError: The axes of *confusion* do not name the same classes in the same order, or it
            holds anything but counts.

    Example:
        >>> confusion = pd.DataFrame([[3, 1], [0, 0]], ["cat", "dog"], ["cat", "dog"])
        >>> per_class_scores(confusion)[["precision", "recall", "f1", "support", "predicted"]]
               precision  recall        f1  support  predicted
        class
        cat          1.0    0.75  0.857143        4          3
        dog          0.0     NaN  0.000000        0          1
    """
    hits, support, predicted = margins(confusion)
    if simultaneous:
        level = simultaneous_level(level, int((support + predicted > 0).sum()))
    columns: dict[str, npt.NDArray[Any]] = {}
    for name, part, whole in (
        ("precision", hits, predicted),
        ("recall", hits, support),
        ("f1", 2 * hits, support + predicted),
    ):
        columns[name] = _ratio(part, whole)
        worth = None if effective is None else effective[name]
        if name == "f1":
            bounds = f1_interval(hits, support, predicted, level=level, effective=worth)
        elif worth is None:
            bounds = wilson(part, whole, level=level)
        else:
            bounds = effective_wilson(columns[name], worth, level=level)
        columns[f"{name}_low"], columns[f"{name}_high"] = bounds
    columns |= {"support": support, "predicted": predicted}
    names = confusion.classes if isinstance(confusion, SparseConfusion) else confusion.index
    return pd.DataFrame(columns, index=names.rename("class"))


def overall_scores(
    confusion: pd.DataFrame | SparseConfusion,
    *,
    average_rule: str = "scikit-learn",
    level: float = CONFIDENCE_LEVEL,
) -> dict[str, Any]:
    """The numbers for all classes together.

    Args:
        confusion: Sample counts, shape (C, C), as for `per_class_scores`.
        average_rule: Which classes macro and weighted averages count, a key of
            `evalkit.scoring.averages.AVERAGE_RULES`.
        level: Nominal coverage of accuracy's interval, between 0 and 1.

    Returns:
        ``samples`` and ``classes`` (counts); ``accuracy`` with ``accuracy_low`` and
        ``accuracy_high`` (Wilson); ``balanced_accuracy`` (mean recall of the classes that
        have samples); ``macro``, ``weighted`` and ``macro_over_all_classes`` (each precision,
        recall and f1, the mean over classes; weighted by support); ``average_rule`` and
        ``absent_class_rule`` (how these treat classes that do not occur, as a name and in words);
        ``mcc`` and ``kappa``. Fractions in [0, 1], the last two in [-1, 1]; NaN where undefined,
        which for the last two is when only one class occurs on a side.

    Raises:
        InputError: As for `per_class_scores`, or there is no such rule.

    Source:
        Gorodkin, Comput. Biol. Chem. 28 (2004) 367, for mcc; Cohen (1960) for kappa.

    Example:
        >>> confusion = pd.DataFrame([[3, 1], [0, 0]], ["cat", "dog"], ["cat", "dog"])
        >>> scores = overall_scores(confusion)
        >>> scores["accuracy"], scores["balanced_accuracy"], scores["macro"]["recall"]
        (0.75, 0.75, 0.375)
    """
    counts = margins(confusion)
    hits, support, predicted = counts
    samples, right = int(support.sum()), int(hits.sum())
    low, high = wilson(right, samples, level=level)
    found = averages(*counts, rule=average_rule)
    over_all = averages(*counts, rule="all")
    return {
        "samples": samples,
        "classes": len(confusion),
        "accuracy": right / samples if samples else math.nan,
        "accuracy_low": float(low),
        "accuracy_high": float(high),
        "balanced_accuracy": float(found["balanced_accuracy"]),
        "macro": {name: float(found[f"macro.{name}"]) for name in AVERAGED},
        "weighted": {name: float(found[f"weighted.{name}"]) for name in AVERAGED},
        "macro_over_all_classes": {name: float(over_all[f"macro.{name}"]) for name in AVERAGED},
        "average_rule": average_rule,
        "absent_class_rule": AVERAGE_RULES[average_rule],
        **_agreement(right, support.tolist(), predicted.tolist()),
    }


def margins(
    confusion: pd.DataFrame | SparseConfusion,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Hits, support and predictions of every class, shape (C,) each.

    Raises:
        InputError: As for `per_class_scores`.
    """
    if isinstance(confusion, SparseConfusion):
        return confusion.hits, confusion.support, confusion.predicted
    counts = counts_of(confusion)
    return counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)


def accuracy(
    scores: npt.ArrayLike, labels: npt.ArrayLike, *, top: int | Sequence[int] = (1, 5)
) -> dict[int, float]:
    """Fraction of samples whose label is among the k best scores.

    Args:
        scores: Logits or probabilities, shape (N, C); anything NumPy can read, such as a CPU
            tensor. Of equal scores the first is the better one, as for ``argmax``.
        labels: True classes as columns of *scores*, integers in [0, C), shape (N,).
        top: Which k. One that is C or more is always met.

    Returns:
        Fraction in [0, 1] for every k; NaN without samples.

    Raises:
        InputError: Shapes do not fit, a score is NaN, a label is not an integer in [0, C) or a k
            is below 1.

    Example:
        >>> accuracy([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]], [1, 2], top=(1, 2, 3))
        {1: 0.5, 2: 0.5, 3: 1.0}
    """
    table, truth = np.asarray(scores), np.asarray(labels)
    ks = [top] if isinstance(top, int) else list(top)
    if table.ndim != 2 or truth.shape != table.shape[:1]:  # noqa: PLR2004
        raise InputError(
            "scores and labels must have the shapes (N, C) and (N,), "
            f"got {table.shape} and {truth.shape}"
        )
    if not ks or min(ks) < 1:
        raise InputError(f"top must be 1 or more, got {top}")
    if not len(truth):
        return dict.fromkeys(ks, math.nan)
    if truth.dtype.kind not in "iu" or truth.min() < 0 or truth.max() >= table.shape[1]:
        raise InputError(
            f"labels must be integers from 0 to {table.shape[1] - 1}, as scores has "
            f"{table.shape[1]} columns, got {truth.dtype} from {truth.min()} to {truth.max()}"
        )
    if np.isnan(table).any():
        first = int(np.isnan(table).any(axis=1).argmax())
        raise InputError(f"scores must be numbers, got NaN, first in row {first}")

    of_label = np.take_along_axis(table, truth[:, None].astype(np.int64), axis=1)  # (N, 1)
    earlier = np.arange(table.shape[1]) < truth[:, None]  # (N, C)
    rank = ((table > of_label) | ((table == of_label) & earlier)).sum(axis=1)  # (N,)
    return {k: float((rank < k).mean()) for k in ks}


def _ratio(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> Fractions:
    ratio = np.full(part.shape, np.nan)
    np.divide(part, whole, out=ratio, where=whole != 0)
    return ratio


def _agreement(right: int, support: list[int], predicted: list[int]) -> dict[str, float]:
    """MCC and kappa in exact integers: the products of 10 billion samples overflow int64."""
    samples = sum(support)
    by_chance = sum(true * given for true, given in zip(support, predicted, strict=True))
    spread_true = samples**2 - sum(true**2 for true in support)
    spread_given = samples**2 - sum(given**2 for given in predicted)
    covariance = samples * right - by_chance
    mcc, kappa = math.nan, math.nan
    if spread_true and spread_given:
        mcc = covariance / math.sqrt(spread_true * spread_given)
    if samples**2 != by_chance:
        kappa = covariance / (samples**2 - by_chance)
    return {"mcc": mcc, "kappa": kappa}
