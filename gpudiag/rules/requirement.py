"""What one distribution requires of another, and whether what is installed is that."""

from __future__ import annotations

import re
from functools import cache
from itertools import zip_longest

from gpudiag.snapshot import NotObserved, Requirement, Snapshot, known

CLAUSE = re.compile(r"(==|>=|<=|~=|<|>)(\d+(?:\.\d+)*)(\.\*)?")
PLAIN = re.compile(r"\d+(?:\.\d+)*")
# Who names the versions of NVIDIA's wheels: torch itself, from 2.13 on cuda-toolkit for it.
PINNING = ("torch", "cuda-toolkit")


def unmet(snapshot: Snapshot) -> list[Requirement]:
    """What torch requires on the machine of the snapshot and does not get."""
    return [
        need
        for need in known(snapshot.packages.requirements)
        if need.package in PINNING and not satisfied(need) and _applies(need, snapshot)
    ]


def satisfied(need: Requirement) -> bool:
    """Whether what is installed is what a distribution requires.

    Raises:
        NotObserved: The version or the requirement is not written as Python's packages are.
    """
    if need.installed is None:
        return False
    if plainly_satisfied(need.specifier, need.installed.partition("+")[0]):
        return True
    from packaging.specifiers import InvalidSpecifier, SpecifierSet  # 20 ms, seldom needed
    from packaging.version import InvalidVersion

    try:
        return SpecifierSet(need.specifier).contains(need.installed, prereleases=True)
    except (InvalidSpecifier, InvalidVersion) as error:
        raise NotObserved(
            f"{need.requires}: {need.specifier[:40]!r} against {need.installed[:40]!r}: {error}"
        ) from None


def plainly_satisfied(specifier: str, version: str) -> bool:
    """Whether clauses of plain numbers hold; anything else is left to `packaging`.

    Example:
        >>> plainly_satisfied("<14,>=13.2.86", "13.5.37"), plainly_satisfied("==13.2.*", "13.2.86")
        (True, True)
        >>> plainly_satisfied("~=3.9.0", "3.9.4"), plainly_satisfied("!=3.9", "3.8")
        (True, False)
    """
    clauses = [CLAUSE.fullmatch(clause) for clause in specifier.split(",")]
    if not PLAIN.fullmatch(version):
        return False
    return all(clause and _holds_for(clause, version) for clause in clauses)


def release(version: str) -> tuple[int, ...]:
    """The first two numbers of a version.

    Example:
        >>> release("2.3.0a0+git"), release("13")
        ((2, 3), (13,))
    """
    return tuple(int(part) for part in re.findall(r"[0-9]{1,9}", version)[:2])


def _holds_for(clause: re.Match[str], version: str) -> bool:
    wanted, have = ([int(part) for part in text.split(".")] for text in (clause[2], version))
    if clause[3]:  # ==13.2.*
        return clause[1] == "==" and have[: len(wanted)] == wanted
    if clause[1] == "~=" and have[: len(wanted) - 1] != wanted[:-1]:  # 3.9.0 allows 3.9.x
        return False
    pairs = zip(*zip_longest(have, wanted, fillvalue=0), strict=True)
    left, right = pairs
    return {
        "==": left == right,
        ">=": left >= right,
        "~=": left >= right,
        "<=": left <= right,
        "<": left < right,
        ">": left > right,
    }[clause[1]]


def _applies(need: Requirement, snapshot: Snapshot) -> bool:
    """Whether a requirement is meant for the machine of the snapshot, not for this one."""
    if not need.marker:
        return True
    system = snapshot.system
    return _marked(need.marker, known(system.architecture), known(system.python_version))


@cache  # a fleet of machines asks the same a thousand times
def _marked(marker: str, architecture: str, python: str) -> bool:
    # 20 ms, which few runs need
    from packaging.markers import (
        InvalidMarker,
        Marker,
        UndefinedComparison,
        UndefinedEnvironmentName,
    )

    try:
        return Marker(marker).evaluate(
            {
                "platform_system": "Linux",
                "sys_platform": "linux",
                "platform_machine": architecture,
                "python_version": ".".join(python.split(".")[:2]),
                "python_full_version": python,
                "extra": "",
            }
        )
    except (InvalidMarker, UndefinedComparison, UndefinedEnvironmentName):
        return False
