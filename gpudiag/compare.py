"""Two snapshots -> what differs between their machines: "works on my machine"."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from gpudiag.diagnose import Report, diagnose
from gpudiag.finding import Finding, Rule, Severity
from gpudiag.snapshot import Fact, Missing, Snapshot
from gpudiag.traits import Traits, Value, applies, can_matter, look_up, names, traits_of, was_asked

PASSED = "passed"


class Difference(Struct, frozen=True, kw_only=True):
    """A fact with two values; one that is not known is told with its reason."""

    fact: str
    matters: bool  # whether it can decide if a program runs
    a: Fact[Value]
    b: Fact[Value]

    @property
    def asked(self) -> bool:
        """Whether both sides were asked for it."""
        return was_asked(self.a) and was_asked(self.b)

    @property
    def known(self) -> bool:
        """Whether both sides are known."""
        return not isinstance(self.a, Missing) and not isinstance(self.b, Missing)


class OneSided(Struct, frozen=True, kw_only=True):
    """A rule that found something on one side only."""

    id: str
    severity: Severity
    title: str
    side: str  # "a" or "b"
    evidence: tuple[str, ...]
    other: str  # "passed", or why the rule could not be asked on the other side


class Comparison(Struct, frozen=True, kw_only=True):
    """What differs, the facts that can matter first, and the rules that fire on one side only."""

    differences: tuple[Difference, ...]
    rules: tuple[OneSided, ...]

    @property
    def matters(self) -> bool:
        """Whether anything was found that can decide if a program runs.

        A fact that matters and that is known on one side only counts, as it may differ; not so
        one that the other side was not asked for, nor a rule that needs such a fact.
        """
        return any(difference.matters for difference in self.differences) or any(
            rule.severity is not Severity.NOTE and was_asked(Missing(rule.other))
            for rule in self.rules
        )


def compare(a: Snapshot, b: Snapshot, *, rules: Iterable[Rule]) -> Comparison:
    """What differs between two machines.

    Args:
        a: One machine.
        b: The other one.
        rules: The rules to ask about both.

    Example:
        >>> from gpudiag.snapshot import TorchBuild
        >>> old, new = (Snapshot(torch=TorchBuild(version=v)) for v in ("2.8.0", "2.9.0"))
        >>> compare(old, new, rules=()).differences
        (Difference(fact='torch.version', matters=True, a='2.8.0', b='2.9.0'),)
    """
    asked = tuple(rules)
    return Comparison(
        differences=_differences(traits_of(a), traits_of(b)),
        rules=_one_sided(diagnose(a, asked), diagnose(b, asked)),
    )


def _differences(a: Traits, b: Traits) -> tuple[Difference, ...]:
    found = []
    for name in names((a, b)):
        if not (applies(a, name) and applies(b, name)):
            continue  # a machine without GPUs: their number says it
        left, right = look_up(a, name), look_up(b, name)
        if left == right or (isinstance(left, Missing) and isinstance(right, Missing)):
            continue
        matters = can_matter(name) and was_asked(left) and was_asked(right)
        found.append(Difference(fact=name, matters=matters, a=left, b=right))
    return tuple(sorted(found, key=lambda one: not one.matters))


def _one_sided(a: Report, b: Report) -> tuple[OneSided, ...]:
    found = []
    for side, here, there in (("a", a, b), ("b", b, a)):
        ids_there = {finding.id for finding in there.findings}
        by_id: dict[str, list[Finding]] = {}
        for finding in here.findings:
            if finding.id not in ids_there:
                by_id.setdefault(finding.id, []).append(finding)
        found += [
            OneSided(
                id=rule_id,
                severity=findings[0].severity,
                title=findings[0].title,
                side=side,
                evidence=tuple(line for finding in findings for line in finding.evidence),
                other=there.skipped.get(rule_id) or there.crashed.get(rule_id) or PASSED,
            )
            for rule_id, findings in by_id.items()
        ]
    return tuple(sorted(found, key=lambda one: (one.severity.rank, one.id, one.side)))
