"""Many snapshots -> what most machines have, the odd ones out, and how often each rule fires."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from msgspec import Struct

from gpudiag.diagnose import diagnose
from gpudiag.finding import Rule, Severity
from gpudiag.snapshot import Fact, Missing, Snapshot
from gpudiag.traits import Traits, Value, applies, can_matter, look_up, names, traits_of, was_asked


class Group(Struct, frozen=True, kw_only=True):
    """The machines that have one value of a fact."""

    value: Fact[Value]
    machines: tuple[str, ...]


class Spread(Struct, frozen=True, kw_only=True):
    """A fact in which the machines differ.

    The usual value is that of more than half of the machines; None where no value is.
    """

    fact: str
    matters: bool
    usual: Group | None
    odd: tuple[Group, ...]  # the rarest first


class Count(Struct, frozen=True, kw_only=True):
    """The machines on which a rule found something."""

    id: str
    severity: Severity
    title: str
    machines: tuple[str, ...]


class Fleet(Struct, frozen=True, kw_only=True):
    """Many machines at one glance; `unreadable` maps a file to the reason."""

    machines: tuple[str, ...]
    rules: tuple[Count, ...]  # worst first, then the most frequent
    spreads: tuple[Spread, ...]  # what can matter first, then the fewest odd ones
    alike: tuple[str, ...]  # the facts in which all machines agree
    unreadable: dict[str, str]

    def is_odd(self, fail_on: Severity | None) -> bool:
        """Whether a machine stands out, a rule fires at *fail_on* or above, or a file failed.

        A fact without a usual value makes nobody odd, and neither does one that rarely matters.
        """
        fires = fail_on is not None and any(c.severity.rank <= fail_on.rank for c in self.rules)
        stands_out = any(spread.matters and spread.usual for spread in self.spreads)
        return fires or stands_out or bool(self.unreadable)


def survey(
    snapshots: Mapping[str, Snapshot],
    *,
    rules: Iterable[Rule],
    unreadable: Mapping[str, str] | None = None,
) -> Fleet:
    """Compare the machines of a fleet with each other.

    Args:
        snapshots: The machines by name.
        rules: The rules to ask about each.
        unreadable: Files that could not be read, with the reason.

    Example:
        >>> from gpudiag.snapshot import TorchBuild
        >>> versions = {"a": "2.9.0", "b": "2.9.0", "c": "2.8.0"}
        >>> fleet = survey(
        ...     {n: Snapshot(torch=TorchBuild(version=v)) for n, v in versions.items()}, rules=()
        ... )
        >>> fleet.spreads[0].usual.value, fleet.spreads[0].odd
        ('2.9.0', (Group(value='2.8.0', machines=('c',)),))
    """
    asked = tuple(rules)
    facts = {name: traits_of(snapshot) for name, snapshot in snapshots.items()}
    spreads, alike = _spreads(facts)
    return Fleet(
        machines=tuple(snapshots),
        rules=_counts(snapshots, asked),
        spreads=spreads,
        alike=alike,
        unreadable=dict(unreadable or {}),
    )


def _spreads(facts: Mapping[str, Traits]) -> tuple[tuple[Spread, ...], tuple[str, ...]]:
    spreads, alike = [], []
    for name in names(facts.values()):
        holders: dict[Fact[Value], list[str]] = {}
        for machine, found in facts.items():
            value = look_up(found, name)
            if applies(found, name) and was_asked(value):
                holders.setdefault(value, []).append(machine)
        if len(holders) > 1:
            spreads.append(_spread(name, holders))
        elif any(not isinstance(value, Missing) for value in holders):
            alike.append(name)
    spreads.sort(key=lambda one: (not one.matters, one.usual is None, _odd_count(one)))
    return tuple(spreads), tuple(alike)


def _spread(name: str, holders: Mapping[Fact[Value], list[str]]) -> Spread:
    groups = [Group(value=value, machines=tuple(names)) for value, names in holders.items()]
    groups.sort(key=lambda group: len(group.machines))
    total = sum(len(group.machines) for group in groups)
    usual = groups[-1] if 2 * len(groups[-1].machines) > total else None
    return Spread(
        fact=name,
        matters=can_matter(name),
        usual=usual,
        odd=tuple(group for group in groups if group is not usual),
    )


def _odd_count(spread: Spread) -> int:
    return sum(len(group.machines) for group in spread.odd)


def _counts(snapshots: Mapping[str, Snapshot], rules: tuple[Rule, ...]) -> tuple[Count, ...]:
    machines: dict[str, list[str]] = {}
    for name, snapshot in snapshots.items():
        for rule_id in dict.fromkeys(f.id for f in diagnose(snapshot, rules).findings):
            machines.setdefault(rule_id, []).append(name)
    by_id = {rule.id: rule for rule in rules}
    counts = [
        Count(id=i, severity=by_id[i].severity, title=by_id[i].title, machines=tuple(names))
        for i, names in machines.items()
    ]
    counts.sort(key=lambda count: (count.severity.rank, -len(count.machines), count.id))
    return tuple(counts)


def severities(fleet: Fleet) -> Counter[Severity]:
    """On how many machines rules of each severity fire, each machine with its worst.

    Example:
        >>> severities(survey({}, rules=()))
        Counter()
    """
    worst: dict[str, Severity] = {}
    for count in fleet.rules:  # worst first
        for machine in count.machines:
            worst.setdefault(machine, count.severity)
    return Counter(worst.values())
