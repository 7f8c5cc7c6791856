"""What the measuring child said -> a Measurement: faults, ratios, and how the GPUs were."""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from gpudiag.measure.conditions import conditions, largest, meanwhile
from gpudiag.measure.links import Link, nvlink, pcie, to_host
from gpudiag.measure.parts import part_of
from gpudiag.measured import Device, Fault, Figure, Measurement, Skipped
from gpudiag.record.samples import Row
from gpudiag.snapshot import Nvml, known_or

LOWER_IS_BETTER = {"µs", "s"}
NOT_COMPARED = {"GiB checked", *LOWER_IS_BETTER}
TARGET = re.compile(r"to (?P<device>\S+), (?P<way>.*)")

Said = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Around:
    """What was seen of the machine around the child.

    Attributes:
        nvml: How the GPUs are connected.
        rows: Samples of the GPUs.
        first_s: The time of the first sample by the clock that the child's times are of.
        interval_s: Between two samples.
    """

    nvml: Nvml
    rows: Sequence[Row] = ()
    first_s: float = 0.0
    interval_s: float = 0.0

    def of(self, uuid: str | None) -> list[Row]:
        """The samples of one GPU."""
        return [row for row in self.rows if uuid is not None and row["uuid"] == uuid]


def result(
    objects: Sequence[Said], failure: str | None, around: Around, *, rank: int = 0
) -> Measurement:
    """Everything that was said, put together.

    Args:
        objects: The child's lines in their order.
        failure: How the child failed, None: it did not.
        around: What was seen meanwhile.
        rank: The number of this process among those of torchrun.
    """
    devices = msgspec.convert(_all(objects, "device"), tuple[Device, ...])
    figures = tuple(_figures(objects, devices, around))
    faults = msgspec.convert(_all(objects, "fault"), tuple[Fault, ...])
    finished = any("finished" in said for said in objects)
    measured_uuids = {device.uuid for device in devices if device.uuid}
    ours = [row for row in around.rows if not measured_uuids or row["uuid"] in measured_uuids]
    return Measurement(
        devices=devices,
        figures=tuple(_compared(figure, figures, devices, around) for figure in figures),
        faults=(*faults, *_odd_ones_out(objects), *_implausible(figures)),
        skipped=msgspec.convert(_all(objects, "skipped"), tuple[Skipped, ...]),
        conditions=tuple(conditions(ours)),
        failure=None if finished else _broke_off(objects, failure),
        rank=rank,
    )


def _all(objects: Sequence[Said], kind: str) -> list[Said]:
    return [said[kind] for said in objects if kind in said]


def _broke_off(objects: Sequence[Said], failure: str | None) -> str:
    began = _all(objects, "testing")
    last = f" during {began[-1]['test']} on {began[-1]['device']}" if began else ""
    return f"{failure or 'it ended early'}{last}"


def _figures(
    objects: Sequence[Said], devices: Sequence[Device], around: Around
) -> Iterator[Figure]:
    """Each figure, with how its GPU was from the beginning of its test on."""
    uuids = {device.device: device.uuid for device in devices}
    began_s = -math.inf
    for said in objects:
        if "testing" in said and "time_s" in said:
            began_s = said["time_s"]
        if "figure" not in said:
            continue
        figure = msgspec.convert(said["figure"], Figure)
        if "time_s" not in said:  # of another rank, by the clock of perhaps another machine
            yield figure
            continue
        ended_s = said["time_s"] + around.interval_s
        seen = [
            row
            for row in around.of(uuids.get(figure.device))
            if began_s <= around.first_s + row["time_s"] <= ended_s
        ]
        yield msgspec.structs.replace(figure, meanwhile=meanwhile(seen))
        began_s = said["time_s"]


