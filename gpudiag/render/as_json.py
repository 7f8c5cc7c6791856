"""Report -> the JSON document of ``diagnose --format json``."""

from __future__ import annotations

import msgspec

from gpudiag.diagnose import Report
from gpudiag.snapshot import SCHEMA_VERSION


def as_json(report: Report) -> str:
    """The findings, what passed, was skipped (with the reason) or crashed, and the snapshot."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "gpudiag_version": report.snapshot.gpudiag_version,
        "findings": report.findings,
        "passed": report.passed,
        "skipped": report.skipped,
        "crashed": report.crashed,
        "snapshot": report.snapshot,
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
