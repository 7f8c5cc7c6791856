"""Active tests in a process of their own: how fast the devices are, and whether they are right."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from gpudiag import children
from gpudiag.host import Host
from gpudiag.measure.parts import part_of
from gpudiag.measured import (
    Conditions,
    Device,
    Fault,
    Figure,
    Measurement,
    Skipped,
)
from gpudiag.probes.child import spoken
from gpudiag.record import Recording
from gpudiag.samples import Row

SECONDS_A_FIGURE = 1.0
QUICK_SECONDS_A_FIGURE = 0.15
FIGURES_A_DEVICE = 20  # about as many as there are, to share the minutes out
START_LIMIT_S = 90.0  # importing torch from a network disk, and starting CUDA on eight GPUs
DEVICE_LIMIT_S = 240.0  # all of a device's tests, with the pattern over its whole memory
LOWER_IS_BETTER = {"µs", "s"}
COLUMNS = (
    *("device", "test", "value", "unit", "ratio_to_data_sheet", "ratio_to_peers"),
    *("repeats", "spread_fraction"),
)
RATIOS = ("ratio_to_data_sheet", "ratio_to_peers")
NOT_COMPARED = {"checked", "GiB checked", *LOWER_IS_BETTER}


def measure(
    *,
    devices: Sequence[int] = (),
    quick: bool = False,
    minutes: float | None = None,
    host: Host | None = None,
) -> Measurement:
    """Measure the devices of torch; without a GPU the CPU.

    Args:
        devices: Torch's indices, by default all.
        quick: A tenth of the time, and a pattern over 1 GiB of memory instead of all.
        minutes: About how long the whole may take.
        host: The machine, by default this one.
    """
    host = host or Host()
    count = len(devices) or len(_nvidia_nodes(host)) or 1
    seconds = QUICK_SECONDS_A_FIGURE if quick else SECONDS_A_FIGURE
    limit_s = START_LIMIT_S + DEVICE_LIMIT_S * count
    if minutes is not None:
        seconds = minutes * 60 / (FIGURES_A_DEVICE * count)
        limit_s += minutes * 60
    with Recording(interval_s=0.5, host=host) as recording:
        command = children.measure(devices=devices, seconds=seconds, quick=quick)
        objects, failure = spoken(host.run(*command, timeout_s=limit_s))
    return _result(objects, failure, recording.rows, rank=int(host.environment.get("RANK", "0")))


COLUMNS = (
    *("device", "test", "value", "unit", "ratio_to_data_sheet", "ratio_to_peers", "repeats"),
    "spread_fraction",
)


def rows(measurement: Measurement) -> list[dict[str, Any]]:
    """One row per figure, for a table."""
    return [
        {
            "device": figure.device,
            "test": figure.what,
            "value": figure.value,
            "unit": figure.unit,
            "ratio_to_data_sheet": figure.ratio_to_data_sheet,
            "ratio_to_peers": figure.ratio_to_peers,
            "repeats": figure.repeats,
            "spread_fraction": figure.spread_fraction,
        }
        for figure in measurement.figures
    ]


def as_json(measurement: Measurement) -> str:
    """Everything, as one object."""
    return msgspec.json.format(msgspec.json.encode(measurement), indent=2).decode()


def as_text(measurement: Measurement) -> str:
    """A table of the figures, then how the GPUs were, and what was wrong."""
    from gpudiag.render.as_table import as_text as table

    shown = [
        row | {"value": f"{row['value']:.4g}"} | {name: _percent(row[name]) for name in RATIOS}
        for row in rows(measurement)
    ]
    names = {one.device: one.name for one in measurement.devices if one.name}
    lines = [f"{device}: {name}" for device, name in names.items()]
    lines.append(table(shown, empty="no figures"))
    lines += [_under_load(one) for one in measurement.conditions]
    lines += [f"skipped {one.test} on {one.device}: {one.reason}" for one in measurement.skipped]
    lines += [f"WRONG {one.test} on {one.device}: {one.reason}" for one in measurement.faults]
    if measurement.failure:
        lines.append(f"BROKE OFF: {measurement.failure}")
    return "\n".join(lines)


def _under_load(one: Conditions) -> str:
    facts = {
        "at most °C": one.temperature_max_celsius,
        "at most W": one.power_max_watts,
        "median SM MHz": one.clock_sm_median_mhz,
        "clock event reasons": hex(one.clock_event_reasons),
        "PCIe generation": one.pcie_generation,
        "PCIe lanes": one.pcie_width_lanes,
    }
    told = (f"{name} {value}" for name, value in facts.items() if value is not None)
    return f"GPU {one.gpu} under load: {', '.join(told)}"


def _percent(fraction: float | None) -> str | None:
    return None if fraction is None else f"{fraction:.0%}"


def _nvidia_nodes(host: Host) -> tuple[str, ...]:
    names = host.names("/dev")
    if not isinstance(names, tuple):
        return ()
    return tuple(n for n in names if n.startswith("nvidia") and n.removeprefix("nvidia").isdigit())


def _result(
    objects: list[dict[str, Any]], failure: str | None, samples: list[Row], *, rank: int
) -> Measurement:
    devices = msgspec.convert(_all(objects, "device"), tuple[Device, ...])
    figures = msgspec.convert(_all(objects, "figure"), tuple[Figure, ...])
    finished = any("finished" in said for said in objects)
    if not finished:
        began = _all(objects, "testing")
        last = f" during {began[-1]['test']} on {began[-1]['device']}" if began else ""
        failure = f"{failure or 'it ended early'}{last}"
    return Measurement(
        devices=devices,
        figures=tuple(_with_ratios(figure, figures, devices) for figure in figures),
        faults=msgspec.convert(_all(objects, "fault"), tuple[Fault, ...]),
        skipped=msgspec.convert(_all(objects, "skipped"), tuple[Skipped, ...]),
        conditions=tuple(_conditions(samples)),
        failure=None if finished else failure,
        rank=rank,
    )


def _all(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [said[kind] for said in objects if kind in said]


def _with_ratios(figure: Figure, figures: Iterable[Figure], devices: Iterable[Device]) -> Figure:
    names = {device.device: device.name for device in devices}
    others = [
        other.value
        for other in figures
        if other.device != figure.device
        and other.what == figure.what
        and names.get(other.device) == names.get(figure.device)
    ]
    compared = others and figure.unit not in NOT_COMPARED
    return msgspec.structs.replace(
        figure,
        ratio_to_data_sheet=_ratio_to_data_sheet(figure, devices),
        ratio_to_peers=figure.value / statistics.median(others) if compared else None,
    )


def _ratio_to_data_sheet(figure: Figure, devices: Iterable[Device]) -> float | None:
    device = next((device for device in devices if device.device == figure.device), None)
    part = part_of(device.name, device.memory_total_bytes) if device else None
    if part is None:
        return None
    if figure.test == "matmul" and figure.precision in {"fp16", "bf16"}:
        has_units = figure.precision == "fp16" or part.bf16
        return figure.value / part.half_tflops if has_units else None
    if figure.test == "copy" and figure.detail == "device":
        return figure.value / part.memory_gb_per_s
    return None


def _conditions(samples: list[Row]) -> Iterable[Conditions]:
    for gpu in sorted({row["gpu"] for row in samples if row["gpu"] is not None}):
        told = [row for row in samples if row["gpu"] == gpu]
        clocks = [row["clock_sm_mhz"] for row in told if row["clock_sm_mhz"] is not None]
        reasons = 0
        for row in told:
            reasons |= row["clock_event_reasons"] or 0
        yield Conditions(
            gpu=gpu,
            temperature_max_celsius=_largest(told, "temperature_celsius"),
            power_max_watts=_largest(told, "power_watts"),
            clock_sm_median_mhz=statistics.median(clocks) if clocks else None,
            clock_event_reasons=reasons,
            pcie_generation=_largest(told, "pcie_generation"),
            pcie_width_lanes=_largest(told, "pcie_width_lanes"),
        )


def _largest(told: list[Row], name: str) -> Any:
    return max((row[name] for row in told if row[name] is not None), default=None)
