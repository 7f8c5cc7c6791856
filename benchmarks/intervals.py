"""Scores and intervals: 10 million rows, and 1,000 replicates of an ImageNet-like matrix.

Ours is all a user gets from two columns of integers: counts, per-class table with intervals,
averages, MCC and kappa with theirs. The peers get the same arrays; scikit-learn has no intervals.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import sklearn.metrics
from tabulate import tabulate

from evalkit.scoring.averages import averages
from evalkit.scoring.confusion import confusion_matrix
from evalkit.scoring.resampling import resampled_intervals
from evalkit.scoring.scores import overall_scores, per_class_scores
from evalkit.scoring.sparse import SparseConfusion, of_frame, sparse_confusion

SAMPLES = 10_000_000
CLASSES = 1_000
RIGHT = 0.8
IMAGENET = 50_000
PEER_REPLICATES = 5  # of the peers, whose time for 1,000 follows from it
REPLICATES = 1_000

Labels = npt.NDArray[np.int64]


def everything(labels: Labels, predictions: Labels) -> None:
    """Counts, per-class table, averages, all with intervals."""
    counts = confusion_matrix(labels, predictions, CLASSES)
    per_class_scores(counts)
    overall_scores(counts)
    resampled_intervals(of_frame(counts))


def scores_of_scikit_learn(labels: Labels, predictions: Labels) -> None:
    """The same scores without intervals."""
    sklearn.metrics.classification_report(labels, predictions, output_dict=True, zero_division=0)
    sklearn.metrics.matthews_corrcoef(labels, predictions)
    sklearn.metrics.cohen_kappa_score(labels, predictions)


def replicates(counts: SparseConfusion) -> None:
    """1,000 replicates of nine scores, and their intervals."""
    resampled_intervals(counts)


def index_bootstrap(labels: Labels, predictions: Labels) -> None:
    """A few replicates by drawing samples, counting and scoring with NumPy alone."""
    rng = np.random.default_rng(0)
    for _ in range(PEER_REPLICATES):
        drawn = rng.integers(0, labels.size, labels.size)
        keys = labels[drawn] * CLASSES + predictions[drawn]
        counts = np.bincount(keys, minlength=CLASSES * CLASSES).reshape(CLASSES, CLASSES)
        averages(counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0), rule="scikit-learn")


def run(*, rounds: int = 3) -> list[dict[str, Any]]:
    """Measure; one row per comparison, keys as in ``benchmarks/counts.py``."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, SAMPLES)
    wrong = rng.random(SAMPLES) >= RIGHT
    predictions = np.where(wrong, rng.integers(0, CLASSES, SAMPLES), labels)
    truth = np.repeat(np.arange(CLASSES), IMAGENET // CLASSES)
    near = (truth + 1 + rng.geometric(0.05, IMAGENET)) % CLASSES
    given = np.where(rng.random(IMAGENET) < 0.76, truth, near)  # noqa: PLR2004 - as ResNet-50
    counts = sparse_confusion(truth, given, CLASSES)
    return [
        _row(
            "10 million rows, all scores and intervals / scikit-learn, no intervals",
            lambda: everything(labels, predictions),
            lambda: scores_of_scikit_learn(labels, predictions),
            rounds=rounds,
            target="ours under 5 s",
        ),
        _row(
            f"1,000 replicates, {len(counts.counts):,} cells / drawing samples with NumPy",
            lambda: replicates(counts),
            lambda: index_bootstrap(truth, given),
            rounds=rounds,
            target="ours under 2 s",
            times=REPLICATES / PEER_REPLICATES,
        ),
    ]


def _row(
    name: str,
    ours: Callable[[], None],
    peer: Callable[[], None],
    *,
    rounds: int,
    target: str,
    times: float = 1.0,
) -> dict[str, Any]:
    mine, theirs = [], []
    for _ in range(rounds):
        mine.append(_seconds(ours))
        theirs.append(_seconds(peer) * times)
    ratios = [other / own for own, other in zip(mine, theirs, strict=True)]
    return {
        "comparison": name,
        "ours_s": statistics.median(mine),
        "peer_s": statistics.median(theirs),
        "ratio": statistics.median(ratios),
        "spread": (min(ratios), max(ratios)),
        "target": target,
    }


def _seconds(function: Callable[[], None]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


if __name__ == "__main__":
    table = [{**row, "spread": "{:.2f} to {:.2f}".format(*row["spread"])} for row in run()]
    print(tabulate(table, headers="keys", floatfmt=".3f"))
