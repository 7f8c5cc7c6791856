"""What was measured, as plain data: the facts of the active tests."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from gpudiag.snapshot import NotObserved, Snapshot, known_or

UUID_BLOCK = len("GPU-6018366c")  # of a UUID: enough to name one GPU of a machine


class Meanwhile(Struct, frozen=True, kw_only=True):
    """How the GPU was while one figure was taken; None: not told."""

    temperature_celsius: float | None = None  # the highest
    power_watts: float | None = None  # the highest
    clock_sm_mhz: float | None = None  # the median
    clock_event_reasons: int = 0  # every bit that was set


class Figure(Struct, frozen=True, kw_only=True):
    """A measured number: the median of its repeats."""

    test: str  # matmul, copy, peer copy, launch, …
    device: str  # torch's name, "cuda:0"; under torchrun "rank 3 cuda:3"
    value: float
    unit: str
    precision: str | None = None
    detail: str | None = None
    repeats: int | None = None
    spread_fraction: float | None = None  # between the quartiles, of the median
    ratio_to_data_sheet: float | None = None  # None: this part or this figure is not in the table
    link: str | None = None  # what carries it: "PCIe 5 x16", "NVLink 4.0"; None: not known
    ratio_to_link: float | None = None  # to what the link carries one way
    ratio_to_peers: float | None = None  # to the median of the other devices; None: there are none
    meanwhile: Meanwhile | None = None

    @property
    def what(self) -> str:
        """The test with what distinguishes it."""
        return " ".join(filter(None, (self.test, self.precision, self.detail)))


class Fault(Struct, frozen=True, kw_only=True):
    """A result that is wrong: a device that does this must not be used."""

    test: str
    device: str
    reason: str


class Skipped(Struct, frozen=True, kw_only=True):
    """A test that could not be run, and why."""

    test: str
    device: str
    reason: str


class Device(Struct, frozen=True, kw_only=True):
    """What was measured on."""

    device: str
    name: str | None = None
    uuid: str | None = None
    memory_total_bytes: int | None = None


class Conditions(Struct, frozen=True, kw_only=True):
    """How a GPU was while it was measured; None: not told."""

    gpu: int  # NVML's index
    temperature_max_celsius: float | None = None
    power_max_watts: float | None = None
    clock_sm_median_mhz: float | None = None
    clock_event_reasons: int = 0  # every bit that was set
    pcie_generation: int | None = None  # under load
    pcie_width_lanes: int | None = None


class Measurement(Struct, frozen=True, kw_only=True):
    """Everything that `gpudiag measure` found."""

    devices: tuple[Device, ...] = ()
    figures: tuple[Figure, ...] = ()
    faults: tuple[Fault, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    conditions: tuple[Conditions, ...] = ()
    failure: str | None = None  # how it broke off, None: it ran to its end
    rank: int = 0

    def uuid_of(self, device: str) -> str | None:
        """The UUID of a device by torch's name, None where it has none or it is not known."""
        return next((one.uuid for one in self.devices if one.device == device), None)


class MeasuredSnapshot(Snapshot, frozen=True, kw_only=True):
    """A snapshot with what was measured at the same time."""

    measured: Measurement | None = None


def with_measurement(snapshot: Snapshot, measurement: Measurement) -> MeasuredSnapshot:
    """The snapshot with the measurement, in which a GPU has the UUID that it has in the snapshot.

    Where that one is shortened, so that it does not name a machine, the measurement's is, too.
    """
    listed = [known_or(gpu.uuid, None) for gpu in known_or(snapshot.nvml.gpus, ())]
    devices = tuple(
        msgspec.structs.replace(one, uuid=_as_listed(one.uuid, listed))
        for one in measurement.devices
    )
    facts = {name: getattr(snapshot, name) for name in snapshot.__struct_fields__}
    return MeasuredSnapshot(**facts, measured=msgspec.structs.replace(measurement, devices=devices))


def _as_listed(uuid: str | None, listed: list[str | None]) -> str | None:
    if uuid is None:
        return None
    return next((one for one in listed if one and uuid.startswith(one)), uuid[:UUID_BLOCK])


def measured(snapshot: Snapshot) -> Measurement:
    """What was measured with a snapshot.

    Raises:
        NotObserved: Nothing was.
    """
    found = snapshot.measured if isinstance(snapshot, MeasuredSnapshot) else None
    if found is None:
        raise NotObserved("nothing was measured: gpudiag diagnose --measure")
    return found
