"""Ask every rule about one snapshot. The only place that decides what an answer means."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from gpudiag.finding import Finding, Rule, Severity
from gpudiag.snapshot import NotObserved, Snapshot

if TYPE_CHECKING:
    import pandas as pd


class Report(Struct, frozen=True, kw_only=True):
    """What the rules said about a snapshot.

    A root cause comes first and its consequences, which name it in ``explained_by``, right after.

    ``passed`` are the ids of the rules that had nothing to say, ``skipped`` maps the id of a
    rule that could not be asked to the missing fact, ``crashed`` maps the id of a rule with a
    fault of its own to the error.
    """

    findings: tuple[Finding, ...]  # worst first, then by id; consequences behind their root
    passed: tuple[str, ...]
    skipped: dict[str, str]
    crashed: dict[str, str]
    snapshot: Snapshot

    def fails(self, fail_on: Severity | None) -> bool:
        """Whether a finding is at least as bad as *fail_on* (None: never)."""
        return fail_on is not None and any(f.severity.rank <= fail_on.rank for f in self.findings)

    def to_frame(self) -> pd.DataFrame:
        """One row per finding, worst first; `explained_by` is the id of its root."""
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
    asked = tuple(rules)
    for rule in asked:
        try:
            answer = rule(snapshot)
        except NotObserved as gap:
            skipped[rule.id] = str(gap)
        except Exception as error:  # noqa: BLE001 - the one place where a crash becomes an entry
            crashed[rule.id] = f"{type(error).__name__}: {error}"
        else:
            findings.extend(answer.findings)
            if not answer.findings and answer.gaps:
                skipped[rule.id] = "; ".join(together(answer.gaps))
            elif not answer.findings:
                passed.append(rule.id)
    return Report(
        findings=in_order(explained(findings, asked)),
        passed=tuple(passed),
        skipped=skipped,
        crashed=crashed,
        snapshot=snapshot,
    )


def together(gaps: Iterable[str]) -> list[str]:
    """Why a rule could not be asked, each reason once, with all of the GPUs that it is about.

    Example:
        >>> together(["GPU 0: gone", "GPU 1: not supported", "GPU 2: gone"])
        ['GPU 0, 2: gone', 'GPU 1: not supported']
    """
    indices: dict[str, list[str]] = {}
    for gap in gaps:
        head, colon, reason = gap.partition(": ")
        index = head.removeprefix("GPU ")
        if colon and head != index and index.isdigit():
            indices.setdefault(reason, []).append(index)
        else:
            indices.setdefault(gap, [])
    return [
        f"GPU {', '.join(numbers)}: {reason}" if numbers else reason
        for reason, numbers in indices.items()
    ]


def explained(findings: Iterable[Finding], rules: Iterable[Rule]) -> list[Finding]:
    """The findings, each consequence with the id of the root that explains it.

    A root that is about one GPU explains what was found about that GPU or about the machine, not
    what was found about another GPU.
    """
    found = list(findings)
    consequences = {rule.id: rule.explains for rule in rules}

    def root_of(finding: Finding, seen: frozenset[str]) -> str:
        causes = [
            cause
            for cause in found
            if finding.id in consequences.get(cause.id, ())
            and cause.id not in seen
            and (None in (cause.subject, finding.subject) or cause.subject == finding.subject)
        ]
        if not causes:
            return finding.id
        return root_of(min(causes, key=_rank), seen | {finding.id})

    roots = [root_of(finding, frozenset({finding.id})) for finding in found]
    return [
        finding if root == finding.id else replace(finding, explained_by=root)
        for finding, root in zip(found, roots, strict=True)
    ]


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Worst root first, its consequences behind it; a root is as bad as the worst of them."""
    found = sorted(findings, key=_rank)
    worst: dict[str, int] = {}
    for finding in found:
        worst.setdefault(finding.explained_by or finding.id, finding.severity.rank)

    def place(finding: Finding) -> tuple[int, str, bool]:
        root = finding.explained_by or finding.id
        return worst[root], root, finding.explained_by is not None

    return tuple(sorted(found, key=place))


def _rank(finding: Finding) -> tuple[int, str]:
    return finding.severity.rank, finding.id
