"""Whether the labels fit the predictions better in another order: asked of the counts alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from evalkit.checks.evidence import Paired
from evalkit.checks.finding import Check, skipped
from evalkit.checks.orders import Integers, likely_orders
from evalkit.wording import counted, some

if TYPE_CHECKING:
    from evalkit.scoring.sparse import SparseConfusion

LABEL_ORDER = "label-order"
MOST_CLASSES = 2_000  # the assignment needs a square matrix: 32 MB
SHOWN_CLASSES = 3
# How well a model must do under another order before the order is blamed, as its mean recall above
# chance. Nets with random weights reach 0.5 for 2 classes, 0.36 for 3 and 0.16 for 10, for what
# they see differs between the classes; it falls as one over the root of the classes.
LEAST_SKILL = 0.5
SKILL_OF_MANY_CLASSES = 2.0  # over the root of the classes, from 16 of them on ...
LEAST_SKILL_OF_MANY = 0.2  # ... down to this, reached at 100
# Under the order as it is, the same classes must do at most half as well. A model that mistakes a
# rare class for a common one, or any pair of classes for each other, does better than that.
LEAST_RATIO = 2.0
# Also without the given class that speaks for it most: a model that gives one class to nearly all
# samples looks permuted by that class alone.
LEVEL_OF_REST = 0.05
DOUBT = 5  # samples that are added to every class, so that one hit of one does not count as all
SPLIT_SEED = 0

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Reordered:
    """How the predictions do under another order of the classes that it moves.

    Attributes:
        words: How the other order may have come about, to follow "as if".
        meaning: Position of the class that every given class would mean, shape (C,).
        counts: Samples of moved classes that are right only so, or only as it is.
        rest: The same without the given class that gains the most.
        recall: Mean recall of the moved classes as it is, and under the other order.
        accuracy: Of all samples, in the same way.
    """

    words: str
    meaning: Integers
    counts: Paired
    rest: Paired
    recall: tuple[float, float]
    accuracy: tuple[float, float]


def check_label_order(cells: SparseConfusion) -> Check:
    """Ask whether another order of the classes explains the predictions clearly better.

    First the mistakes that programs make (counting from 1, a background class, sorted and natural
    order), then any order: the best assignment of given to true classes is found on one half of
    the samples and judged on the other, so that searching costs nothing.

    Args:
        cells: Counts of true and given classes.

    Example:
        >>> from evalkit.scoring.sparse import of_pairs
        >>> import pandas as pd
        >>> labels = np.arange(300) % 3
        >>> shifted = of_pairs(labels, (labels + 1) % 3, pd.Index(["a", "b", "c"]))
        >>> check_label_order(shifted).verdict
        'warning'
    """
    found = find_order(cells)
    if found is not None:
        return _warning(found, cells)
    if len(cells) > MOST_CLASSES:
        return skipped(
            LABEL_ORDER,
            f"with more than {MOST_CLASSES:,} classes only the usual mistakes of order were looked "
            "for, and none was found",
        )
    return Check(
        id=LABEL_ORDER,
        verdict="passed",
        evidence="no other order of the classes fits the predictions clearly better",
    )


def find_order(cells: SparseConfusion) -> Reordered | None:
    """Return the other order that fits clearly better, or None; see `check_label_order`."""
    orders = likely_orders([str(name) for name in cells.classes])
    judged = [_judge(cells, order.meaning, order.words) for order in orders]
    better = [one for one in judged if _is_clear(one, len(cells), alternatives=len(judged))]
    if better:
        return max(better, key=lambda one: one.accuracy[1])
    return _any_order(cells) if 1 < len(cells) <= MOST_CLASSES else None


def _any_order(cells: SparseConfusion) -> Reordered | None:
    seen, unseen = _halves(cells)
    whole = _best_meaning(seen)
    if _is_clear(_judge(unseen, whole), len(cells), alternatives=1):
        return _judge(cells, whole, _in_words(whole))
    cycles = [_only(whole, cycle) for cycle in _cycles(whole)]
    clear = [
        cycle
        for cycle in cycles
        if _is_clear(_judge(unseen, cycle), len(cells), alternatives=len(cycles), few=True)
    ]
    if not clear:
        return None
    together = np.arange(len(cells))
    for cycle in clear:
        moved = cycle != np.arange(len(cells))
        together[moved] = cycle[moved]
    return _judge(cells, together, _in_words(together))


def _in_words(meaning: Integers) -> str:
    if 2 * (meaning != np.arange(meaning.size)).sum() <= meaning.size:
        return "the names of a few classes were exchanged"
    return "labels and predictions counted the classes in two orders"


def _halves(cells: SparseConfusion) -> tuple[SparseConfusion, SparseConfusion]:
    """Divide the samples by chance; counts of a multinomial sample become two independent ones."""
    from evalkit.scoring.sparse import SparseConfusion

    one = np.random.default_rng(SPLIT_SEED).binomial(cells.counts, 0.5)
    return tuple(  # type: ignore[return-value]
        SparseConfusion(cells.labels, cells.predictions, counts, cells.classes)
        for counts in (one, cells.counts - one)
    )


def _best_meaning(cells: SparseConfusion) -> Integers:
    """Return for every given class the true class that makes the mean recall highest.

    Recalls of few samples are taken for less than they are, and of equally good orders that is
    returned which moves the fewest classes.
    """
    from scipy.optimize import linear_sum_assignment

    support = cells.support + DOUBT
    recalls = np.zeros((len(cells), len(cells)))  # rows true, columns given
    recalls[cells.labels, cells.predictions] = cells.counts / support[cells.labels]
    recalls[np.diag_indices(len(cells))] += 1e-9  # ties: a class keeps its place
    rows, columns = linear_sum_assignment(recalls, maximize=True)
    meaning = np.empty(len(cells), dtype=np.int64)
    meaning[columns] = rows
    return meaning


def _judge(cells: SparseConfusion, meaning: Integers, words: str = "") -> Reordered:
    moved = meaning != np.arange(len(cells))
    true, given, counts = cells.labels, cells.predictions, cells.counts
    concerned = moved[true]  # as many classes are moved as take their places
    before = concerned & (true == given)
    after = concerned & (true == meaning[given])
    support = np.bincount(true, counts * concerned, minlength=len(cells))
    present = support > 0
    recall = tuple(
        float(
            (np.bincount(true, counts * right, minlength=len(cells)) / np.maximum(support, 1))[
                present
            ].mean()
        )
        if present.any()
        else math.nan
        for right in (before, after)
    )
    lost_by_class, gained_by_class = (
        np.bincount(given, counts * right, minlength=len(cells)).astype(np.int64)
        for right in (before, after)
    )
    lost, gained = int(lost_by_class.sum()), int(gained_by_class.sum())
    most = int(np.argmax(gained_by_class - lost_by_class))
    number = int(counts[concerned].sum())
    right, samples = int(counts[true == given].sum()), int(counts.sum())
    return Reordered(
        words=words,
        meaning=meaning,
        counts=Paired(gained=gained, lost=lost, samples=number),
        rest=Paired(
            gained=gained - int(gained_by_class[most]),
            lost=lost - int(lost_by_class[most]),
            samples=number,
        ),
        recall=(recall[0], recall[1]),
        accuracy=(right / max(samples, 1), (right + gained - lost) / max(samples, 1)),
    )


def _is_clear(judged: Reordered, classes: int, *, alternatives: int, few: bool = False) -> bool:
    """Whether no chance, no untrained model and no confusable pair of classes explains it."""
    before, after = judged.recall
    skill = least_skill(2 if few else classes)
    chance = 1 / classes
    return (
        judged.counts.is_better(alternatives=alternatives)
        and judged.rest.is_better(alternatives=1, level=LEVEL_OF_REST)
        and (after - chance) / (1 - chance) >= skill
        and after >= LEAST_RATIO * before
    )


def least_skill(classes: int) -> float:
    """Return the mean recall above chance from which on another order is believed.

    Example:
        >>> least_skill(2), least_skill(25), least_skill(1000)
        (0.5, 0.4, 0.2)
    """
    falling = SKILL_OF_MANY_CLASSES / math.sqrt(classes)
    return max(LEAST_SKILL_OF_MANY, min(LEAST_SKILL, falling))


def _cycles(meaning: Integers) -> list[Integers]:
    """Return the groups of classes that change places among themselves."""
    left = set(np.flatnonzero(meaning != np.arange(meaning.size)).tolist())
    found = []
    while left:
        cycle = [min(left)]
        while (following := int(meaning[cycle[-1]])) != cycle[0]:
            cycle.append(following)
        left -= set(cycle)
        found.append(np.array(cycle, dtype=np.int64))
    return found


def _only(meaning: Integers, members: Integers) -> Integers:
    """Return the same order for some classes, the others in their places."""
    kept = np.arange(meaning.size)
    kept[members] = meaning[members]
    return kept


def _warning(found: Reordered, cells: SparseConfusion) -> Check:
    names = [str(name) for name in cells.classes]
    moved = np.flatnonzero(found.meaning != np.arange(len(cells)))
    pairs = [f"{names[given]} -> {names[found.meaning[given]]}" for given in moved.tolist()]
    before, after = found.accuracy
    figures: dict[str, Any] = {
        "accuracy": before,
        "accuracy_other": after,
        "moved_classes": len(moved),
        "moved_recall": found.recall[0],
        "moved_recall_other": found.recall[1],
        "gained": found.counts.gained,
        "lost": found.counts.lost,
        "p_value": found.counts.p_value,
    }
    return Check(
        id=LABEL_ORDER,
        verdict="warning",
        evidence=(
            f"the labels look permuted: accuracy is {before:.3f}, and {after:.3f} as if "
            f"{found.words}; {counted(len(moved), 'class', 'classes')} would be meant otherwise: "
            f"{some(pairs, shown=SHOWN_CLASSES)}: check the list of classes against the one of the "
            "training"
        ),
        figures=figures,
    )
