"""Report -> the first screen: the machine, its GPUs, torch against the driver, the findings."""

from __future__ import annotations

import textwrap
from collections import Counter
from typing import NamedTuple

from gpudiag.diagnose import Report
from gpudiag.finding import Severity
from gpudiag.render.as_table import printable
from gpudiag.render.gpu_table import gib, gpu_table
from gpudiag.render.group import Group, grouped
from gpudiag.rules.compatibility import MINIMUM_DRIVER, major
from gpudiag.snapshot import Fact, Missing, NotObserved, Snapshot, known_or

WIDTH, NARROWEST = 100, 60  # a wider line is hard to read, a narrower one breaks every command
LABEL = 9  # width of "Machine  ", "Driver   ", …
SIGNS = {Severity.ERROR: "✗", Severity.WARNING: "!", Severity.NOTE: "·"}
COLOURS = {Severity.ERROR: "31;1", Severity.WARNING: "33;1", Severity.NOTE: "36"}


class Screen(NamedTuple):
    """What is written on: how wide it is, and whether it shows colours."""

    width: int
    colour: bool

    def wrapped(self, label: str, text: str) -> str:
        """The text behind its label; a long command is not broken in words."""
        return (
            "\n".join(
                textwrap.wrap(
                    printable(text),
                    self.width,
                    initial_indent=label,
                    subsequent_indent=" " * min(len(label), LABEL),
                    break_long_words=False,
                    break_on_hyphens=False,
                )
            )
            or label.rstrip()
        )

    def paint(self, text: str, code: str) -> str:
        """The text in a colour, where there are colours."""
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour else text

    def headed(self, head: str, title: str, code: str) -> str:
        """A title behind its head, each line painted for itself."""
        first, *more = self.wrapped(f"{head}  ", title).splitlines()
        rest = first.removeprefix(f"{head}  ")
        return "\n".join(
            (
                f"{self.paint(head, code)}  {self.paint(rest, '1')}",
                *(self.paint(line, "1") for line in more),
            )
        )


def as_text(
    report: Report, *, colour: bool = False, verbose: bool = False, width: int = WIDTH
) -> str:
    """The whole report for a terminal.

    Args:
        report: What the rules said.
        colour: Whether to write ANSI colours.
        verbose: Whether to list the rules that passed and those that could not be asked, too.
        width: Columns of the terminal; at least 60 and at most 100 of them are used.
    """
    screen = Screen(max(NARROWEST, min(width, WIDTH)), colour)
    groups = grouped(report.findings)
    blocks = [_machine(report, screen), gpu_table(report, width=screen.width)]
    blocks.append(_verdict(report, screen))
    blocks += [_finding(one, groups, screen) for one in groups if one.first.explained_by is None]
    blocks.append(_counts(report, screen, verbose=verbose))
    if verbose:
        blocks.append(_asked(report, screen))
    return "\n\n".join(block for block in blocks if block)


def rule_counts(report: Report) -> Counter[str]:
    """How many findings there are of each severity."""
    return Counter(finding.severity.value for finding in report.findings)


def _machine(report: Report, screen: Screen) -> str:
    snapshot = report.snapshot
    system = snapshot.system
    parts = [
        known_or(system.os_name, "unknown system"),
        f"kernel {known_or(system.kernel, '?')}",
        f"{known_or(system.cpu_count, '?')} CPUs",
        gib(system.memory_total_bytes) + " GiB",
    ]
    container, wsl = known_or(system.container, None), known_or(system.wsl, False)  # noqa: FBT003
    parts += [f"{container} container"] if container else []
    parts += ["WSL"] if wsl else []
    return "\n".join(
        screen.wrapped(label.ljust(LABEL), text)
        for label, text in (
            ("Machine", " · ".join(printable(part) for part in parts)),
            ("Driver", _driver(snapshot)),
            ("torch", _torch(snapshot)),
        )
    )


def _driver(snapshot: Snapshot) -> str:
    nvml = snapshot.nvml
    version = nvml.driver_version
    if isinstance(version, Missing):
        version = snapshot.driver.module_version
    if isinstance(version, Missing):
        return f"none in use ({_short(nvml.driver_version)})"
    text = f"{version}, CUDA up to {known_or(nvml.cuda_version, '?')}"
    build = known_or(snapshot.torch.cuda_version, None)
    try:
        needed = MINIMUM_DRIVER.get(major(build)) if build else None
        if needed is None:
            return text
        sign = "✓" if major(version) >= needed else "✗"
        provided = known_or(snapshot.driver.cuda_driver_version, "")
        if sign == "✗" and provided and build and major(provided) >= major(build):
            return f"{text} · torch's CUDA {build} runs on the CUDA {provided} of cuda-compat ✓"
    except NotObserved:
        return text
    return f"{text} · torch's CUDA {build} needs driver {needed} or newer {sign}"


