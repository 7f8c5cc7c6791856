"""Counting 10 million labels of 1,000 classes, next to NumPy and other libraries of scores.

Ours is everything a user gets: the confusion matrix and the per-class table with its intervals.
All run alternately in one process on the same arrays (int64, four in five predictions right).
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pycm
import sklearn.metrics
import torch
import torcheval.metrics.functional as te
import torchmetrics.functional.classification as tm
from tabulate import tabulate

from evalkit import confusion_matrix, per_class_scores

SAMPLES = 10_000_000
CLASSES = 1_000
RIGHT = 0.8

Labels = npt.NDArray[np.int64]


def ours(labels: Labels, predictions: Labels) -> None:
    """Confusion matrix and the whole per-class table, intervals included."""
    per_class_scores(confusion_matrix(labels, predictions, CLASSES))


def bincount_of_keys(keys: Labels) -> None:
    """Nothing but the counting: somebody else made the keys and knows that they are in range."""
    np.bincount(keys, minlength=CLASSES * CLASSES)


def bincount_from_columns(labels: Labels, predictions: Labels) -> None:
    """The matrix in one line of NumPy, without a check: this is the target's np.bincount."""
    np.bincount(labels * CLASSES + predictions, minlength=CLASSES * CLASSES)


def bincount_of_labels(labels: Labels) -> None:
    """The support alone, which reads half of the data and writes 8 KB instead of 8 MB."""
    np.bincount(labels, minlength=CLASSES)


def classification_report(labels: Labels, predictions: Labels) -> None:
    """scikit-learn's table: no matrix, no intervals."""
    sklearn.metrics.classification_report(
        labels, predictions, labels=range(CLASSES), output_dict=True, zero_division=0
    )


def torchmetrics_table(labels: Labels, predictions: Labels) -> None:
    """Matrix, precision, recall and F1 of torchmetrics: no intervals."""
    target, preds = torch.from_numpy(labels), torch.from_numpy(predictions)
    tm.multiclass_confusion_matrix(preds, target, num_classes=CLASSES)
    for score in (tm.multiclass_precision, tm.multiclass_recall, tm.multiclass_f1_score):
        score(preds, target, num_classes=CLASSES, average=None)


def torcheval_table(labels: Labels, predictions: Labels) -> None:
    """Matrix, precision, recall and F1 of torcheval: no intervals."""
    target, preds = torch.from_numpy(labels), torch.from_numpy(predictions)
    te.multiclass_confusion_matrix(preds, target, CLASSES)
    for score in (te.multiclass_precision, te.multiclass_recall, te.multiclass_f1_score):
        score(preds, target, num_classes=CLASSES, average=None)


def pycm_table(labels: Labels, predictions: Labels) -> None:
    """The matrix of pycm for a thousandth of the samples and a tenth of the classes."""
    few = slice(SAMPLES // 1_000)
    pycm.ConfusionMatrix(labels[few] % (CLASSES // 10), predictions[few] % (CLASSES // 10))


def run(*, rounds: int = 7, slow_rounds: int = 3) -> list[dict[str, Any]]:
    """Measure; one row per peer.

    Args:
        rounds: Rounds of ours and the quick peers, alternating.
        slow_rounds: Rounds of ours and the peers that take seconds, alternating.

    Returns:
        Rows with ``comparison``, ``ours_s`` and ``peer_s`` (medians), ``ratio`` (ours to NumPy's,
        or the others' to ours, as the target counts it), ``spread`` (least and largest ratio of a
        round) and ``target``.
    """
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, SAMPLES)
    wrong = rng.random(SAMPLES) >= RIGHT
    predictions = np.where(wrong, rng.integers(0, CLASSES, SAMPLES), labels)
    keys = labels * CLASSES + predictions
    both = (labels, predictions)
    of_columns = "np.bincount(label * C + prediction)"
    quick: dict[str, tuple[Callable[..., None], tuple[Labels, ...], str]] = {
        of_columns: (bincount_from_columns, both, "ours at most 2x"),
        "np.bincount(keys), made before": (bincount_of_keys, (keys,), "none"),
        "np.bincount(label), no matrix": (bincount_of_labels, (labels,), "none"),
    }
    slow: dict[str, tuple[Callable[..., None], tuple[Labels, ...], str]] = {
        "scikit-learn classification_report": (classification_report, both, "ours 40x faster"),
        "torchmetrics confusion, P, R, F1": (torchmetrics_table, both, "ours 15x faster"),
        "torcheval confusion, P, R, F1": (torcheval_table, both, "none"),
        "pycm, of 0.1 % of it": (pycm_table, both, "none"),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = _compare(quick, both, rounds=rounds, ours_first=True)
        rows += _compare(slow, both, rounds=slow_rounds, ours_first=False)
    return rows


def _compare(
    peers: dict[str, tuple[Callable[..., None], tuple[Labels, ...], str]],
    arguments: tuple[Labels, Labels],
    *,
    rounds: int,
    ours_first: bool,
) -> list[dict[str, Any]]:
    ours(*arguments)  # warm: the first arrays of a process wait for their pages
    if ours_first:
        for peer, inputs, _target in peers.values():
            peer(*inputs)
    mine: list[float] = []
    theirs: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(rounds):
        mine.append(_seconds(ours, *arguments))
        for name, (peer, inputs, _target) in peers.items():
            theirs[name].append(_seconds(peer, *inputs))
    rows = []
    for name, times in theirs.items():
        pairs = list(zip(mine, times, strict=True))
        ratios = [own / other if ours_first else other / own for own, other in pairs]
        rows.append(
            {
                "comparison": name,
                "ours_s": statistics.median(mine),
                "peer_s": statistics.median(times),
                "ratio": statistics.median(ratios),
                "spread": (min(ratios), max(ratios)),
                "target": peers[name][2],
            }
        )
    return rows


def _seconds(function: Callable[..., None], *arguments: Labels) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


if __name__ == "__main__":
    table = [{**row, "spread": "{:.2f} to {:.2f}".format(*row["spread"])} for row in run()]
    print(f"{SAMPLES:,} labels, {CLASSES:,} classes, confusion matrix and per-class table")
    print(tabulate(table, headers="keys", floatfmt=".3f"))
