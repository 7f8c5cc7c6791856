"""The parts of the samples that were scored by themselves, as a report shows them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

MOST = 200  # rows of a page; all of them are in slices.csv


@dataclass(frozen=True, kw_only=True)
class SliceRow:
    """A slice: fractions in [0, 1], None where undefined."""

    column: str
    value: str
    samples: int
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    macro_f1: float | None
    difference: float | None  # of the accuracy to that of all other samples
    difference_low: float | None
    difference_high: float | None
    worse: bool


def slice_rows(slices: pd.DataFrame | None, *, most: int = MOST) -> tuple[list[SliceRow], int]:
    """The first rows of a table of slices, and how many there are beyond.

    Args:
        slices: See `evalkit.scoring.slices.Slices.table`; None where nobody asked for slices.
        most: How many rows.
    """
    if slices is None:
        return [], 0
    fields = SliceRow.__dataclass_fields__
    rows = [
        SliceRow(**{str(name): _plain(value) for name, value in row.items() if name in fields})
        for row in slices.head(most).to_dict("records")
    ]
    return rows, max(len(slices) - most, 0)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
