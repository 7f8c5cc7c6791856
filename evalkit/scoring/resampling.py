"""How sure scores of all classes together are: the counts drawn anew, many times.

A replicate draws the cells of the confusion matrix from a multinomial distribution, which is the
same as drawing the samples with replacement and counting them, at a cost that grows with the
non-zero cells and not with the samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from evalkit.scoring.averages import averages, slopes
from evalkit.scoring.bootstrap import (
    Estimate,
    Resampled,
    bca_interval,
    intervals_of,
    normal_interval,
)
from evalkit.scoring.method import USUAL

if TYPE_CHECKING:
    from evalkit.scoring.method import Method
    from evalkit.scoring.sparse import SparseConfusion

CHUNK = 1 << 18  # numbers drawn at once: 2 MB, which stays in the cache of one core
CELLS_TO_RESAMPLE = 100_000  # 1,000 replicates of more cells take longer than 7 s
REPLICATES_FOR_BIAS = 20  # known to a fifth of the standard error, which widens it by 2 %

Integers = npt.NDArray[np.int64]
Fractions = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Groups:
    """The cells again, apart for every group of samples that belong together.

    Attributes:
        group: Group of every entry as a position in [0, G), shape (E,).
        cell: Cell of every entry as a position in those of the confusion, ascending, shape (E,).
        counts: Samples of every entry, shape (E,).
        number: How many groups there are, G.
    """

    group: Integers
    cell: Integers
    counts: Integers
    number: int


def resampled_intervals(
    confusion: SparseConfusion, *, method: Method = USUAL, groups: Groups | None = None
) -> Resampled:
    """Intervals of macro and weighted averages, balanced accuracy, MCC and kappa.

    Args:
        confusion: Counts of N samples, K of its cells not zero.
        method: Replicates, seed, level and what is drawn: samples, samples within each class
            (``class_balanced``), or whole groups.
        groups: The samples of the cells by group; then groups are drawn.

    Returns:
        BCa intervals, moved by the bias of the replicates: plain percentiles of macro F1 miss
        nearly always where there are many classes of few samples, because every replicate is
        biased downwards as the estimate itself is (docs/statistics.md). They always hold the
        estimate. A score that a replicate leaves undefined is left out and counted. Above 100,000
        cells (or entries of groups) the standard error comes from the delta method and only the
        bias from a few replicates.

    Source:
        Efron, JASA 82 (1987) 171, for BCa; Davison & Hinkley, Bootstrap Methods and their
        Application (1997), chapter 5, for the bias; Takahashi et al., Applied Intelligence 52
        (2022) 4961, for the delta method.

    Example:
        >>> from evalkit.scoring.sparse import sparse_confusion
        >>> counts = sparse_confusion(["a"] * 40 + ["b"] * 60, ["a"] * 30 + ["b"] * 70, ["a", "b"])
        >>> found = resampled_intervals(counts)
        >>> round(found.low["macro.f1"], 2), round(found.high["macro.f1"], 2)
        (0.81, 0.94)
    """
    entries = len(confusion.counts if groups is None else groups.counts)
    exact = entries <= CELLS_TO_RESAMPLE
    number = method.replicates if exact else REPLICATES_FOR_BIAS
    draws = draw(confusion, method=method, groups=groups, replicates=number)
    found, lost = scores_of_draws(confusion, draws, rule=method.average_rule)
    margins = (confusion.hits, confusion.support, confusion.predicted)
    values = averages(*margins, rule=method.average_rule)
    changes = influence(confusion, rule=method.average_rule)
    estimates = {
        name: Estimate(
            float(values[name]), found[name], *_spread(confusion, changes[name], method, groups)
        )
        for name in found
    }
    what = f"{_drawn(method, groups)} drawn with replacement"
    if not exact:
        words = (
            f"delta method, bias from {number} replicates, {what}: there are more than "
            f"{CELLS_TO_RESAMPLE:,} cells"
        )
        return intervals_of(
            estimates, normal_interval, method=method, lost_classes=lost, words=words
        )
    words = f"BCa percentiles of {number:,} replicates, moved by their bias, {what}"
    return intervals_of(estimates, bca_interval, method=method, lost_classes=lost, words=words)


def draw(
    confusion: SparseConfusion,
    *,
    method: Method,
    groups: Groups | None = None,
    replicates: int | None = None,
) -> Iterator[Integers]:
    """Draw the counts of the cells anew.

    Args:
        confusion: Counts, K of the cells not zero.
        method: Seed, and what is drawn.
        groups: The samples of the cells by group; then groups are drawn.
        replicates: How many, otherwise as *method* says.

    Yields:
        Shape (B, K), a part of the replicates at a time.
    """
    total = method.replicates if replicates is None else replicates
    rng = np.random.default_rng(method.seed)
    entries = len(confusion.counts if groups is None else groups.counts)
    rows = max(1, CHUNK // max(entries, 1))
    for start in range(0, total, rows):
        number = min(rows, total - start)
        if groups is not None:
            yield _draw_groups(rng, groups, number)
        elif method.class_balanced:
            yield _draw_rows(rng, confusion, number)
        else:
            yield rng.multinomial(
                confusion.samples, confusion.counts / confusion.samples, size=number
            )


def scores_of_draws(
    confusion: SparseConfusion, draws: Iterator[Integers], *, rule: str
) -> tuple[dict[str, Fractions], int]:
    """Scores of every replicate, and in how many of them a class was lost."""
    margins = _Margins(confusion)
    parts: list[dict[str, Fractions]] = []
    lost = 0
    for counts in draws:
        hits, support, predicted = margins.of(counts)
        lost += int(((support + predicted) == 0).any(axis=1).sum())
        whole = rule == "all" and margins.absent  # these count as 0, and were left out for speed
        found = averages(hits, support, predicted, rule=rule)
        if whole:
            kept = margins.present / (margins.present + margins.absent)
            found |= {name: found[name] * kept for name in found if name.startswith("macro.")}
        parts.append(found)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, lost


def _drawn(method: Method, groups: Groups | None) -> str:
    if groups is not None:
        return f"the {groups.number:,} groups of {method.group_column}"
    return "samples within each class" if method.class_balanced else "samples"


def _draw_rows(rng: np.random.Generator, confusion: SparseConfusion, number: int) -> Integers:
    """Every class keeps its number of samples."""
    drawn = np.empty((number, len(confusion.counts)), dtype=np.int64)
    for row in np.split(np.arange(len(confusion.counts)), _starts(confusion.labels)[1:]):
        counts = confusion.counts[row]
        drawn[:, row] = rng.multinomial(counts.sum(), counts / counts.sum(), size=number)
    return drawn


def _draw_groups(rng: np.random.Generator, groups: Groups, number: int) -> Integers:
    """Every group comes with all of its samples, as often as it is drawn."""
    weights = rng.multinomial(groups.number, np.full(groups.number, 1 / groups.number), size=number)
    entries = weights[:, groups.group] * groups.counts
    summed: Integers = np.add.reduceat(entries, _starts(groups.cell), axis=1)
    return summed


def _starts(ascending: Integers) -> Integers:
    """Where runs of equal values begin."""
    return np.flatnonzero(np.diff(ascending, prepend=-1))


class _Margins:
    """Sums of the cells over rows and columns, for the classes that occur."""

    def __init__(self, confusion: SparseConfusion) -> None:
        occurring, positions = np.unique(
            np.concatenate([confusion.labels, confusion.predictions]), return_inverse=True
        )
        labels, predictions = np.split(positions, 2)
        self.present = occurring.size
        self.absent = len(confusion) - occurring.size
        self._right = np.flatnonzero(labels == predictions)
        self._class_of_right = labels[self._right]
        self._rows = _starts(labels)
        self._class_of_row = labels[self._rows]
        self._by_prediction = np.argsort(predictions, kind="stable")
        ordered = predictions[self._by_prediction]
        self._columns = _starts(ordered)
        self._class_of_column = ordered[self._columns]

    def of(self, counts: Integers) -> tuple[Integers, Integers, Integers]:
        """Hits, support and predictions of counts of shape (B, K), each (B, occurring classes)."""
        hits, support, predicted = (
            np.zeros((len(counts), self.present), dtype=np.int64) for _ in range(3)
        )
        hits[:, self._class_of_right] = counts[:, self._right]
        support[:, self._class_of_row] = np.add.reduceat(counts, self._rows, axis=1)
        predicted[:, self._class_of_column] = np.add.reduceat(
            counts[:, self._by_prediction], self._columns, axis=1
        )
        return hits, support, predicted


def influence(confusion: SparseConfusion, *, rule: str) -> dict[str, Fractions]:
    """How much one sample more in a cell changes every score, shape (K,) each."""
    found = {}
    by_class = slopes(confusion.hits, confusion.support, confusion.predicted, rule=rule)
    right = confusion.labels == confusion.predictions
    for name, slope in by_class.items():
        change = slope.support[confusion.labels] + slope.predicted[confusion.predictions]
        found[name] = change + np.where(right, slope.hits[confusion.labels], 0.0)
    return found


def _spread(
    confusion: SparseConfusion, change: Fractions, method: Method, groups: Groups | None
) -> tuple[Fractions, Integers]:
    """What independent parts add to a score: groups where there are any, else samples by cell."""
    if groups is not None:
        weights = groups.counts * change[groups.cell]
        per_group = np.bincount(groups.group, weights=weights, minlength=groups.number)
        return per_group - per_group.mean(), np.ones(groups.number, dtype=np.int64)
    counts = confusion.counts
    row = confusion.labels if method.class_balanced else np.zeros_like(confusion.labels)
    mean = np.bincount(row, weights=counts * change) / np.bincount(row, weights=counts).clip(1)
    return change - mean[row], counts
