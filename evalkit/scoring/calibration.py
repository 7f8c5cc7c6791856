"""Whether confidence means what it says, from counts that can be summed over batches."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pandas as pd

from evalkit.scoring.intervals import CONFIDENCE_LEVEL, wilson

PARTS = 17  # of a bin, of equally many samples each, that are drawn anew for an interval
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
    return float(_errors(cells[None], bins)[0])


def calibration_interval(
    cells: Cells,
    *,
    bins: int = BINS,
    replicates: int = 1_000,
    seed: int = 0,
    level: float = CONFIDENCE_LEVEL,
) -> tuple[float, float]:
    """Bootstrap interval of `expected_calibration_error`.

    Samples are drawn anew in 17 parts of neighbouring confidence per bin, bins are made anew for
    every replicate. The error is biased upward, and so is every replicate: its percentiles are
    moved by twice that bias, but not beyond 0 nor past the error itself.

    Args:
        cells: As for `expected_calibration_error`.
        bins: How many bins.
        replicates: How often the samples are drawn anew.
        seed: Start of the random numbers.
        level: Nominal coverage, between 0 and 1.

    Returns:
        Lower and upper bound, fractions in [0, 1]; NaN without samples.

    Source:
        Davison & Hinkley, Bootstrap Methods and their Application (1997), chapter 5.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> confidence = rng.uniform(0.5, 1, 2000)
        >>> cells = confidence_cells(confidence, rng.random(2000) < confidence - 0.1)
        >>> low, high = calibration_interval(cells)
        >>> low < 0.1 < high
        True
    """
    total = int(cells[0].sum())
    if not total:
        return math.nan, math.nan
    coarse = _coarse(cells, PARTS * bins)
    estimate = expected_calibration_error(cells, bins=bins)
    of_parts = float(_errors(coarse[None], bins)[0])  # differs a little: a part is in one bin
    right, wrong = coarse[2], coarse[0] - coarse[2]
    mean = coarse[1] / np.maximum(coarse[0], 1)
    shares = np.concatenate([right, wrong]) / total
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(total, shares / shares.sum(), size=replicates).astype(np.float64)
    drawn_right, drawn_wrong = np.split(drawn, 2, axis=1)
    number = drawn_right + drawn_wrong
    errors = _errors(np.stack([number, number * mean, drawn_right], axis=1), bins)
    bias = errors.mean() - of_parts
    moved = errors - of_parts - 2 * bias + estimate
    low, high = np.quantile(moved, [(1 - level) / 2, (1 + level) / 2])
    return float(min(max(low, 0.0), estimate)), float(min(max(high, estimate), 1.0))


def reliability(cells: Cells, *, bins: int = BINS, level: float = CONFIDENCE_LEVEL) -> pd.DataFrame:
    """Confidence and accuracy of bins of equally many samples.

    Args:
        cells: As for `expected_calibration_error`.
        bins: How many bins; fewer where many samples share a confidence.
        level: Nominal coverage of the intervals, between 0 and 1.

    Returns:
        One row per bin that holds samples, ascending: ``lowest`` and ``highest`` (bounds of the
        confidence), ``samples``, ``confidence`` (mean), ``accuracy`` with ``accuracy_low`` and
        ``accuracy_high`` (Wilson), and ``gap``, the confidence less the accuracy.

    Example:
        >>> cells = confidence_cells(np.array([0.6, 0.9]), np.array([True, False]))
        >>> reliability(cells, bins=2)[["confidence", "accuracy", "gap"]].round(2)
           confidence  accuracy  gap
        0         0.6       1.0 -0.4
        1         0.9       0.0  0.9
    """
    occupied = np.flatnonzero(cells[0])
    kept = cells[:, occupied]
    bin_of_cell = _bins(kept[None, 0], bins)[0]
    found, starts = np.unique(bin_of_cell, return_index=True)
    if not found.size:
        columns = "lowest highest samples confidence accuracy accuracy_low accuracy_high gap"
        return pd.DataFrame(columns=columns.split(), dtype=np.float64)
    samples, confidence, right = np.add.reduceat(kept, starts, axis=1)
    ends = np.append(starts[1:], occupied.size) - 1
    low, high = wilson(right, samples, level=level)
    return pd.DataFrame(
        {
            "lowest": occupied[starts] / cells.shape[1],
            "highest": (occupied[ends] + 1) / cells.shape[1],
            "samples": samples.astype(np.int64),
            "confidence": confidence / samples,
            "accuracy": right / samples,
            "accuracy_low": low,
            "accuracy_high": high,
            "gap": (confidence - right) / samples,
        }
    )


def _bins(samples: Cells, bins: int) -> npt.NDArray[np.int64]:
    """Bin of every cell by the rank of its middle sample, shape (R, cells)."""
    total = np.maximum(samples.sum(axis=1, keepdims=True), 1)
    middle = samples.cumsum(axis=1) - samples / 2
    return np.asarray(np.minimum((middle / total * bins).astype(np.int64), bins - 1))


def _errors(tables: Cells, bins: int) -> Cells:
    """The error of every table of cells, shape (R, 3, cells) to (R,); NaN without samples."""
    samples, confidence, right = tables.transpose(1, 0, 2)
    rows = np.arange(len(tables))[:, None] * bins
    key = (_bins(samples, bins) + rows).ravel()
    gaps = np.bincount(key, weights=(confidence - right).ravel(), minlength=len(tables) * bins)
    total = samples.sum(axis=1)
    summed = np.abs(gaps.reshape(len(tables), bins)).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(total > 0, summed / total, np.nan))


def _coarse(cells: Cells, parts: int) -> Cells:
    """At most so many neighbouring parts of about equally many samples."""
    kept = cells[:, np.flatnonzero(cells[0])]
    part = _bins(kept[None, 0], parts)[0]
    return np.add.reduceat(kept, np.unique(part, return_index=True)[1], axis=1)
