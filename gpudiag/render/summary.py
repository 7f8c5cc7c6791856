"""What stands at the head of a report in any form, as plain unescaped text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from gpudiag.diagnose import Report
from gpudiag.finding import Severity, subject_of
from gpudiag.plausible import plausible
from gpudiag.render.as_table import GIB
from gpudiag.snapshot import Fact, Gpu, Missing, Snapshot, known_or

GPU_HEADERS = ("GPU", "name", "memory GiB", "util %", "°C", "W", "processes", "state")
UNKNOWN = "?"


def verdict(report: Report) -> str:
    """How many findings of each severity, in words.

    Example:
        >>> from gpudiag.snapshot import Snapshot
        >>> none = Report(findings=(), passed=(), skipped={}, crashed={}, snapshot=Snapshot())
        >>> verdict(none)
        'nothing found'
    """
    counts = Counter(finding.severity for finding in report.findings)
    parts = [
        f"{counts[severity]} {severity}{'s' * (counts[severity] != 1)}"
        for severity in Severity
        if counts[severity]
    ]
    return ", ".join(parts) or "nothing found"


def asked(report: Report) -> str:
    """How many rules passed, could not be asked or crashed, in words."""
    parts = [f"{len(report.passed)} rules passed"]
    if report.skipped:
        parts.append(f"{len(report.skipped)} could not be asked")
    if report.crashed:
        parts.append(f"{len(report.crashed)} crashed")
    return ", ".join(parts)


def by_reason(reasons: Mapping[str, str]) -> list[tuple[str, str]]:
    """Ids of rules with a reason -> those of one reason together: ids, reason.

    Example:
        >>> by_reason({"GD101": "no NVML", "GD102": "no torch", "GD103": "no NVML"})
        [('GD101 GD103', 'no NVML'), ('GD102', 'no torch')]
    """
    ids: dict[str, list[str]] = {}
    for rule_id, reason in reasons.items():
        ids.setdefault(reason, []).append(rule_id)
    return [(" ".join(together), reason) for reason, together in ids.items()]


def summary(snapshot: Snapshot) -> list[tuple[str, str]]:
    """What one must know of a machine to help with it: label, text."""
    system, nvml, torch = snapshot.system, snapshot.nvml, snapshot.torch
    driver = nvml.driver_version
    if isinstance(driver, Missing):
        driver = snapshot.driver.module_version
    return [
        ("Machine", _machine(snapshot)),
        ("GPUs", gpu_names(snapshot)),
        ("Driver", _joined(_text(driver), _labelled("CUDA up to", nvml.cuda_version))),
        (
            "torch",
            _joined(
                _text(torch.version),
                _labelled("CUDA", torch.cuda_version),
                _labelled("ROCm", torch.hip_version),
                _labelled("cuDNN", torch.cudnn_version),
                _labelled("NCCL", torch.nccl_version),
            ),
        ),
        ("Python", _text(system.python_version)),
        ("Taken", f"{snapshot.taken_at} by gpudiag {snapshot.gpudiag_version}"),
    ]


def gpu_names(snapshot: Snapshot) -> str:
    """The GPUs by name, equal ones counted: "8 x NVIDIA H100 80GB HBM3"."""
    gpus = snapshot.nvml.gpus
    if isinstance(gpus, Missing):
        return f"not known: {gpus.missing}"
    counts = Counter(_text(gpu.name) for gpu in gpus)
    return ", ".join(f"{count} x {name}" for name, count in counts.items()) or "none"


def gpu_rows(report: Report) -> list[tuple[str, ...]]:
    """One row per GPU under `GPU_HEADERS`; the state is the ids of its findings, or ok."""
    ids: dict[str | None, list[str]] = {}
    for finding in report.findings:
        ids.setdefault(finding.subject, []).append(finding.id)
    return [
        (
            *_cells(plausible(gpu)),
            ", ".join(dict.fromkeys(ids.get(subject_of(gpu), []))) or _state(gpu),
        )
        for gpu in known_or(report.snapshot.nvml.gpus, ())
    ]


def _machine(snapshot: Snapshot) -> str:
    system = snapshot.system
    return _joined(
        _text(system.os_name),
        _labelled("kernel", system.kernel),
        _labelled("CPUs:", system.cpu_count),
        _labelled("container:", system.container),
        "WSL" if known_or(system.wsl, False) else "",  # noqa: FBT003 - a fact
    )


def _cells(gpu: Gpu) -> tuple[str, ...]:
    utilization = known_or(gpu.utilization_fraction, None)
    return (
        str(gpu.index),
        _text(gpu.name),
        f"{_gib(gpu.memory_used_bytes)} / {_gib(gpu.memory_total_bytes)}",
        UNKNOWN if utilization is None else f"{utilization * 100:.0f}",
        str(known_or(gpu.temperature_celsius, UNKNOWN)),
        f"{_rounded(gpu.power_watts)} / {_rounded(gpu.power_limit_watts)}",
        UNKNOWN if isinstance(gpu.processes, Missing) else str(len(gpu.processes)),
    )


def _state(gpu: Gpu) -> str:
    return "no answer" if isinstance(gpu.error_codes, Missing) else "ok"


def _text(fact: Fact[str]) -> str:
    return f"not known: {fact.missing}" if isinstance(fact, Missing) else fact


def _labelled(label: str, fact: Fact[str | None] | Fact[int]) -> str:
    value = known_or(fact, None)
    return "" if value is None else f"{label} {value}"


def _joined(*parts: str) -> str:
    return " · ".join(part for part in parts if part)


def _gib(fact: Fact[int]) -> str:
    return UNKNOWN if isinstance(fact, Missing) else f"{fact / GIB:.1f}"


def _rounded(fact: Fact[float]) -> str:
    return UNKNOWN if isinstance(fact, Missing) else f"{fact:.0f}"
