"""Fractions of samples that belong together: how many independent samples they are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from evalkit.resampling import Groups
    from evalkit.sparse import SparseConfusion

FEW_GROUPS = 20  # below, the spread between groups is itself hardly known

Fractions = npt.NDArray[np.float64]


def effective_trials(
    successes: npt.ArrayLike,
    trials: npt.ArrayLike,
    *,
    kind: npt.ArrayLike,
    kinds: int,
) -> Fractions:
    """How many independent trials have as much to say as those of groups.

    Args:
        successes: Per group and kind, shape (E,).
        trials: Per group and kind, shape (E,); entries without trials may be left out.
        kind: What the entry counts for, such as a class, in [0, *kinds*), shape (E,). A pair of
            group and kind occurs once.
        kinds: How many kinds there are, K.

    Returns:
        Shape (K,), at most the number of trials: that divided by the design effect, which is the
        variance between groups over that of independent trials. Where all trials succeed or all
        fail the groups show no variance: then every group counts once.

    Source:
        Rao & Scott, Biometrics 48 (1992) 577.

    Example:
        >>> effective_trials([10, 0, 10, 0], [10, 10, 10, 10], kind=[0, 0, 0, 0], kinds=1)
        array([3.])
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
        worth = total * independent / between
    certain = (right == 0) | (right == total) | (groups == 1)
    return np.where(certain, groups, np.minimum(worth, total))


def effective_counts(confusion: SparseConfusion, groups: Groups) -> dict[str, Fractions]:
    """Independent samples behind accuracy, precision, recall and the union of F1.

    Returns:
        ``accuracy`` of shape (1,); ``precision``, ``recall`` and ``f1`` (of the Jaccard index, see
        `evalkit.intervals.f1_interval`), each of shape (C,).
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
        )
    return found
