"""Whether confidence means what it says, from counts that can be summed over batches."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

CELLS = 1 << 14  # width 6e-5: finer than any difference in confidence that means something
BINS = 15

Cells = npt.NDArray[np.float64]


def confidence_cells(confidence: npt.NDArray[np.float64], right: npt.NDArray[np.bool_]) -> Cells:
    """Sort samples into narrow cells of confidence.

    Args:
        confidence: Probability of the given class, in [0, 1], shape (N,).
        right: Whether the given class is the true one, shape (N,).

    Returns:
        Shape (3, CELLS): samples, sum of confidence and right samples of every cell. The cells of
        several batches add up.
    """
    cell = np.minimum((confidence * CELLS).astype(np.int64), CELLS - 1)
    rows = (None, confidence, right.astype(np.float64))
    return np.array([np.bincount(cell, weights=row, minlength=CELLS) for row in rows])


def expected_calibration_error(cells: Cells, *, bins: int = BINS) -> float:
    """Mean distance of confidence from accuracy, over bins of equally many samples.

    Bins are made of whole cells, so samples of practically the same confidence share a bin and
    bins may be fewer than asked for. The error is biased upward for few samples.

    Args:
        cells: What `confidence_cells` returned, or a sum of it, shape (3, CELLS).
        bins: How many bins.

    Returns:
        Fraction in [0, 1]; NaN without samples.

    Source:
        Equal-mass bins: Roelofs et al., AISTATS 2022, arXiv 2012.08668.

    Example:
        >>> sure_but_half_right = confidence_cells(np.ones(4), np.array([True, False] * 2))
        >>> expected_calibration_error(sure_but_half_right)
        0.5
    """
    samples = cells[0]
    total = samples.sum()
    if not total:
        return math.nan
    middle = samples.cumsum() - samples / 2  # rank of a cell's middle sample
    bin_of_cell = np.minimum((middle / total * bins).astype(np.int64), bins - 1)
    confident, right = (np.bincount(bin_of_cell, weights=row) for row in cells[1:])
    return float(np.abs(confident - right).sum() / total)
