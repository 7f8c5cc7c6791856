"""Fractions of samples that belong together: how many independent samples they are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from evalkit.errors import InputError
from evalkit.scoring.intervals import CONFIDENCE_LEVEL

if TYPE_CHECKING:
    from evalkit.scoring.resampling import Groups
    from evalkit.scoring.sparse import SparseConfusion

FEW_GROUPS = 20  # below, the spread between groups is itself hardly known

Fractions = npt.NDArray[np.float64]


def effective_trials(
    successes: npt.ArrayLike,
    trials: npt.ArrayLike,
    *,
    kind: npt.ArrayLike,
    kinds: int,
    level: float = CONFIDENCE_LEVEL,
) -> Fractions:
    """How many independent trials have as much to say as those of groups.

    Args:
        successes: Per group and kind, shape (E,).
        trials: Per group and kind, shape (E,); entries without trials may be left out.
        kind: What the entry counts for, such as a class, in [0, *kinds*), shape (E,). A pair of
            group and kind occurs once.
        kinds: How many kinds there are, K.
        level: Of the interval that they are for, between 0 and 1.

    Returns:
        Shape (K,), at most the number of trials: that divided by the design effect, which is the
        variance between groups over that of independent trials. Of a kind that rests on few groups
        that variance is hardly known: the design effect is at least what the correlation within
        the groups of all kinds together gives, 1 where no kind tells it; and the quotient is less
        again by the squared ratio of Student's quantiles.

    Raises:
        InputError: SciPy is not installed.

    Source:
        Rao & Scott, Biometrics 48 (1992) 577, for the design effect; Donner, International
        Statistical Review 54 (1986) 67, for the common correlation; Korn & Graubard, Survey
        Methodology 24 (1998) 193, for the quantiles.

    Example:
        >>> effective_trials([10, 0] * 20, [10] * 40, kind=[0] * 40, kinds=1).round(1)
        array([36.8])
    """
    hit, tried = np.asarray(successes, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    of_kind = np.asarray(kind)[tried > 0]
    hit, tried = hit[tried > 0], tried[tried > 0]

    def per_kind(values: Any) -> Fractions:
        return np.bincount(of_kind, weights=values, minlength=kinds).astype(np.float64)

    groups, right, total = per_kind(np.ones(tried.size)), per_kind(hit), per_kind(tried)
    with np.errstate(invalid="ignore", divide="ignore"):
        fraction = right / total
        between = per_kind((hit - fraction[of_kind] * tried) ** 2) * groups / (groups - 1)
        independent = total * fraction * (1 - fraction)
        mates = per_kind(tried**2) / total - 1  # others in the group of a trial, on average
        common = 1 + _correlation(between, independent, mates) * mates
        design_effect = np.fmax(between / independent, common)  # the first is NaN without spread
        student = _student(total - 1, level) / _student(groups - 1, level)
        certain = (right == 0) | (right == total) | (groups == 1)
        worth = total / design_effect * np.where(certain, 1.0, student**2)
    return np.where(total > 0, np.minimum(worth, total), 0.0)


def _correlation(between: Fractions, independent: Fractions, mates: Fractions) -> float:
    """Correlation of two trials of one group, from all kinds that have spread, in [0, 1]."""
    known = np.isfinite(between) & (independent > 0)
    excess = float((between - independent)[known].sum())
    possible = float((independent * mates)[known].sum())  # the excess if all mates were alike
    return min(max(excess / possible, 0.0), 1.0) if possible > 0 else 1.0


def _student(freedom: Fractions, level: float) -> Fractions:
    """Student's quantile for both ends of an interval."""
    try:
        from scipy.special import stdtrit
    except ImportError as error:
        raise InputError("intervals of groups need scipy: pip install 'gpudiag[report]'") from error
    return np.asarray(stdtrit(freedom, (1 + level) / 2), dtype=np.float64)


def effective_counts(
    confusion: SparseConfusion, groups: Groups, *, level: float = CONFIDENCE_LEVEL
) -> dict[str, Fractions]:
    """Independent samples behind accuracy, precision, recall and the union of F1.

    Args:
        confusion: Counts of all samples.
        groups: The same by group.
        level: As for `effective_trials`.

    Returns:
        ``accuracy`` of shape (1,); ``precision``, ``recall`` and ``f1`` (of the Jaccard index, see
        `evalkit.scoring.intervals.f1_interval`), each of shape (C,).
    """
    true, given = confusion.labels[groups.cell], confusion.predictions[groups.cell]
    right = np.where(true == given, groups.counts, 0)
    missed = true != given  # these are in the union of two classes
    of = np.concatenate
    members = {
        "accuracy": (np.zeros(true.size, dtype=np.int64), groups.group, right, groups.counts),
        "precision": (given, groups.group, right, groups.counts),
        "recall": (true, groups.group, right, groups.counts),
        "f1": (
            of([true, given[missed]]),
            of([groups.group, groups.group[missed]]),
            of([right, right[missed]]),
            of([groups.counts, groups.counts[missed]]),
        ),
    }
    found = {}
    for name, (kind, group, hit, tried) in members.items():
        kinds = 1 if name == "accuracy" else len(confusion)
        keys, entry = np.unique(kind * groups.number + group, return_inverse=True)
        found[name] = effective_trials(
            np.bincount(entry, weights=hit),
            np.bincount(entry, weights=tried),
            kind=keys // groups.number,
            kinds=kinds,
            level=level,
        )
    return found
