"""An order of the classes in which those that are mistaken for each other stand together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evalkit.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

MOST_CLASSES = 3_000  # their distances take 36 MB and a second
# Turning branches until neighbours fit best is cubic: 0.1 s for 300 classes, 4 s for 1,000.
POLISHED_UP_TO = 300


def similarity_order(counts: npt.NDArray[np.int64]) -> list[int] | None:
    """Order classes so that confusions gather in blocks along the diagonal.

    Two classes are similar when large shares of their samples are given the other class; average
    linkage joins what is similar, and the leaves of its tree give the order.

    Args:
        counts: Confusion matrix, shape (C, C), rows true and columns given classes.

    Returns:
        Positions of the classes in their new order; the order as it is where nothing is confused;
        None where there are too many classes.

    Raises:
        InputError: SciPy is not installed.

    Example:
        >>> similarity_order(np.array([[8, 0, 2], [0, 9, 0], [3, 0, 7]]))
        [0, 2, 1]
    """
    size = len(counts)
    if size > MOST_CLASSES:
        return None
    similarity = _similarity(counts)
    if size < 3 or not similarity.any():  # noqa: PLR2004 - two classes have one order
        return list(range(size))
    try:
        from scipy.cluster.hierarchy import leaves_list, linkage
    except ImportError as error:
        raise InputError("ordering classes needs scipy: pip install 'gpudiag[report]'") from error
    upper = np.triu_indices(size, 1)
    distance = (similarity.max() - similarity)[upper]
    tree: Any = linkage(distance, method="average", optimal_ordering=size <= POLISHED_UP_TO)
    order: list[int] = leaves_list(tree).tolist()
    return order if order[0] < order[-1] else order[::-1]  # a tree has no left and right


def _similarity(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """The mean share of two classes' samples that were given the other one, shape (C, C)."""
    support = np.maximum(counts.sum(axis=1, keepdims=True), 1)  # (C, 1)
    shares = (counts / support).astype(np.float32)
    similarity: npt.NDArray[np.float32] = (shares + shares.T) / 2
    np.fill_diagonal(similarity, 0)
    return similarity
