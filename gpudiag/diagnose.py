"""Ask every rule about one snapshot. The only place that decides what an answer means."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from msgspec import Struct

from gpudiag.finding import Finding, Rule, Severity
from gpudiag.snapshot import NotObserved, Snapshot

if TYPE_CHECKING:
    import pandas as pd


class Report(Struct, frozen=True, kw_only=True):
    """What the rules said about a snapshot.

    ``passed`` are the ids of the rules that had nothing to say, ``skipped`` maps the id of a
    rule that could not be asked to the missing fact, ``crashed`` maps the id of a rule with a
    fault of its own to the error.
    """

    findings: tuple[Finding, ...]  # worst first, then by id
    passed: tuple[str, ...]
    skipped: dict[str, str]
    crashed: dict[str, str]
    snapshot: Snapshot

    def fails(self, fail_on: Severity | None) -> bool:
        """Whether a finding is at least as bad as *fail_on* (None: never)."""
        return fail_on is not None and any(f.severity.rank <= fail_on.rank for f in self.findings)

    def to_frame(self) -> pd.DataFrame:
        """One row per finding, worst first: id, severity, title, subject, evidence, cause, fix."""
        from gpudiag.render.as_frame import findings_frame

        return findings_frame(self)

    def _repr_html_(self) -> str:
        """How a notebook shows a report."""
        from gpudiag.render.as_html import fragment

        return fragment(self)


def diagnose(snapshot: Snapshot, rules: Iterable[Rule]) -> Report:
    """Ask *rules* about *snapshot*; a rule that crashes is an entry, and the others run on."""
    findings: list[Finding] = []
    passed: list[str] = []
    skipped: dict[str, str] = {}
    crashed: dict[str, str] = {}
    for rule in rules:
        try:
            answer = rule(snapshot)
        except NotObserved as gap:
            skipped[rule.id] = str(gap)
        except Exception as error:  # noqa: BLE001 - the one place where a crash becomes an entry
            crashed[rule.id] = f"{type(error).__name__}: {error}"
        else:
            findings.extend(answer.findings)
            if not answer.findings and answer.gaps:
                skipped[rule.id] = "; ".join(answer.gaps)
            elif not answer.findings:
                passed.append(rule.id)
    findings.sort(key=lambda finding: (finding.severity.rank, finding.id))
    return Report(
        findings=tuple(findings),
        passed=tuple(passed),
        skipped=skipped,
        crashed=crashed,
        snapshot=snapshot,
    )
