"""Rows and findings -> pandas; a missing fact is NA, its reason in ``frame.attrs["missing"]``."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from gpudiag.diagnose import Report
from gpudiag.snapshot import Missing
from gpudiag.tables import Row

FINDING_COLUMNS = (
    *("id", "severity", "title", "subject", "evidence", "cause", "fix"),
    "explained_by",
)


def frame(rows: Sequence[Row], columns: Sequence[str]) -> pd.DataFrame:
    """A frame with the given columns, also where there are no rows."""
    values = [
        [None if isinstance(row[column], Missing) else row[column] for column in columns]
        for row in rows
    ]
    table = pd.DataFrame(values, columns=list(columns)).convert_dtypes()
    table.attrs["missing"] = {
        f"{number}.{column}": row[column].missing
        for number, row in enumerate(rows)
        for column in columns
        if isinstance(row[column], Missing)
    }
    return table


def findings_frame(report: Report) -> pd.DataFrame:
    """One row per finding, worst first."""
    rows = [[getattr(finding, column) for column in FINDING_COLUMNS] for finding in report.findings]
    table = pd.DataFrame(rows, columns=list(FINDING_COLUMNS))
    table["severity"] = table["severity"].map(str)
    return table
