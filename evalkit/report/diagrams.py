"""What the diagrams of confidence draw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evalkit.scoring.calibration import reliability

if TYPE_CHECKING:
    from evalkit.report.headline import Figure
    from evalkit.scoring.calibration import Cells

DIGITS = 4
HISTOGRAM_BINS = 32  # a power of two, as the cells they are made of


def diagrams(cells: Cells | None, *, level: float, ece: Figure | None = None) -> dict[str, Any]:
    """Reliability diagram and histogram of confidence.

    Args:
        cells: See `evalkit.scoring.calibration.confidence_cells`; None where the confidence is
            not known of every sample.
        level: Nominal coverage of the intervals.
        ece: The expected calibration error, which the diagram explains.

    Returns:
        ``reliability``, one entry per bin of `evalkit.scoring.calibration.reliability`, bins of
        equally many samples; ``histogram`` of 32 bins of equal width, right and wrong answers;
        ``ece`` with ``value``, ``low`` and ``high``. None for each that is not known.
    """
    if cells is None:
        return {"reliability": None, "histogram": None, "ece": None}
    total, _, right = cells
    fine = np.array([total - right, right])
    histogram = fine.reshape(2, HISTOGRAM_BINS, -1).sum(axis=2).astype(np.int64)
    return {
        "reliability": [
            {
                "from": round(row["lowest"], DIGITS),
                "to": round(row["highest"], DIGITS),
                "samples": int(row["samples"]),
                "confidence": round(row["confidence"], DIGITS),
                "accuracy": round(row["accuracy"], DIGITS),
                "low": round(row["accuracy_low"], DIGITS),
                "high": round(row["accuracy_high"], DIGITS),
            }
            for row in reliability(cells, level=level).to_dict("records")
        ],
        "histogram": {"wrong": histogram[0].tolist(), "right": histogram[1].tolist()},
        "ece": None if ece is None else {"value": ece.value, "low": ece.low, "high": ece.high},
    }
