"""The vocabulary of a diagnosis: how bad, what was seen, why, what to do."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from gpudiag.cure import fitted
from gpudiag.snapshot import Gpu, NotObserved, Snapshot, known, known_or


class Severity(StrEnum):
    """How much a finding hurts."""

    ERROR = "error"  # something does not work or gives wrong results
    WARNING = "warning"  # it will hurt
    NOTE = "note"

    @property
    def rank(self) -> int:
        """0 for the worst; sorts findings."""
        return list(Severity).index(self)


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that is wrong on this machine. Id, severity, title and links come from the rule."""

    evidence: tuple[str, ...]  # what was seen, one fact per line, values included
    cause: str  # one sentence: why this hurts
    fix: str  # one imperative sentence, with the command where there is one
    subject: str | None = None  # gpu:<uuid>, None for the machine as a whole
    id: str = ""
    severity: Severity = Severity.NOTE
    title: str = ""
    links: tuple[str, ...] = ()
    explained_by: str | None = None  # id of the finding of which this one is a consequence


Found: TypeAlias = Finding | tuple[Finding, ...] | None


class Answer(Struct, frozen=True):
    """What a rule found, and why it could not be asked of some GPUs."""

    findings: tuple[Finding, ...] = ()
    gaps: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A check with its catalogue entry. Calling it asks the snapshot."""

    id: str
    severity: Severity
    links: tuple[str, ...]
    explains: tuple[str, ...]  # ids of the rules whose findings are consequences of this one's
    check: Callable[..., Found]  # the function under the decorator, which the catalogue reads
    ask: Callable[[Snapshot], Answer]

    @property
    def title(self) -> str:
        """The first line of the check's docstring."""
        return (self.check.__doc__ or "").partition("\n")[0].rstrip(".")

    @property
    def explanation(self) -> str:
        """The rest of the docstring: how the fault is seen, and why it comes about."""
        return (inspect.getdoc(self.check) or "").partition("\n")[2].strip()

    def __call__(self, snapshot: Snapshot) -> Answer:
        """Ask *snapshot*; findings carry this rule's id, severity, title and links.

        Raises:
            NotObserved: A fact that the rule needs is missing.
        """
        answer = self.ask(snapshot)
        stamped = tuple(
            replace(
                finding,
                id=self.id,
                severity=self.severity,
                title=self.title,
                links=self.links,
                fix=fitted(finding.fix, snapshot),
            )
            for finding in answer.findings
        )
        return Answer(stamped, answer.gaps)


def rule(
    rule_id: str, severity: Severity, *links: str, explains: tuple[str, ...] = ()
) -> Callable[[Callable[[Snapshot], Found]], Rule]:
    """Make a rule of a check on the whole machine; the docstring is its catalogue entry.

    Its first line is the title, the body says how the fault is seen and why it comes about. A
    paragraph that begins with "Ignore it when", "Cause:" or "Cure:" goes under its own heading.
    """

    def decorate(check: Callable[[Snapshot], Found]) -> Rule:
        def ask(snapshot: Snapshot) -> Answer:
            found = check(snapshot)
            if found is None:
                return Answer()
            return Answer((found,) if isinstance(found, Finding) else found)

        return Rule(
            id=rule_id, severity=severity, links=links, explains=explains, check=check, ask=ask
        )

    return decorate


def gpu_rule(
    rule_id: str, severity: Severity, *links: str, explains: tuple[str, ...] = ()
) -> Callable[[Callable[[Gpu], Finding | None]], Rule]:
    """Make a rule of a check on one GPU; it is asked of every GPU that NVML lists."""

    def decorate(check: Callable[[Gpu], Finding | None]) -> Rule:
        ask = _of_each_gpu(lambda gpu, _: check(gpu))
        return Rule(
            id=rule_id, severity=severity, links=links, explains=explains, check=check, ask=ask
        )

    return decorate


def gpu_in_machine_rule(
    rule_id: str, severity: Severity, *links: str, explains: tuple[str, ...] = ()
) -> Callable[[Callable[[Gpu, Snapshot], Finding | None]], Rule]:
    """Make a rule of a check on one GPU that looks at the machine around it, too."""

    def decorate(check: Callable[[Gpu, Snapshot], Finding | None]) -> Rule:
        ask = _of_each_gpu(check)
        return Rule(
            id=rule_id, severity=severity, links=links, explains=explains, check=check, ask=ask
        )

    return decorate


def _of_each_gpu(check: Callable[[Gpu, Snapshot], Finding | None]) -> Callable[[Snapshot], Answer]:
    def ask(snapshot: Snapshot) -> Answer:
        findings: list[Finding] = []
        gaps: list[str] = []
        for gpu in known(snapshot.nvml.gpus):
            try:
                finding = check(gpu, snapshot)
            except NotObserved as gap:
                gaps.append(f"GPU {gpu.index}: {gap}")
                continue
            if finding is not None:
                findings.append(replace(finding, subject=subject_of(gpu)))
        return Answer(tuple(findings), tuple(gaps))

    return ask


def subject_of(gpu: Gpu) -> str:
    """How a finding names a GPU: by UUID, by index where the UUID is not known."""
    return f"gpu:{known_or(gpu.uuid, str(gpu.index))}"
