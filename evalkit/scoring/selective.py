"""What a model can do when it may say "I do not know": coverage, risk and thresholds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from evalkit.errors import InputError
from evalkit.scoring.intervals import CONFIDENCE_LEVEL, wilson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evalkit.scoring.calibration import Cells

POINTS = 200  # of the curve that is written; enough for a line on any screen
WANTED = (0.9, 0.95, 0.99, 0.999)


def coverage_risk(cells: Cells, *, level: float = CONFIDENCE_LEVEL) -> pd.DataFrame:
    """Share of errors among the samples the model is surest of, for every share of samples.

    Needs confidences only. Samples of practically the same confidence (within 6e-5) enter
    together.

    Args:
        cells: What `evalkit.scoring.calibration.confidence_cells` returned, or a sum of it.
        level: Nominal coverage of the intervals, between 0 and 1.

    Returns:
        At most 200 rows, from the surest samples to all of them: ``threshold`` (confidence from
        which on a sample counts), ``coverage`` (share of samples that count), ``samples``,
        ``risk`` (share of errors among them) with ``risk_low`` and ``risk_high`` (Wilson, for a
        threshold that was chosen beforehand). Fractions in [0, 1]. Empty without samples.

    Source:
        El-Yaniv & Wiener, JMLR 11 (2010) 1605.

    Example:
        >>> from evalkit.scoring.calibration import confidence_cells
        >>> cells = confidence_cells(np.array([0.9, 0.5]), np.array([True, False]))
        >>> coverage_risk(cells)[["coverage", "risk"]].to_numpy().tolist()
        [[0.5, 0.0], [1.0, 0.5]]
    """
    table = _from_the_top(cells, level)
    if len(table) <= POINTS:
        return table
    chosen = np.unique(np.linspace(0, len(table) - 1, POINTS).round().astype(np.int64))
    return table.iloc[chosen].reset_index(drop=True)


def area_under_risk(cells: Cells) -> float:
    """Mean risk over all coverages (AURC): low when errors come with low confidence.

    Returns:
        Fraction in [0, 1]; NaN without samples.

    Source:
        Geifman, Uziel & El-Yaniv, ICLR 2019.

    Example:
        >>> from evalkit.scoring.calibration import confidence_cells
        >>> area_under_risk(confidence_cells(np.array([0.9, 0.5]), np.array([True, False])))
        0.25
    """
    table = _from_the_top(cells, CONFIDENCE_LEVEL)
    if table.empty:
        return math.nan
    added = np.diff(table["samples"].to_numpy(), prepend=0)
    return float((table["risk"].to_numpy() * added).sum() / added.sum())


def thresholds(
    cells: Cells, *, precisions: Sequence[float] = WANTED, level: float = CONFIDENCE_LEVEL
) -> pd.DataFrame:
    """From which confidence on the model is right as often as wanted.

    Args:
        cells: As for `coverage_risk`.
        precisions: Wanted shares of right answers among those that count, between 0 and 1.
        level: One-sided certainty of the cautious threshold, between 0 and 1.

    Returns:
        One row per precision: ``precision``; ``threshold`` and ``coverage``, the lowest confidence
        from which on the samples here reach it; ``sure_threshold`` and ``sure_coverage``, from
        which on even the lower end of their interval does. NaN where no threshold does. Choose a
        threshold on other samples than it is reported on.

    Raises:
        InputError: A precision is not between 0 and 1.

    Example:
        >>> from evalkit.scoring.calibration import confidence_cells
        >>> confidence = np.linspace(0.5, 1, 1000)
        >>> cells = confidence_cells(confidence, confidence > 0.7)
        >>> thresholds(cells, precisions=[0.9]).round(2)["threshold"].tolist()
        [0.67]
    """
    for wanted in precisions:
        if not 0 < wanted < 1:
            raise InputError(f"precisions must be between 0 and 1, got {wanted}")
    table = _from_the_top(cells, 2 * level - 1)  # one end of it holds with the level
    rows = []
    for wanted in precisions:
        row = {"precision": float(wanted)}
        for name, risk in (("", "risk"), ("sure_", "risk_high")):
            enough = np.flatnonzero(table[risk].to_numpy() <= 1 - wanted)
            last = table.iloc[enough[-1]] if enough.size else None
            row[f"{name}threshold"] = math.nan if last is None else float(last["threshold"])
            row[f"{name}coverage"] = 0.0 if last is None else float(last["coverage"])
        rows.append(row)
    return pd.DataFrame(rows)


def _from_the_top(cells: Cells, level: float) -> pd.DataFrame:
    """One row per cell that holds samples, the most confident first, cumulative."""
    occupied: npt.NDArray[np.int64] = np.flatnonzero(cells[0])[::-1]
    samples = cells[0][occupied].cumsum()
    errors = samples - cells[2][occupied].cumsum()
    low, high = wilson(errors, samples, level=level)
    total = samples[-1] if samples.size else 1.0
    return pd.DataFrame(
        {
            "threshold": occupied / cells.shape[1],
            "coverage": samples / total,
            "samples": samples.astype(np.int64),
            "risk": errors / samples,
            "risk_low": low,
            "risk_high": high,
        }
    )
