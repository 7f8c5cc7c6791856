"""Report -> the JSON document of ``diagnose --format json``."""

from __future__ import annotations

import msgspec

from gpudiag.diagnose import Report
from gpudiag.finding import Finding
from gpudiag.snapshot import SCHEMA_VERSION, Snapshot


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A report as it is written: the findings, and what they rest on."""

    schema_version: int
    gpudiag_version: str
    findings: tuple[Finding, ...]
    passed: tuple[str, ...]
    skipped: dict[str, str]
    crashed: dict[str, str]
    snapshot: Snapshot


def as_json(report: Report) -> str:
    """The findings, what passed, was skipped (with the reason) or crashed, and the snapshot."""
    document = Document(
        schema_version=SCHEMA_VERSION,
        gpudiag_version=report.snapshot.gpudiag_version,
        findings=report.findings,
        passed=report.passed,
        skipped=report.skipped,
        crashed=report.crashed,
        snapshot=report.snapshot,
    )
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