def _odd_ones_out(objects: Sequence[Said]) -> Iterator[Fault]:
    """Devices whose results have other bits than those of most devices of their kind."""
    digests = _all(objects, "digest")
    for test, kind in dict.fromkeys((one["test"], one["kind"]) for one in digests):
        alike = [one for one in digests if (one["test"], one["kind"]) == (test, kind)]
        counts = Counter(one["sha256"] for one in alike)
        (usual, most), *others = counts.most_common()
        if not others:
            continue
        tied = others[0][1] == most
        for one in alike:
            if tied or one["sha256"] != usual:
                rest = f"{len(alike)} devices of its kind"
                reason = (
                    f"{rest} do not agree on the bits of the same product, and it is open which is"
                    " right"
                    if tied
                    else f"the product's bits differ from those of most of the {rest}"
                )
                yield Fault(test=test, device=one["device"], reason=reason)


def _implausible(figures: Sequence[Figure]) -> Iterator[Fault]:
    for figure in figures:
        if not (math.isfinite(figure.value) and figure.value > 0):
            reason = f"a reading of {figure.value:g} {figure.unit} cannot be"
            yield Fault(test=figure.what, device=figure.device, reason=reason)


def _compared(
    figure: Figure, figures: Sequence[Figure], devices: Sequence[Device], around: Around
) -> Figure:
    device = next((one for one in devices if one.device == figure.device), None)
    link = _link(figure, device, devices, around)
    return msgspec.structs.replace(
        figure,
        ratio_to_data_sheet=_ratio_to_data_sheet(figure, device),
        link=link and link.name,
        ratio_to_link=figure.value / link.gb_per_s if link else None,
        ratio_to_peers=_ratio_to_peers(figure, figures, devices),
    )


def _ratio_to_peers(
    figure: Figure, figures: Sequence[Figure], devices: Sequence[Device]
) -> float | None:
    if figure.unit in NOT_COMPARED:
        return None
    names = {device.device: device.name for device in devices}
    others = [
        other.value
        for other in figures
        if other.device != figure.device
        and _comparable(other) == _comparable(figure)
        and names.get(other.device) == names.get(figure.device)
    ]
    median = statistics.median(others) if others else 0.0
    return figure.value / median if median > 0 else None


def _comparable(figure: Figure) -> tuple[str | None, ...]:
    """What two figures have in common that may be compared: copies by their way, not target."""
    target = TARGET.fullmatch(figure.detail or "")
    return figure.test, figure.precision, target["way"] if target else figure.detail


def _ratio_to_data_sheet(figure: Figure, device: Device | None) -> float | None:
    part = part_of(device.name, device.memory_total_bytes) if device else None
    if part is None:
        return None
    if figure.test == "matmul":
        peak = part.tflops.get(figure.precision or "")
        return figure.value / peak if peak else None
    if figure.test == "copy" and figure.detail == "device":
        return figure.value / part.memory_gb_per_s
    return None


def _link(
    figure: Figure, device: Device | None, devices: Sequence[Device], around: Around
) -> Link | None:
    """What a copy goes by, None where it is not known or leaves the device not at all."""
    if device is None:
        return None
    if figure.test == "copy" and figure.detail != "device":
        generation, lanes = _pcie(device, around)
        return to_host(device.name, generation=generation, lanes=lanes)
    target = TARGET.fullmatch(figure.detail or "")
    if figure.test != "peer copy" or target is None or target["way"] != "direct":
        return None
    other = next((one for one in devices if one.device == target["device"]), None)
    return None if other is None else _between(device, other, around)


def _between(device: Device, other: Device, around: Around) -> Link | None:
    """NVLink where the machine has it; else the slower one's PCIe link."""
    gpus = known_or(around.nvml.gpus, ())
    if any(known_or(gpu.nvlink_active, ()) for gpu in gpus):
        return nvlink(around.nvml, device.uuid, other.uuid)
    links = [pcie(*_pcie(one, around)) for one in (device, other)]
    known = [link for link in links if link is not None]
    return min(known, key=lambda link: link.gb_per_s) if len(known) == len(links) else None


def _pcie(device: Device, around: Around) -> tuple[int | None, int | None]:
    """Generation and lanes under load: an idle link is slower."""
    seen = around.of(device.uuid)
    return largest(seen, "pcie_generation"), largest(seen, "pcie_width_lanes")