def _torch(snapshot: Snapshot) -> str:
    torch = snapshot.torch
    if isinstance(torch.version, Missing):
        return _short(torch.version)
    cuda = torch.cuda_version
    parts = [torch.version]
    if isinstance(cuda, str):
        parts.append(f"CUDA {cuda}")
    elif cuda is None and known_or(torch.hip_version, None) is None:
        parts.append("built for the CPU only")
    for name, fact in (("cuDNN", torch.cudnn_version), ("NCCL", torch.nccl_version)):
        if known_or(fact, None):
            parts.append(f"{name} {known_or(fact, '')}")
    if known_or(torch.import_error, None):
        parts.append("import fails ✗")
    elif not isinstance(torch.cuda_available, Missing):
        parts.append(_sees(torch.cuda_available, len(known_or(torch.devices, ()))))
    return " · ".join(printable(part) for part in parts)


def _sees(available: bool, count: int) -> str:  # noqa: FBT001 - a fact
    return f"sees {count} GPU{'s' * (count != 1)} ✓" if available else "sees no GPU"


def _verdict(report: Report, screen: Screen) -> str:
    if any(finding.severity is not Severity.NOTE for finding in report.findings):
        return ""  # the findings speak
    gpus = len(known_or(report.snapshot.nvml.gpus, ()))
    if gpus == 0:
        return ""  # a finding says so, or nothing could be asked
    if report.findings:
        return screen.paint("✓ no errors and no warnings; what could be better:", "32;1")
    return screen.paint("✓ nothing is wrong that gpudiag can see", "32;1")


def _finding(group: Group, groups: tuple[Group, ...], screen: Screen) -> str:
    severity = group.first.severity
    head = f"{SIGNS[severity]} {severity} {group.first.id}"
    lines = [screen.headed(head, group.title, COLOURS[severity])]
    for label, texts in (
        ("seen", tuple(text for text, _ in group.evidence)),
        ("cause", (group.first.cause,)),
        ("fix", group.fixes),
    ):
        for number, text in enumerate(texts):
            again = "or" if label == "fix" else ""
            lines.append(screen.wrapped("  " + (again if number else label).ljust(LABEL - 2), text))
    explained = (other for other in groups if any(map(group.explains, other.findings)))
    told = dict.fromkeys(f"explains: {one.first.id} {one.first.title}" for one in explained)
    lines += [screen.wrapped(" " * LABEL, text) for text in told]
    return "\n".join(lines)


def _counts(report: Report, screen: Screen, *, verbose: bool) -> str:
    counts = rule_counts(report)
    parts = [
        f"{counts[severity]} {severity}{'s' * (counts[severity] != 1)}"
        for severity in Severity
        if counts[severity] or severity is not Severity.NOTE
    ]
    folded = sum(finding.explained_by is not None for finding in report.findings)
    if folded:
        parts[-1] += f" ({folded} of these explained by another)"
    parts.append(f"{len(report.passed)} rules passed")
    if report.skipped:
        hint = "" if verbose else " (-v says why)"
        parts.append(f"{len(report.skipped)} could not be asked{hint}")
    if report.crashed:
        parts.append(f"{len(report.crashed)} crashed: {', '.join(report.crashed)}")
    return screen.wrapped("", " · ".join(parts))


def _asked(report: Report, screen: Screen) -> str:
    lines = [screen.wrapped("Passed".ljust(LABEL), " ".join(report.passed) or "none")]
    for title, reasons in (("Skipped", report.skipped), ("Crashed", report.crashed)):
        by_reason: dict[str, list[str]] = {}
        for rule_id, reason in reasons.items():
            by_reason.setdefault(reason, []).append(rule_id)
        lines += [
            screen.wrapped(title.ljust(LABEL), f"{' '.join(ids)}: {reason}")
            for reason, ids in by_reason.items()
        ]
    return "\n".join(lines)


def _short(fact: Fact[str]) -> str:
    return fact.missing if isinstance(fact, Missing) else fact
