"""GD8xx: what the active tests of gpudiag measure found."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from msgspec.structs import replace

from gpudiag.finding import Finding, Rule, Severity, rule
from gpudiag.measured import Fault, Figure, Measurement, measured
from gpudiag.snapshot import Snapshot

# Of the dense peak. A quick 8192^3 product of half precision reaches 0.70 to 0.87 on healthy
# data-centre parts, a copy within the memory of an H200 0.90. Below 0.60 something holds it back,
# below 0.45 it is broken.
LOW_RATIO, BROKEN_RATIO = 0.60, 0.45
JUDGED_BY_DATA_SHEET = {"fp16", "bf16", None}  # for the other precisions nothing was collected
# Of what the link carries one way: pinned copies of a healthy H200 reach 0.88 of generation 5.
LOW_LINK_RATIO = 0.50
SLOWER_THAN_PEERS = 0.90  # 5 % between GPUs is normal silicon and cooling
# What lies in the GPU itself; copies to the host and to other GPUs depend on its place.
JUDGED_BY_PEERS = {"matmul", "convolution", "copy device"}
MOST_LINES = 6
SILICON_LOTTERY = "https://github.com/stas00/ml-engineering/tree/master/compute/accelerator"
MEASURED_LINKS = "https://github.com/stas00/ml-engineering/tree/master/network"


@rule(
    "GD801",
    Severity.ERROR,
    "https://github.com/pytorch/torchtitan/issues/951",
    "https://github.com/pytorch/pytorch/issues/84803",
)
def wrong_results(snapshot: Snapshot) -> tuple[Finding, ...]:
    """A device computes or copies wrongly, or fails at it.

    The same seeded product is computed twice and on every GPU of a kind and compared bit by bit,
    known bytes are copied between all pairs and kept in memory, no result may be NaN or zero, and
    no test may end with an error other than that the device does not offer it.

    Cause: losses become NaN and models wrong without any error.

    Cure: take the device out of service; if only copies between GPUs are wrong, switch ACS and
    the IOMMU off (iommu=pt).
    """
    found = measured(snapshot)
    return _of_each_device(found, found.faults, _wrong)


def _wrong(faults: tuple[Fault, ...]) -> Finding:
    return Finding(
        evidence=tuple(f"{one.device}, {one.test}: {one.reason}" for one in faults[:MOST_LINES]),
        cause="losses become NaN and models wrong without any error",
        fix="take the device out of service; if only copies between GPUs are wrong, switch ACS and "
        "the IOMMU off (iommu=pt)",
    )


@rule("GD802", Severity.ERROR)
def measurement_broke_off(snapshot: Snapshot) -> Finding | None:
    """The measurement hung or crashed.

    It runs in a process of its own with a limit.
    """
    found = measured(snapshot)
    if found.failure is None:
        return None
    return Finding(
        evidence=(f"it ended with: {found.failure}", f"figures until then: {len(found.figures)}"),
        cause="what hangs or crashes a product of matrices hangs or crashes training",
        fix="sudo dmesg | grep -i xid, then run 'gpudiag measure -i N' on one GPU at a time",
    )


@rule("GD803", Severity.ERROR, SILICON_LOTTERY)
def far_below_data_sheet(snapshot: Snapshot) -> tuple[Finding, ...]:
    """A GPU delivers less than half of what such a part can do.

    Compared are half-precision products and copies within the memory, with the dense rates of the
    data sheet; for a part that is not in gpudiag's table nothing is compared.

    Cause: everything on this GPU takes longer than it should.

    Cure: end other programs on the GPU and measure again; then look at its temperature, power
    limit and clocks under load with gpudiag measure.
    """
    return _below(snapshot, lambda ratio: ratio < BROKEN_RATIO)


@rule("GD804", Severity.WARNING, SILICON_LOTTERY)
def below_data_sheet(snapshot: Snapshot) -> tuple[Finding, ...]:
    """A GPU delivers clearly less than healthy parts of its kind.

    They reach 70 to 87 % of the data sheet's dense rate; this one lies between 45 and 60 %.

    Cause: everything on this GPU takes longer than it should.

    Cure: end other programs on the GPU and measure again; then look at its temperature, power
    limit and clocks under load with gpudiag measure.
    """
    return _below(snapshot, lambda ratio: BROKEN_RATIO <= ratio < LOW_RATIO)


@rule("GD805", Severity.WARNING, SILICON_LOTTERY)
def slower_than_peers(snapshot: Snapshot) -> tuple[Finding, ...]:
    """A GPU is slower than the others of its kind in this machine.

    Compared are products, convolutions and copies within the memory with the median of the
    others; 5 % is normal.

    Cause: training over several GPUs runs at the speed of the slowest.

    Cure: compare temperature and clocks of the GPUs under load (gpudiag measure), then their
    cooling, power cables and slots.
    """
    found = measured(snapshot)
    slow = (
        figure
        for figure in found.figures
        if figure.ratio_to_peers is not None
        and figure.ratio_to_peers < SLOWER_THAN_PEERS
        and JUDGED_BY_PEERS & {figure.test, figure.what}
    )
    return _of_each_device(found, slow, _slower)


def _slower(slow: tuple[Figure, ...]) -> Finding:
    return Finding(
        evidence=tuple(
            f"{_described(one)}, {one.ratio_to_peers:.0%} of the others' median{_meanwhile(one)}"
            for one in slow[:MOST_LINES]
        ),
        cause="training over several GPUs runs at the speed of the slowest",
        fix="compare temperature and clocks of the GPUs under load (gpudiag measure), then their "
        "cooling, power cables and slots",
    )


@rule("GD806", Severity.WARNING, MEASURED_LINKS)
def below_link(snapshot: Snapshot) -> tuple[Finding, ...]:
    """Copies to or from a GPU are far slower than its link.

    Compared are copies from and to pinned memory of the host with the PCIe link as it is under
    load, and direct copies between GPUs with NVLink. Healthy ones reach 75 to 90 %; less than half
    is reported. Where the link itself is narrower or older than it could be, another rule says so.

    Cause: batches arrive late, and gradients are exchanged slowly.

    Cure: bind the program to the processors next to the GPU (nvidia-smi topo -m; numactl), and
    measure again while nothing else uses the link.

    Ignore it when the machine is virtual and its host shares the link.
    """
    found = measured(snapshot)
    slow = (
        figure
        for figure in found.figures
        if figure.ratio_to_link is not None
        and figure.ratio_to_link < LOW_LINK_RATIO
        and _is_judged_by_link(figure)
    )
    return _of_each_device(found, slow, _late)


def _is_judged_by_link(figure: Figure) -> bool:
    """Not pageable memory, which a processor copies once more, nor PCIe from socket to socket."""
    if figure.test == "peer copy":
        return (figure.link or "").startswith("NVLink")
    return "pinned" in (figure.detail or "")


def _late(slow: tuple[Figure, ...]) -> Finding:
    return Finding(
        evidence=tuple(
            f"{_described(one)}, {one.ratio_to_link:.0%} of {one.link}" for one in slow[:MOST_LINES]
        ),
        cause="batches arrive late, and gradients are exchanged slowly",
        fix="bind the program to the processors next to the GPU (nvidia-smi topo -m; numactl), and "
        "measure again while nothing else uses the link",
    )


def _below(snapshot: Snapshot, is_low: Callable[[float], bool]) -> tuple[Finding, ...]:
    found = measured(snapshot)
    slow = (
        figure
        for figure in found.figures
        if figure.ratio_to_data_sheet is not None
        and figure.precision in JUDGED_BY_DATA_SHEET
        and is_low(figure.ratio_to_data_sheet)
    )
    return _of_each_device(found, slow, _slow)


def _slow(slow: tuple[Figure, ...]) -> Finding:
    return Finding(
        evidence=tuple(
            f"{_described(one)}, {one.ratio_to_data_sheet:.0%} of the data sheet{_meanwhile(one)}"
            for one in slow[:MOST_LINES]
        ),
        cause="everything on this GPU takes longer than it should",
        fix="end other programs on the GPU and measure again; then look at its temperature, power "
        "limit and clocks under load: gpudiag measure",
    )


def _of_each_device(
    found: Measurement,
    told: Iterable[Fault] | Iterable[Figure],
    finding: Callable[[tuple[Any, ...]], Finding],
) -> tuple[Finding, ...]:
    """One finding per device, about its GPU where it is one whose UUID is known."""
    by_device: dict[str, list[Any]] = {}
    for one in told:
        by_device.setdefault(one.device, []).append(one)
    return tuple(
        replace(finding(tuple(those)), subject=uuid and f"gpu:{uuid}")
        for device, those in by_device.items()
        for uuid in [found.uuid_of(device)]
    )


def _described(figure: Figure) -> str:
    return f"{figure.device}, {figure.what}: {figure.value:.4g} {figure.unit}"


def _meanwhile(figure: Figure) -> str:
    """How the GPU was while the figure was taken, as the end of a line."""
    seen = figure.meanwhile
    if seen is None:
        return ""
    facts = {
        "°C": seen.temperature_celsius,
        "W": seen.power_watts,
        "MHz": seen.clock_sm_mhz,
    }
    told = [f"{value:g} {unit}" for unit, value in facts.items() if value is not None]
    return f" ({', '.join([*told, f'clock event reasons {seen.clock_event_reasons:#x}'])})"


MEASURED_RULES: tuple[Rule, ...] = (
    wrong_results,
    measurement_broke_off,
    far_below_data_sheet,
    below_data_sheet,
    slower_than_peers,
    below_link,
)
