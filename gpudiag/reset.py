"""nvidia-smi --gpu-reset with the reasons for a refusal known before, and nothing left changed."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from gpudiag.errors import InputError
from gpudiag.host import Host
from gpudiag.memory.suspects import named_pids
from gpudiag.probes.holders import Seen, look
from gpudiag.snapshot import Gpu, Missing, Snapshot, known_or

SMI = "nvidia-smi"
OPTION = "--gpu-reset"
RESET_LIMIT_S = 120.0  # seconds are usual; what takes minutes does not come back
CALL_LIMIT_S = 30.0  # without persistence mode each call starts the driver anew: seconds a GPU
PERSISTENCED = "nvidia-persistenced"  # lets go of the GPU by itself when the mode is switched off
# From Ampere on, GPUs behind an NVSwitch can be reset one by one.
RESET_WITH_ALL_BEHIND_A_SWITCH = {"volta", "turing"}


@dataclass(frozen=True, kw_only=True)
class Obstacle:
    """Something in the way of a reset, and how to move it."""

    reason: str
    fix: str
    certain: bool = True  # nvidia-smi would refuse; else it might

    def __str__(self) -> str:
        return f"{self.reason}: {self.fix}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a reset would run, and what is in its way."""

    gpus: tuple[Gpu, ...]
    obstacles: tuple[Obstacle, ...]

    @property
    def refusals(self) -> tuple[Obstacle, ...]:
        """The obstacles for which nvidia-smi would refuse."""
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


@dataclass(frozen=True, kw_only=True)
class Reset:
    """How a reset went.

    Attributes:
        done: Whether every GPU was reset and answers.
        commands: What was run, or, on a dry run, what would be.
        obstacles: What stood in the way, sentences with their cure.
        said: What nvidia-smi said, and what gpudiag saw.
    """

    done: bool
    commands: tuple[str, ...]
    obstacles: tuple[str, ...]
    said: tuple[str, ...]


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
    obstacles = (
        *_tool(host),
        *_rights(snapshot),
        *(obstacle for gpu in gpus for obstacle in _of_gpu(gpu, seen)),
        *_peers(gpus, snapshot),
        *_services(snapshot),
        *_surroundings(host, snapshot, seen),
    )
    return Plan(gpus=gpus, obstacles=tuple(dict.fromkeys(obstacles)))


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


def perform(host: Host, plan: Plan, *, limit_s: float = RESET_LIMIT_S) -> Reset:
    """Reset, restore the modes even after a failure, and ask whether the GPUs answer."""
    said: list[str] = []
    done = True
    try:
        for command in plan.before:
            done = done and _run(host, command, CALL_LIMIT_S, said)
        done = done and _run(host, plan.reset, limit_s, said)
    finally:
        restored = [_run(host, command, CALL_LIMIT_S, said) for command in plan.after]
    if not all(restored):
        again = "; ".join(shlex.join(command) for command in plan.after)
        said.append(f"persistence mode was not restored, by hand: sudo {again}")
    if done:
        silent = [
            gpu.index
            for gpu, command in zip(plan.gpus, plan.verification, strict=True)
            if not _run(host, command, CALL_LIMIT_S, said)
        ]
        said += [f"GPU {index} does not answer after the reset: reboot" for index in silent]
        done = not silent and all(restored)
    return Reset(
        done=done,
        commands=plan.commands,
        obstacles=tuple(map(str, plan.obstacles)),
        said=tuple(said),
    )


def _run(host: Host, command: tuple[str, ...], limit_s: float, said: list[str]) -> bool:
    outcome = host.run(*command, timeout_s=limit_s)
    if isinstance(outcome, Missing):
        said.append(outcome.missing)
        return False
    text = f"{outcome.stdout}\n{outcome.stderr}"
    said += [line.rstrip() for line in text.splitlines() if line.strip()]
    if outcome.failure:
        said.append(f"{shlex.join(command)}: {outcome.failure}")
    return outcome.failure is None


def _id(gpu: Gpu) -> str:
    return known_or(gpu.uuid, None) or str(gpu.index)


def _is_meant(gpu: Gpu, wanted: str) -> bool:
    if wanted.isdigit():
        return gpu.index == int(wanted)
    if wanted.upper().startswith("GPU-"):
        return known_or(gpu.uuid, "").lower().startswith(wanted.lower())
    return _address(wanted) == _address(known_or(gpu.pci_address, "unknown"))


def _address(text: str) -> str:
    """A PCI address without its domain's leading zeros: nvidia-smi writes eight digits."""
    domain, colon, rest = text.lower().rpartition(":")[0].rpartition(":")
    bus_and_device = f"{rest}:{text.lower().rpartition(':')[2]}"
    return f"{domain.lstrip('0')}{colon if domain.lstrip('0') else ''}{bus_and_device}"


def _tool(host: Host) -> Iterator[Obstacle]:
    outcome = host.run(SMI, "--help", timeout_s=CALL_LIMIT_S)
    if isinstance(outcome, Missing):
        yield Obstacle(reason=outcome.missing, fix="install the driver's utilities")
    elif OPTION not in outcome.stdout:
        yield Obstacle(
            reason=f"this driver's {SMI} does not know {OPTION}", fix="update the driver"
        )


