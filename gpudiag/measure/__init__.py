"""Active tests in a process of their own: how fast the devices are, and whether they are right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

from gpudiag import children
from gpudiag.errors import InputError
from gpudiag.host import Host
from gpudiag.measure.result import Around, result
from gpudiag.measure.table import COLUMNS, as_json, as_text, rows
from gpudiag.measured import Measurement
from gpudiag.probes.child import spoken
from gpudiag.probes.nvml import nvml
from gpudiag.record import Recording
from gpudiag.snapshot import Nvml

__all__ = ["COLUMNS", "as_json", "as_text", "measure", "rows"]

SECONDS_A_FIGURE = 1.0
QUICK_SECONDS_A_FIGURE = 0.15
FIGURES_A_DEVICE = 20  # about as many as there are, to share the minutes out
INTERVAL_S = 0.1  # between two samples: each figure of a quick run has one or two
START_LIMIT_S = 90.0  # importing torch from a network disk, and starting CUDA on eight GPUs
DEVICE_LIMIT_S = 240.0  # all of a device's tests, with the pattern over its whole memory
NVML_LIMIT_S = 20.0
LEAST_MINUTES, MOST_MINUTES = 0.1, 1440.0


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
        quick: A tenth of the time, and a part of the memory instead of all.
        minutes: About how long the whole may take.
        host: The machine, by default this one.

    Raises:
        InputError: Torch sees no such GPU, or the minutes are none.
    """
    if minutes is not None and not LEAST_MINUTES <= minutes <= MOST_MINUTES:
        raise InputError(f"expected {LEAST_MINUTES:g} to {MOST_MINUTES:g} minutes, got {minutes:g}")
    host = host or Host()
    wanted = tuple(dict.fromkeys(devices))
    count = len(wanted) or len(_nvidia_nodes(host)) or 1
    seconds = QUICK_SECONDS_A_FIGURE if quick else SECONDS_A_FIGURE
    limit_s = START_LIMIT_S + DEVICE_LIMIT_S * count
    if minutes is not None:
        seconds = minutes * 60 / (FIGURES_A_DEVICE * count)
        limit_s += minutes * 60
    rank = _rank(host.environment)
    speaks = rank == 0  # for all; the others would only ask NVML as often again
    connected = nvml(host, NVML_LIMIT_S) if speaks else Nvml()
    recording = Recording(interval_s=INTERVAL_S, host=host)
    with recording if speaks else nullcontext():
        command = children.measure(devices=wanted, seconds=seconds, quick=quick)
        objects, failure = spoken(host.run(*command, timeout_s=limit_s))
    for said in objects:
        if "no_such_device" in said:
            raise InputError(_no_such_device(said["no_such_device"], said["device_count"]))
    around = Around(
        nvml=connected,
        rows=recording.samples.rows,
        first_s=recording.samples.first_s or 0.0,
        interval_s=INTERVAL_S,
    )
    return result(objects, failure, around, rank=rank)


def _rank(environment: Mapping[str, str]) -> int:
    """The number among the processes of torchrun; a RANK that is left over alone means nothing."""
    together = {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= environment.keys()
    return int(environment["RANK"]) if together else 0


def _no_such_device(strangers: list[int], count: int) -> str:
    there = f"the GPUs 0 to {count - 1}" if count else "no GPU"
    return (
        f"expected the index of a GPU that torch sees, got {', '.join(map(str, strangers))}: "
        f"it sees {there}"
    )


def _nvidia_nodes(host: Host) -> tuple[str, ...]:
    names = host.names("/dev")
    if not isinstance(names, tuple):
        return ()
    return tuple(n for n in names if n.startswith("nvidia") and n.removeprefix("nvidia").isdigit())
