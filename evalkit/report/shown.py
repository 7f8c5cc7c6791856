"""Of too many classes for one page those that a reader wants to see."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from evalkit.scoring.sparse import DENSE_CLASSES, SparseConfusion

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt
    import pandas as pd

ALL_UP_TO = DENSE_CLASSES  # their page takes 20 MB and opens in some seconds
SHOWN = 2_000  # where there are more


def shown_classes(
    cells: SparseConfusion, per_class: pd.DataFrame, *, first: Iterable[int] = ()
) -> npt.NDArray[np.int64]:
    """Choose the classes of a page.

    Args:
        cells: Counts of C classes.
        per_class: See `evalkit.per_class_scores`.
        first: Classes that are there in any case.

    Returns:
        Positions in class order: all of them up to 10,000. Of more, 2,000: *first*, then the worst
        by the upper end of F1's interval, half of what is left, then those with the most mistakes.

    Example:
        >>> from evalkit.scoring.scores import per_class_scores
        >>> from evalkit.scoring.sparse import sparse_confusion
        >>> counts = sparse_confusion([0, 1, 20_000], [0, 2, 20_000], 20_001)
        >>> shown_classes(counts, per_class_scores(counts), first=[20_000])[[0, 1, 2, -1]].tolist()
        [0, 1, 2, 20000]
    """
    size = len(cells)
    if size <= ALL_UP_TO:
        return np.arange(size)
    wanted = np.unique(np.fromiter(first, dtype=np.int64))
    worst = np.argsort(per_class["f1_high"].to_numpy(), kind="stable")  # undefined ones last
    mistakes = np.argsort(2 * cells.hits - cells.support - cells.predicted, kind="stable")
    for order, most in ((worst, (SHOWN + wanted.size) // 2), (mistakes, SHOWN)):
        new = order[~np.isin(order, wanted)]
        wanted = np.append(wanted, new[: max(most - wanted.size, 0)])
    return np.sort(wanted)


def restricted(cells: SparseConfusion, positions: npt.NDArray[np.int64]) -> SparseConfusion:
    """The cells of some classes alone, given by their ascending positions.

    Example:
        >>> from evalkit.scoring.sparse import sparse_confusion
        >>> counts = sparse_confusion(["a", "b", "c"], ["a", "c", "c"], ["a", "b", "c"])
        >>> restricted(counts, np.array([1, 2])).to_long().to_numpy().tolist()
        [['b', 'c', 1], ['c', 'c', 1]]
    """
    if len(positions) == len(cells):
        return cells
    place = np.full(len(cells), -1)
    place[positions] = np.arange(len(positions))
    labels, predictions = place[cells.labels], place[cells.predictions]
    kept = (labels >= 0) & (predictions >= 0)
    return SparseConfusion(
        labels[kept], predictions[kept], cells.counts[kept], cells.classes[positions]
    )
