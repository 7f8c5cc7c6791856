"""Findings that say the same of several GPUs, told as one; JSON and CSV keep each for itself."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from gpudiag.finding import Finding

ALTERNATIVE = "; or "  # between cures that do the same
# The GPU that a command of nvidia-smi is for; several are told with commas between them.
GPU = re.compile(r"GPU (\d+)(?!\d)")
INDEX = re.compile(r"(?<= -i )\d+\b")


class Group(NamedTuple):
    """Findings of one rule with one cause and one cure, each about another GPU."""

    findings: tuple[Finding, ...]

    @property
    def first(self) -> Finding:
        """The one that speaks for all: id, severity, title, cause and links are the same."""
        return self.findings[0]

    @property
    def title(self) -> str:
        """The rule's title, with the number of GPUs where there are several."""
        count = len({finding.subject for finding in self.findings})
        return self.first.title if count == 1 else f"{self.first.title} ({count} GPUs)"

    @property
    def evidence(self) -> tuple[tuple[str, str | None], ...]:
        """What was seen: text, subject.

        Of several GPUs one line each, GPUs of which the same is said together, then what all share.
        """
        if len(self.findings) == 1:
            return tuple((line, None) for line in self.first.evidence)
        shared = [
            line
            for line in self.first.evidence
            if all(line in finding.evidence for finding in self.findings)
        ]
        alike: dict[str, list[tuple[str, str]]] = {}  # the same text -> its GPUs, their subjects
        for finding in self.findings:
            own = "; ".join(line for line in finding.evidence if line not in shared)
            number = GPU.match(own)
            text = own.removeprefix(number[0]) if number else own
            if text:
                alike.setdefault(text, []).append(
                    (number[1] if number else "", finding.subject or "")
                )
        return (
            *(_together(text, *zip(*named, strict=True)) for text, named in alike.items()),
            *((line, None) for line in shared),
        )

    @property
    def fixes(self) -> tuple[str, ...]:
        """The cures, the least invasive first, each for all of the GPUs."""
        numbers = [INDEX.findall(finding.fix) for finding in self.findings]
        together = iter([",".join(dict.fromkeys(found)) for found in zip(*numbers, strict=True)])
        return tuple(INDEX.sub(lambda _: next(together), self.first.fix).split(ALTERNATIVE))

    def explains(self, finding: Finding) -> bool:
        """Whether *finding* is a consequence of one of these."""
        return finding.explained_by == self.first.id and any(
            None in (finding.subject, root.subject) or finding.subject == root.subject
            for root in self.findings
        )


def _together(
    text: str, numbers: tuple[str, ...], subjects: tuple[str, ...]
) -> tuple[str, str | None]:
    """One line about some GPUs: GPU 0, 1, 4: row remap pending."""
    named = f"GPU {', '.join(numbers)}{text}" if all(numbers) else text
    return named, ", ".join(filter(None, subjects)) or None


def grouped(findings: Iterable[Finding]) -> tuple[Group, ...]:
    """The findings in their order, those that differ in nothing but the GPU together.

    Example:
        >>> hot = [
        ...     Finding(
        ...         id="GD408",
        ...         subject=f"gpu:{index}",
        ...         evidence=(f"GPU {index}: held at 400 W", "made for 700 W"),
        ...         cause="it is slow",
        ...         fix=f"sudo nvidia-smi -i {index} -pl 700",
        ...     )
        ...     for index in range(3)
        ... ]
        >>> (group,) = grouped(hot)
        >>> group.fixes
        ('sudo nvidia-smi -i 0,1,2 -pl 700',)
        >>> group.evidence
        (('GPU 0, 1, 2: held at 400 W', 'gpu:0, gpu:1, gpu:2'), ('made for 700 W', None))
    """
    groups: dict[tuple[object, ...], list[Finding]] = {}
    for number, finding in enumerate(findings):
        alone = number if finding.subject is None else None
        cure = INDEX.sub("", finding.fix)
        key = (finding.id, finding.cause, cure, finding.explained_by, finding.links, alone)
        groups.setdefault(key, []).append(finding)
    return tuple(Group(tuple(together)) for together in groups.values())
