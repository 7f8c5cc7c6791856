"""How well scores order samples: AUROC and average precision, one class against the others."""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from evalkit.errors import InputError
from evalkit.scoring.intervals import CONFIDENCE_LEVEL

if TYPE_CHECKING:
    from collections.abc import Sequence

Fractions = npt.NDArray[np.float64]


def auroc(positive: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Probability that a positive sample has a higher score than a negative one; ties half.

    Args:
        positive: Whether a sample is positive, shape (N,).
        scores: Any numbers, shape (N,).

    Returns:
        In [0, 1]; NaN unless there are both kinds.

    Example:
        >>> auroc([True, False, True, False], [0.9, 0.4, 0.4, 0.1])
        0.875
    """
    return float(_placements(positive, scores)[0])


def auroc_interval(
    positive: npt.ArrayLike, scores: npt.ArrayLike, *, level: float = CONFIDENCE_LEVEL
) -> tuple[float, float]:
    """DeLong's interval of `auroc`, on the logit scale, which keeps it within [0, 1].

    Args:
        positive: Whether a sample is positive, shape (N,).
        scores: Any numbers, shape (N,).
        level: Nominal coverage, between 0 and 1.

    Returns:
        Lower and upper bound; NaN unless there are two samples of both kinds, and where they are
        separated without an error, which leaves no variance to estimate.

    Source:
        DeLong, DeLong & Clarke-Pearson, Biometrics 44 (1988) 837; Sun & Xu, IEEE Signal
        Processing Letters 21 (2014) 1389, for the ranks; Pepe (2003), section 5.2, for the logit.

    Example:
        >>> low, high = auroc_interval([1, 1, 1, 0, 0, 0], [0.9, 0.8, 0.3, 0.5, 0.2, 0.1])
        >>> round(low, 3), round(high, 3)
        (0.261, 0.995)
    """
    area, of_positives, of_negatives = _placements(positive, scores)
    if min(of_positives.size, of_negatives.size) < 2 or area in {0.0, 1.0}:  # noqa: PLR2004
        return float("nan"), float("nan")
    variance = (
        of_positives.var(ddof=1) / of_positives.size + of_negatives.var(ddof=1) / of_negatives.size
    )
    logit = np.log(area / (1 - area))
    half = NormalDist().inv_cdf((1 + level) / 2) * np.sqrt(variance) / (area * (1 - area))
    low, high = 1 / (1 + np.exp(-(logit - half))), 1 / (1 + np.exp(-(logit + half)))
    return float(low), float(high)


def average_precision(positive: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Precision, averaged over the positive samples from the highest score down.

    Samples of equal scores enter together, so that their order does not matter.

    Args:
        positive: Whether a sample is positive, shape (N,).
        scores: Any numbers, shape (N,).

    Returns:
        In [0, 1]; NaN without positive samples.

    Example:
        >>> average_precision([True, False, True, False], [0.9, 0.4, 0.4, 0.1])
        0.8333333333333333
    """
    truth, values = _checked(positive, scores)
    if not truth.any():
        return float("nan")
    order = np.argsort(-values, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(values[order])), truth.size - 1)
    hits = truth[order].cumsum()[ends]
    return float((np.diff(hits, prepend=0) * hits / (ends + 1)).sum() / hits[-1])


def ranking_table(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    classes: Sequence[str],
    *,
    level: float = CONFIDENCE_LEVEL,
) -> pd.DataFrame:
    """AUROC and average precision of every class against all others.

    Args:
        labels: True classes as columns of *probabilities*, shape (N,).
        probabilities: Of every class, shape (N, C).
        classes: Names of the C classes.
        level: Nominal coverage of the intervals, between 0 and 1.

    Returns:
        One row per class (index ``class``): ``auroc``, ``auroc_low``, ``auroc_high``,
        ``average_precision``, and ``support``, which is what chance would make of the latter when
        divided by N. NaN where undefined.

    Raises:
        InputError: Shapes do not fit, or a probability is NaN.
    """
    truth, table = np.asarray(labels), np.asarray(probabilities)
    if table.shape != (truth.size, len(classes)):
        raise InputError(
            f"probabilities must have the shape ({truth.size}, {len(classes)}), got {table.shape}"
        )
    rows = []
    for position in range(len(classes)):
        positive, scores = truth == position, table[:, position]
        low, high = auroc_interval(positive, scores, level=level)
        rows.append(
            {
                "auroc": auroc(positive, scores),
                "auroc_low": low,
                "auroc_high": high,
                "average_precision": average_precision(positive, scores),
                "support": int(positive.sum()),
            }
        )
    return pd.DataFrame(rows, index=pd.Index(list(classes), name="class"))


def _checked(
    positive: npt.ArrayLike, scores: npt.ArrayLike
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[Any]]:
    truth, values = np.asarray(positive).astype(bool), np.asarray(scores)
    if truth.ndim != 1 or truth.shape != values.shape:
        raise InputError(
            f"positive and scores must both have the shape (N,), got {truth.shape} and "
            f"{values.shape}"
        )
    if np.isnan(values).any():
        raise InputError(
            f"scores must be numbers, got NaN in {int(np.isnan(values).sum())} of them"
        )
    return truth, values


def _placements(
    positive: npt.ArrayLike, scores: npt.ArrayLike
) -> tuple[float, Fractions, Fractions]:
    """The area, and of every sample the share of the other kind on its right side, ties half."""
    truth, values = _checked(positive, scores)
    above, below = np.sort(values[truth]), np.sort(values[~truth])
    if not above.size or not below.size:
        return float("nan"), np.empty(0), np.empty(0)
    of_positives = _share_below(above, below)
    of_negatives = 1 - _share_below(below, above)
    return float(of_positives.mean()), of_positives, of_negatives


def _share_below(values: npt.NDArray[Any], others: npt.NDArray[Any]) -> Fractions:
    """For every value the share of *others* below it, equal ones half; both sorted."""
    strictly = np.searchsorted(others, values, side="left")
    at_most = np.searchsorted(others, values, side="right")
    return np.asarray((strictly + at_most) / (2 * others.size))
