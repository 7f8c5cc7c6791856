"""GD8xx: what the active tests of gpudiag measure found."""

from __future__ import annotations

from collections.abc import Iterable

from gpudiag.finding import Finding, Rule, Severity, rule
from gpudiag.measured import Figure, measured
from gpudiag.snapshot import Snapshot

# Of the dense peak. A quick 8192^3 product reaches 0.70 to 0.87 on healthy data-centre parts, a
# copy within the memory of an H200 0.90. Below 0.60 something holds it back, below 0.45 it is
# broken.
LOW_RATIO, BROKEN_RATIO = 0.60, 0.45
SLOWER_THAN_PEERS = 0.90  # 5 % between GPUs is normal silicon and cooling
MOST_LINES = 6
SILICON_LOTTERY = "https://github.com/stas00/ml-engineering/tree/master/compute/accelerator"


@rule(
    "GD801",
    Severity.ERROR,
    "https://github.com/pytorch/torchtitan/issues/951",
    "https://github.com/pytorch/pytorch/issues/84803",
)
def wrong_results(snapshot: Snapshot) -> Finding | None:
    """A device computes or copies wrongly.

    The same seeded product is computed twice and on every GPU of a kind and compared bit by bit,
    known bytes are copied between all pairs and kept in memory, and no result may be NaN or zero.
    """
    faults = measured(snapshot).faults
    if not faults:
        return None
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
def far_below_data_sheet(snapshot: Snapshot) -> Finding | None:
    """A GPU delivers less than half of what such a part can do.

    Compared are half-precision products and copies within the memory, with the dense rates of the
    data sheet; for a part that is not in gpudiag's table nothing is compared.

    Cause: everything on this GPU takes longer than it should.

    Cure: end other programs on the GPU and measure again; then look at its temperature, power
    limit and clocks under load with gpudiag measure.
    """
    return _slow(
        figure
        for figure in measured(snapshot).figures
        if figure.ratio_to_data_sheet is not None and figure.ratio_to_data_sheet < BROKEN_RATIO
    )


@rule("GD804", Severity.WARNING, SILICON_LOTTERY)
def below_data_sheet(snapshot: Snapshot) -> Finding | None:
    """A GPU delivers clearly less than healthy parts of its kind.

    They reach 70 to 87 % of the data sheet's dense rate; this one lies between 45 and 60 %.

    Cause: everything on this GPU takes longer than it should.

    Cure: end other programs on the GPU and measure again; then look at its temperature, power
    limit and clocks under load with gpudiag measure.
    """
    return _slow(
        figure
        for figure in measured(snapshot).figures
        if figure.ratio_to_data_sheet is not None
        and BROKEN_RATIO <= figure.ratio_to_data_sheet < LOW_RATIO
    )


@rule("GD805", Severity.WARNING, SILICON_LOTTERY)
def slower_than_peers(snapshot: Snapshot) -> Finding | None:
    """A GPU is slower than the others of its kind in this machine.

    Compared is with the median of the others; 5 % is normal.
    """
    slow = [
        figure
        for figure in measured(snapshot).figures
        if figure.ratio_to_peers is not None and figure.ratio_to_peers < SLOWER_THAN_PEERS
    ]
    if not slow:
        return None
    return Finding(
        evidence=tuple(
            f"{_described(one)}, {one.ratio_to_peers:.0%} of the others' median"
            for one in slow[:MOST_LINES]
        ),
        cause="training over several GPUs runs at the speed of the slowest",
        fix="compare temperature and clocks of the GPUs under load (gpudiag measure), then their "
        "cooling, power cables and slots",
    )


def _slow(figures: Iterable[Figure]) -> Finding | None:
    slow = tuple(figures)
    if not slow:
        return None
    return Finding(
        evidence=tuple(
            f"{_described(one)}, {one.ratio_to_data_sheet:.0%} of the data sheet"
            for one in slow[:MOST_LINES]
        ),
        cause="everything on this GPU takes longer than it should",
        fix="end other programs on the GPU and measure again; then look at its temperature, power "
        "limit and clocks under load: gpudiag measure",
    )


def _described(figure: Figure) -> str:
    return f"{figure.device}, {figure.what}: {figure.value:.4g} {figure.unit}"


MEASURED_RULES: tuple[Rule, ...] = (
    wrong_results,
    measurement_broke_off,
    far_below_data_sheet,
    below_data_sheet,
    slower_than_peers,
)
