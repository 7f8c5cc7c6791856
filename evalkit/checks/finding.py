"""The vocabulary of the checks: what was asked, what came out, and the figures behind it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

VERDICTS = ("passed", "warning", "explained", "skipped")
RIVAL = "as_good_as_another_order"  # the figure of pixels that look like exchanged labels


@dataclass(frozen=True, kw_only=True)
class Check:
    """One question to a run, and its answer.

    Attributes:
        id: Name of the check, such as "channel-order"; docs/checks.md lists them.
        verdict: "passed"; "warning"; "explained": something was seen that another check's warning
            accounts for; or "skipped": it was not asked.
        evidence: One sentence with the measured values; with a warning also what to do.
        figures: The same values for programs: plain numbers and text.

    Example:
        >>> Check(id="precision", verdict="passed", evidence="0 of 64 changed").as_dict()
        {'id': 'precision', 'verdict': 'passed', 'evidence': '0 of 64 changed'}
    """

    id: str
    verdict: str
    evidence: str
    figures: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for ``summary.json``."""
        return {"id": self.id, "verdict": self.verdict, "evidence": self.evidence, **self.figures}

    def explained_by(self, other: Check) -> Check:
        """Return this warning as one that *other* accounts for."""
        evidence = f"{self.evidence} (explained by {other.id})"
        return replace(self, verdict="explained", evidence=evidence)


def warnings_of(checks: Iterable[Check]) -> list[str]:
    """Return the sentences that a reader must see.

    Example:
        >>> warnings_of([Check(id="precision", verdict="passed", evidence="0 of 64 changed")])
        []
    """
    return [check.evidence for check in checks if check.verdict == "warning"]


def skipped(check_id: str, reason: str) -> Check:
    """Return the answer to a question that was not asked.

    Example:
        >>> skipped("batch-norm", "the model has no batch norm").verdict
        'skipped'
    """
    return Check(id=check_id, verdict="skipped", evidence=reason)
