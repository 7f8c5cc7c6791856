"""Report -> CSV, one row per finding; a spreadsheet that opens it computes nothing."""

from __future__ import annotations

import csv
import io

from gpudiag.diagnose import Report
from gpudiag.finding import Finding
from gpudiag.render.as_table import csv_cell

COLUMNS = (
    "id",
    "severity",
    "title",
    "subject",
    "evidence",
    "cause",
    "fix",
    "explained_by",
    "links",
)


def as_csv(report: Report) -> str:
    """One header row, then the findings, worst first; what was seen is joined with ``"; "``."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_row(finding) for finding in report.findings)
    return text.getvalue().rstrip("\n")


def _row(finding: Finding) -> list[str]:
    return [
        finding.id,
        str(finding.severity),
        csv_cell(finding.title),
        csv_cell(finding.subject or ""),
        csv_cell("; ".join(finding.evidence)),
        csv_cell(finding.cause),
        csv_cell(finding.fix),
        finding.explained_by or "",
        " ".join(finding.links),
    ]
