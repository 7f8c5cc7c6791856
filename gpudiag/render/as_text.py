"""Report -> the first screen: the machine, its GPUs, torch against the driver, the findings."""

from __future__ import annotations

import textwrap
from collections import Counter

from gpudiag.diagnose import Report
from gpudiag.finding import Finding, Severity, subject_of
from gpudiag.render.as_table import GIB, printable
from gpudiag.rules.compatibility import MINIMUM_DRIVER, major
from gpudiag.snapshot import Fact, Gpu, Missing, Snapshot, known_or

WIDTH = 100
LABEL = 9  # width of "Machine  ", "Driver   ", …
HEADERS = ("GPU", "name", "memory GiB", "util %", "°C", "W", "processes", "state")
LEFT_ALIGNED = ("name", "state")
NAME = 28  # of a GPU; longer ones are cut
SIGNS = {Severity.ERROR: "✗", Severity.WARNING: "!", Severity.NOTE: "·"}
COLOURS = {Severity.ERROR: "31;1", Severity.WARNING: "33;1", Severity.NOTE: "36"}


def as_text(report: Report, *, colour: bool = False, verbose: bool = False) -> str:
    """The whole report for a terminal of 100 columns.

    Args:
        report: What the rules said.
        colour: Whether to write ANSI colours.
        verbose: Whether to list the rules that passed and those that could not be asked, too.
    """
    blocks = [_machine(report), _gpu_table(report), _verdict(report, colour=colour)]
    blocks += [
        _finding(finding, report, colour=colour)
        for finding in report.findings
        if finding.explained_by is None
    ]
    blocks.append(_counts(report, verbose=verbose))
    if verbose:
        blocks.append(_asked(report))
    return "\n\n".join(block for block in blocks if block)


def rule_counts(report: Report) -> Counter[str]:
    """How many findings there are of each severity."""
    return Counter(finding.severity.value for finding in report.findings)


def _machine(report: Report) -> str:
    snapshot = report.snapshot
    system = snapshot.system
    parts = [
        known_or(system.os_name, "unknown system"),
        f"kernel {known_or(system.kernel, '?')}",
        f"{known_or(system.cpu_count, '?')} CPUs",
        _gib(system.memory_total_bytes) + " GiB",
    ]
    container, wsl = known_or(system.container, None), known_or(system.wsl, False)  # noqa: FBT003
    parts += [f"{container} container"] if container else []
    parts += ["WSL"] if wsl else []
    return "\n".join(
        (
            _line("Machine", " · ".join(printable(part) for part in parts)),
            _line("Driver", _driver(snapshot)),
            _line("torch", _torch(snapshot)),
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
    needed = MINIMUM_DRIVER.get(major(build)) if build else None
    if needed is None:
        return text
    sign = "✓" if major(version) >= needed else "✗"
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


def _gpu_table(report: Report) -> str:
    gpus = known_or(report.snapshot.nvml.gpus, ())
    if not gpus:
        return ""
    by_subject: dict[str | None, list[str]] = {}
    for finding in report.findings:
        by_subject.setdefault(finding.subject, []).append(finding.id)
    rows = [(*_gpu_cells(gpu), _state(gpu, by_subject.get(subject_of(gpu), []))) for gpu in gpus]
    lines = [HEADERS, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADERS))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if header in LEFT_ALIGNED else cell.rjust(width)
            for cell, width, header in zip(line, widths, HEADERS, strict=True)
        ).rstrip()
        for line in lines
    )


def _gpu_cells(gpu: Gpu) -> tuple[str, ...]:
    utilization = known_or(gpu.utilization_fraction, None)
    power, limit = known_or(gpu.power_watts, None), known_or(gpu.power_limit_watts, None)
    name = printable(known_or(gpu.name, "does not answer"))
    return (
        str(gpu.index),
        name if len(name) <= NAME else name[: NAME - 1] + "…",
        f"{_gib(gpu.memory_used_bytes)} / {_gib(gpu.memory_total_bytes)}",
        "?" if utilization is None else f"{utilization * 100:.0f}",
        "?" if isinstance(gpu.temperature_celsius, Missing) else str(gpu.temperature_celsius),
        f"{'?' if power is None else f'{power:.0f}'} / {'?' if limit is None else f'{limit:.0f}'}",
        "?" if isinstance(gpu.processes, Missing) else str(len(gpu.processes)),
    )


def _state(gpu: Gpu, finding_ids: list[str]) -> str:
    if finding_ids:
        return ", ".join(finding_ids)
    return "no answer" if isinstance(gpu.error_codes, Missing) else "ok"


def _verdict(report: Report, *, colour: bool) -> str:
    if any(finding.severity is not Severity.NOTE for finding in report.findings):
        return ""  # the findings speak
    gpus = len(known_or(report.snapshot.nvml.gpus, ()))
    if gpus == 0:
        return ""  # a finding says so, or nothing could be asked
    return _paint("✓ nothing is wrong that gpudiag can see", "32;1", colour=colour)


def _finding(finding: Finding, report: Report, *, colour: bool) -> str:
    sign, paint = SIGNS[finding.severity], COLOURS[finding.severity]
    head = _paint(f"{sign} {finding.severity} {finding.id}", paint, colour=colour)
    bold = _paint(finding.title, "1", colour=colour)
    lines = [f"{head}  {bold}"]
    for label, texts in (
        ("seen", finding.evidence),
        ("cause", (finding.cause,)),
        ("fix", tuple(finding.fix.split("; or "))),
    ):
        for number, text in enumerate(texts):
            again = "or" if label == "fix" else ""
            lines.append(_wrapped("  " + (again if number else label).ljust(LABEL - 2), text))
    lines += [_wrapped(" " * LABEL, text) for text in _consequences(finding, report)]
    return "\n".join(lines)


def _consequences(root: Finding, report: Report) -> list[str]:
    """One line for each rule whose findings *root* explains."""
    found = [
        finding
        for finding in report.findings
        if finding.explained_by == root.id
        and (None in (finding.subject, root.subject) or finding.subject == root.subject)
    ]
    return list(dict.fromkeys(f"explains: {finding.id} {finding.title}" for finding in found))


def _counts(report: Report, *, verbose: bool) -> str:
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
    return _wrapped("", " · ".join(parts))


def _asked(report: Report) -> str:
    lines = [_wrapped("Passed".ljust(LABEL), " ".join(report.passed) or "none")]
    for title, reasons in (("Skipped", report.skipped), ("Crashed", report.crashed)):
        by_reason: dict[str, list[str]] = {}
        for rule_id, reason in reasons.items():
            by_reason.setdefault(reason, []).append(rule_id)
        lines += [
            _wrapped(title.ljust(LABEL), f"{' '.join(ids)}: {reason}")
            for reason, ids in by_reason.items()
        ]
    return "\n".join(lines)


def _line(label: str, text: str) -> str:
    return _wrapped(label.ljust(LABEL), text)


def _wrapped(label: str, text: str) -> str:
    """The text behind its label, wrapped to the width; a long command is not broken in words."""
    return (
        "\n".join(
            textwrap.wrap(
                printable(text),
                WIDTH,
                initial_indent=label,
                subsequent_indent=" " * len(label),
                break_long_words=False,
                break_on_hyphens=False,
            )
        )
        or label.rstrip()
    )


def _short(fact: Fact[str]) -> str:
    return fact.missing if isinstance(fact, Missing) else fact


def _gib(fact: Fact[int]) -> str:
    return "?" if isinstance(fact, Missing) else f"{fact / GIB:.1f}"


def _paint(text: str, code: str, *, colour: bool) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if colour else text
