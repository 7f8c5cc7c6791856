"""Which classes are taken for which, the most often first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from evalkit.scoring.sparse import SparseConfusion


def most_confused(cells: SparseConfusion, most: int) -> list[tuple[int, int, int]]:
    """Position of the true and of the given class and their samples, the most samples first.

    Example:
        >>> from evalkit.scoring.sparse import sparse_confusion
        >>> most_confused(sparse_confusion([0, 1, 1, 1], [1, 0, 0, 1], 2), 5)
        [(1, 0, 2), (0, 1, 1)]
    """
    wrong = np.flatnonzero(cells.labels != cells.predictions)
    first = wrong[np.argsort(-cells.counts[wrong], kind="stable")[:most]]
    columns = (cells.labels, cells.predictions, cells.counts)
    return list(zip(*(column[first].tolist() for column in columns), strict=True))
