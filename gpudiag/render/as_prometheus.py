"""Report -> Prometheus' text format, for the textfile collector of node_exporter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime

from msgspec import Struct

from gpudiag.diagnose import Report
from gpudiag.finding import Severity
from gpudiag.plausible import plausible
from gpudiag.render.as_table import printable
from gpudiag.snapshot import Gpu, Missing, known_or

Labels = tuple[tuple[str, str], ...]
Sample = tuple[Labels, float]


class Gauge(Struct, frozen=True):
    """A metric of every GPU: its name, the field of `Gpu`, the factor to the base unit."""

    name: str
    field: str
    help: str
    factor: float = 1


GPU_GAUGES = (
    Gauge("memory_total_bytes", "memory_total_bytes", "Memory of the GPU."),
    Gauge("memory_used_bytes", "memory_used_bytes", "Memory in use, without the driver's own."),
    Gauge("memory_free_bytes", "memory_free_bytes", "Memory that is free."),
    Gauge("memory_reserved_bytes", "memory_reserved_bytes", "Memory kept by the driver."),
    Gauge("utilization_ratio", "utilization_fraction", "Part of the time with a kernel running."),
    Gauge("temperature_celsius", "temperature_celsius", "Temperature of the GPU."),
    Gauge("power_watts", "power_watts", "Power drawn."),
    Gauge("power_limit_watts", "power_limit_watts", "Power limit in force."),
    Gauge("clock_sm_hertz", "clock_sm_mhz", "Clock of the multiprocessors.", 1e6),
    Gauge("clock_sm_max_hertz", "clock_sm_max_mhz", "Highest clock of them.", 1e6),
    Gauge("ecc_uncorrected_errors", "ecc_uncorrected_volatile", "Since the driver was loaded."),
    Gauge("pcie_generation", "pcie_generation", "PCIe generation of the link now."),
    Gauge("pcie_width_lanes", "pcie_width_lanes", "PCIe lanes of the link now."),
)


def as_prometheus(report: Report) -> str:
    """GPU gauges, one ``gpudiag_finding`` per finding, and how many rules said what.

    A fact that is missing has no sample, nor has a figure that cannot be true.
    ``gpudiag_snapshot_timestamp_seconds`` tells how old the file is: alert on it, since a file that
    is not written any more looks healthy for ever.
    """
    gpus = [plausible(gpu) for gpu in known_or(report.snapshot.nvml.gpus, ())]
    metrics = [_metric(f"gpu_{g.name}", g.help, _samples(gpus, g)) for g in GPU_GAUGES]
    metrics += [
        _metric("finding", "What gpudiag found, 1 for each.", _findings(report)),
        _metric("findings", "Number of findings of a severity.", _severities(report)),
        _metric("rules", "Number of rules by what they said.", _outcomes(report)),
        _metric("snapshot_timestamp_seconds", "When the machine was looked at.", _time(report)),
    ]
    return "\n".join(metric for metric in metrics if metric)


def escape(value: str) -> str:
    r"""The value of a label as the format wants it.

    Example:
        >>> print(escape('a"b\n'))
        a\"b\\n
    """
    return printable(value).replace("\\", "\\\\").replace('"', '\\"')


def _metric(name: str, text: str, samples: Iterable[Sample]) -> str:
    full = f"gpudiag_{name}"
    lines = [f"{full}{_labels(labels)} {value!r}" for labels, value in samples]
    if not lines:
        return ""
    return "\n".join([f"# HELP {full} {text}", f"# TYPE {full} gauge", *lines])


def _labels(labels: Labels) -> str:
    inside = ",".join(f'{name}="{escape(value)}"' for name, value in labels)
    return f"{{{inside}}}" if inside else ""


def _samples(gpus: Iterable[Gpu], gauge: Gauge) -> Iterable[Sample]:
    for gpu in gpus:
        value = getattr(gpu, gauge.field)
        if not isinstance(value, Missing):
            yield _gpu_labels(gpu), value * gauge.factor


def _gpu_labels(gpu: Gpu) -> Labels:
    """The index keeps two GPUs apart whose UUIDs are cut short."""
    return (
        ("index", str(gpu.index)),
        ("uuid", known_or(gpu.uuid, "")),
        ("name", known_or(gpu.name, "")),
    )


def _findings(report: Report) -> Iterable[Sample]:
    """Each series once: a series that is there twice makes the collector refuse the file."""
    for i, severity, subject in dict.fromkeys(
        (f.id, str(f.severity), f.subject or "") for f in report.findings
    ):
        yield (("id", i), ("severity", severity), ("subject", subject)), 1


def _severities(report: Report) -> Iterable[Sample]:
    counts = Counter(finding.severity for finding in report.findings)
    for severity in Severity:
        yield (("severity", str(severity)),), counts[severity]


def _outcomes(report: Report) -> Iterable[Sample]:
    for outcome, ids in (
        ("found", {finding.id for finding in report.findings}),
        ("passed", report.passed),
        ("skipped", report.skipped),
        ("crashed", report.crashed),
    ):
        yield (("outcome", outcome),), len(ids)


def _time(report: Report) -> Iterable[Sample]:
    try:
        taken = datetime.fromisoformat(report.snapshot.taken_at)
    except ValueError:
        return  # "unknown"
    yield (), taken.replace(tzinfo=taken.tzinfo or UTC).timestamp()
