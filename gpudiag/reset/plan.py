"""Which GPUs are meant by a reset, what is in its way, and which commands it takes."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from gpudiag.errors import InputError
from gpudiag.host import Host
from gpudiag.memory.suspects import named_pids
from gpudiag.probes.holders import look
from gpudiag.reset.obstacles import OPTION, SMI, Obstacle, obstacles
from gpudiag.snapshot import Gpu, Missing, Snapshot, known_or

CALL_LIMIT_S = 30.0  # without persistence mode each call starts the driver anew: seconds a GPU


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a reset would run, and what is in its way."""

    gpus: tuple[Gpu, ...]
    obstacles: tuple[Obstacle, ...]

    @property
    def refusals(self) -> tuple[Obstacle, ...]:
        """The obstacles that have to be moved first."""
        return tuple(obstacle for obstacle in self.obstacles if obstacle.certain)

    @property
    def persistent(self) -> tuple[Gpu, ...]:
        """The GPUs whose persistence mode is on, off for the reset, and on again after it."""
        return tuple(gpu for gpu in self.gpus if known_or(gpu.persistence_enabled, False))  # noqa: FBT003

    @property
    def before(self) -> tuple[tuple[str, ...], ...]:
        """What is run before the reset."""
        return tuple((SMI, "-i", _id(gpu), "-pm", "0") for gpu in self.persistent)

    @property
    def reset(self) -> tuple[str, ...]:
        """The reset itself."""
        return (SMI, OPTION, "-i", ",".join(map(_id, self.gpus)))

    @property
    def after(self) -> tuple[tuple[str, ...], ...]:
        """What restores the modes, whether or not the reset succeeded."""
        return tuple((SMI, "-i", _id(gpu), "-pm", "1") for gpu in self.persistent)

    @property
    def verification(self) -> tuple[tuple[str, ...], ...]:
        """What asks each GPU whether it answers."""
        query = ("--query-gpu=uuid", "--format=csv,noheader")
        return tuple((SMI, "-i", _id(gpu), *query) for gpu in self.gpus)

    @property
    def commands(self) -> tuple[str, ...]:
        """Everything, in order, as one would type it."""
        commands = (*self.before, self.reset, *self.after, *self.verification)
        return tuple(shlex.join(command) for command in commands)


def prepare(host: Host, snapshot: Snapshot, wanted: Sequence[str]) -> Plan:
    """Which GPUs are meant, and what stands in the way of their reset.

    Args:
        host: The machine.
        snapshot: What was seen of it; torch is not needed.
        wanted: Indices, UUIDs (or their beginnings) or PCI addresses.

    Raises:
        InputError: A GPU is not there, or named by two.
    """
    gpus = tuple(dict.fromkeys(find(snapshot, one) for one in wanted))
    seen = look(host, named_pids(snapshot))
    in_the_way = obstacles(
        gpus,
        snapshot,
        seen,
        help_text=_help_text(host),
        has_nvidia_drm=host.exists("/sys/module/nvidia_drm"),
    )
    return Plan(gpus=gpus, obstacles=tuple(dict.fromkeys(in_the_way)))


def find(snapshot: Snapshot, wanted: str) -> Gpu:
    """The GPU of an index, UUID or PCI address.

    Raises:
        InputError: There is none, or several begin like this.
    """
    gpus = snapshot.nvml.gpus
    if isinstance(gpus, Missing):
        raise InputError(f"expected a GPU {wanted!r}, got no answer from NVML: {gpus.missing}")
    found = [gpu for gpu in gpus if _is_meant(gpu, wanted.strip())]
    if len(found) != 1:
        there = ", ".join(str(gpu.index) for gpu in gpus) or "none"
        raise InputError(
            f"expected the index, UUID or PCI address of one GPU, got {wanted!r}, which is "
            f"{len(found)} of the GPUs {there}"
        )
    return found[0]


def _help_text(host: Host) -> str | Missing:
    outcome = host.run(SMI, "--help", timeout_s=CALL_LIMIT_S)
    if isinstance(outcome, Missing):
        return outcome
    return Missing(f"{SMI} --help: {outcome.failure}") if outcome.failure else outcome.stdout


def _id(gpu: Gpu) -> str:
    return known_or(gpu.uuid, None) or str(gpu.index)


def _is_meant(gpu: Gpu, wanted: str) -> bool:
    if wanted.isascii() and wanted.isdigit():
        return gpu.index == int(wanted)
    if wanted.upper().startswith("GPU-"):
        return known_or(gpu.uuid, "").lower().startswith(wanted.lower())
    return _address(wanted) == _address(known_or(gpu.pci_address, "unknown"))


def _address(text: str) -> str:
    """A PCI address without its domain's leading zeros: nvidia-smi writes eight digits."""
    domain, colon, rest = text.lower().rpartition(":")[0].rpartition(":")
    bus_and_device = f"{rest}:{text.lower().rpartition(':')[2]}"
    return f"{domain.lstrip('0')}{colon if domain.lstrip('0') else ''}{bus_and_device}"
