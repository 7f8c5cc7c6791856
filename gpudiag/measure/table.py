"""A measurement as rows, text and JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from gpudiag.measured import Conditions, Meanwhile, Measurement

RATIOS = ("ratio_to_data_sheet", "ratio_to_link", "ratio_to_peers")
CONDITIONS = tuple(Meanwhile.__struct_fields__)
COLUMNS = (
    *("device", "test", "value", "unit", *RATIOS, "link", "repeats", "spread_fraction"),
    *CONDITIONS,
)


def rows(measurement: Measurement) -> list[dict[str, Any]]:
    """One row per figure, for a table."""
    return [
        {
            "device": figure.device,
            "test": figure.what,
            "value": figure.value,
            "unit": figure.unit,
            **{name: getattr(figure, name) for name in RATIOS},
            "link": figure.link,
            "repeats": figure.repeats,
            "spread_fraction": figure.spread_fraction,
            **{name: getattr(figure.meanwhile, name, None) for name in CONDITIONS},
        }
        for figure in measurement.figures
    ]


def as_json(measurement: Measurement) -> str:
    """Everything, as one object."""
    return msgspec.json.format(msgspec.json.encode(measurement), indent=2).decode()


def as_text(measurement: Measurement) -> str:
    """A table of the figures, then how the GPUs were, and what was wrong."""
    from gpudiag.render.as_table import as_text as table

    found = rows(measurement)
    told = [name for name in COLUMNS if any(row[name] is not None for row in found)]
    shown = [{name: _cell(name, row[name]) for name in told} for row in found]
    names = {one.device: one.name for one in measurement.devices if one.name}
    lines = [f"{device}: {name}" for device, name in names.items()]
    lines.append(table(shown, empty="no figures"))
    lines += [_under_load(one) for one in measurement.conditions]
    lines += [f"skipped {one.test} on {one.device}: {one.reason}" for one in measurement.skipped]
    lines += [f"WRONG {one.test} on {one.device}: {one.reason}" for one in measurement.faults]
    if measurement.figures and not measurement.faults:
        lines.append("nothing was wrong: products repeated bit by bit, copies and memory read back")
    if measurement.failure:
        lines.append(f"BROKE OFF: {measurement.failure}")
    return "\n".join(lines)


def _cell(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name == "value":
        return f"{value:.4g}"
    if name in RATIOS:
        return f"{value:.0%}"
    return hex(value) if name == "clock_event_reasons" else value


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