def _rights(snapshot: Snapshot) -> Iterator[Obstacle]:
    if known_or(snapshot.system.is_root, True) is False:  # noqa: FBT003 - the default of a fact
        yield Obstacle(reason="only root may reset a GPU", fix="run it with sudo")


def _of_gpu(gpu: Gpu, seen: Seen) -> Iterator[Obstacle]:
    name = f"GPU {gpu.index}"
    for pid in _users(gpu, seen):
        holder = seen.holders.get(pid)
        command = known_or(holder.command, "?")[:60] if holder else "not in this PID namespace"
        if PERSISTENCED in command:
            continue
        owner = f" of {known_or(holder.user, '?')}" if holder else ""
        yield Obstacle(
            reason=f"process {pid}{owner} uses {name} ({command})",
            fix=f"end it, with gpudiag release --pid {pid} or by its owner",
        )
    if known_or(gpu.display_active, False):  # noqa: FBT003
        yield Obstacle(
            reason=f"a display is attached to {name}",
            fix="stop the display manager: sudo systemctl isolate multi-user.target",
        )
    if parts := known_or(gpu.mig_uuids, ()):
        yield Obstacle(
            reason=f"{name} has {len(parts)} MIG instance(s), which a reset does not survive",
            fix=f"destroy them: sudo nvidia-smi mig -dci -i {gpu.index} && "
            f"sudo nvidia-smi mig -dgi -i {gpu.index}",
        )
    if isinstance(gpu.persistence_enabled, Missing):
        yield Obstacle(
            reason=f"whether {name} is in persistence mode is not known",
            fix=f"switch it off first: sudo nvidia-smi -pm 0 -i {gpu.index}",
            certain=False,
        )


def _users(gpu: Gpu, seen: Seen) -> Iterable[int]:
    named = [process.pid for process in known_or(gpu.processes, ())]
    if isinstance(seen.handles, Missing) or isinstance(gpu.minor_number, Missing):
        return named
    node = f"nvidia{gpu.minor_number}"
    opened = [pid for pid, nodes in seen.handles.nodes.items() if node in nodes]
    return dict.fromkeys([*named, *opened])


def _peers(gpus: Sequence[Gpu], snapshot: Snapshot) -> Iterator[Obstacle]:
    chosen = {gpu.index for gpu in gpus}
    missing = {
        peer
        for pair in known_or(snapshot.nvml.pairs, ())
        for one, peer in ((pair.first, pair.second), (pair.second, pair.first))
        if one in chosen and peer not in chosen and known_or(pair.p2p_nvlink, "") == "ok"
    }
    linked = any(known_or(gpu.nvlink_active, ()) for gpu in gpus)
    if not missing or not linked or _one_by_one(gpus, snapshot):
        return
    together = " ".join(f"-i {index}" for index in sorted(chosen | missing))
    yield Obstacle(
        reason=f"GPU(s) {', '.join(map(str, sorted(missing)))} are linked by NVLink and must be "
        "reset together with it",
        fix=f"gpudiag reset {together}",
    )


def _one_by_one(gpus: Sequence[Gpu], snapshot: Snapshot) -> bool:
    switched = known_or(snapshot.driver.nvswitch_count, 0) > 0 or any(
        known_or(gpu.fabric_state, "not_supported") != "not_supported" for gpu in gpus
    )
    old = any(known_or(g.architecture, "") in RESET_WITH_ALL_BEHIND_A_SWITCH for g in gpus)
    return switched and not old


def _services(snapshot: Snapshot) -> Iterator[Obstacle]:
    stops = {
        "nvidia-fabricmanager": "on GPUs before Ampere stop it: "
        "sudo systemctl stop nvidia-fabricmanager",
        "nvidia-cuda-mps-control": "stop it: echo quit | sudo nvidia-cuda-mps-control",
        "nv-hostengine (DCGM)": "stop it: sudo systemctl stop nvidia-dcgm",
    }
    for service in known_or(snapshot.driver.services, ()):
        if service.running and service.name in stops:
            yield Obstacle(
                reason=f"{service.name} runs and may keep the GPU open",
                fix=stops[service.name],
                certain=False,
            )


def _surroundings(host: Host, snapshot: Snapshot, seen: Seen) -> Iterator[Obstacle]:
    if machine := known_or(snapshot.system.virtual_machine, None):
        yield Obstacle(
            reason=f"this is a virtual machine ({machine}), most of which do not pass a reset on",
            fix="restart the virtual machine if it is refused",
            certain=False,
        )
    if container := known_or(snapshot.system.container, None):
        yield Obstacle(
            reason=f"this is a container ({container}); who uses the GPU outside is not seen",
            fix="look and reset from the host",
            certain=False,
        )
    if host.exists("/sys/module/nvidia_drm"):
        yield Obstacle(
            reason="the module nvidia_drm is loaded and may keep the GPU open",
            fix="sudo modprobe -r nvidia_drm, if it is refused",
            certain=False,
        )
    if not isinstance(seen.handles, Missing) and seen.handles.unreadable:
        yield Obstacle(
            reason=f"the open files of {seen.handles.unreadable} processes may not be listed",
            fix="run it with sudo",
            certain=False,
        )
