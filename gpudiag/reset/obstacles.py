"""Why a reset would be refused, each reason with its source and its cure.

What nvidia-smi itself says: https://docs.nvidia.com/deploy/nvidia-smi/index.html, --gpu-reset: it
needs root; no application may use the GPU (CUDA, an X server, another nvidia-smi); which GPUs have
to go together (`_peers`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from gpudiag.probes.holders import Seen
from gpudiag.snapshot import Gpu, Missing, Snapshot, known_or

SMI = "nvidia-smi"
OPTION = "--gpu-reset"
# It lets go of a GPU when the mode is switched off: https://github.com/NVIDIA/NVSentinel/issues/1690
PERSISTENCED = "nvidia-persistenced"
BEFORE_AMPERE = {"kepler", "maxwell", "pascal", "volta", "turing"}
NEEDS_FABRIC_MANAGER = {"ampere"}  # "on Hopper and later NVSwitch systems, the dependency ... is
# removed", says the manual; its table does not, so there it is told as possible
FABRIC_MANAGER = "nvidia-fabricmanager"
# What holds a GPU without computing on it: https://github.com/NVIDIA/ai-cloud-validation/pull/603
STOPS = {
    "nvidia-cuda-mps-control": "stop it: echo quit | sudo nvidia-cuda-mps-control",
    "nv-hostengine (DCGM)": "stop it: sudo systemctl stop nvidia-dcgm",
}


@dataclass(frozen=True, kw_only=True)
class Obstacle:
    """Something in the way of a reset, and how to move it."""

    reason: str
    fix: str
    certain: bool = True  # it has to be moved first; else nvidia-smi might refuse

    def __str__(self) -> str:
        return f"{self.reason}: {self.fix}"


def obstacles(
    gpus: Sequence[Gpu],
    snapshot: Snapshot,
    seen: Seen,
    *,
    help_text: str | Missing,
    has_nvidia_drm: bool,
) -> Iterator[Obstacle]:
    """Everything in the way.

    Args:
        gpus: Those that are to be reset.
        snapshot: What was seen of the machine.
        seen: Who has the GPUs open.
        help_text: What ``nvidia-smi --help`` prints.
        has_nvidia_drm: Whether this kernel module is loaded.
    """
    yield from _tool(help_text)
    yield from _rights(snapshot)
    for gpu in gpus:
        yield from _of_gpu(gpu, seen)
    yield from _peers(gpus, snapshot)
    yield from _services(gpus, snapshot)
    yield from _surroundings(snapshot, seen, has_nvidia_drm=has_nvidia_drm)


def _tool(help_text: str | Missing) -> Iterator[Obstacle]:
    if isinstance(help_text, Missing):
        yield Obstacle(reason=help_text.missing, fix="install or repair the driver's utilities")
    elif OPTION not in help_text:
        yield Obstacle(
            reason=f"this driver's {SMI} does not know {OPTION}", fix="update the driver"
        )


def _rights(snapshot: Snapshot) -> Iterator[Obstacle]:
    if known_or(snapshot.system.is_root, True) is False:  # noqa: FBT003 - the default of a fact
        yield Obstacle(reason="only root may reset a GPU", fix="run it with sudo")


def _of_gpu(gpu: Gpu, seen: Seen) -> Iterator[Obstacle]:
    name = f"GPU {gpu.index}"
    yield from _holders(gpu, seen)
    if known_or(gpu.display_active, False):  # noqa: FBT003
        yield Obstacle(
            reason=f"a display is attached to {name}",
            fix="stop the display manager: sudo systemctl isolate multi-user.target",
        )
    if parts := known_or(gpu.mig_uuids, ()):
        # Not nvidia-smi's refusal but gpudiag's: what is on them would be lost.
        yield Obstacle(
            reason=f"{name} has {len(parts)} MIG instance(s), which a reset does not keep",
            fix=f"destroy them: sudo nvidia-smi mig -dci -i {gpu.index} && "
            f"sudo nvidia-smi mig -dgi -i {gpu.index}",
        )
    if isinstance(gpu.persistence_enabled, Missing):
        yield Obstacle(
            reason=f"whether {name} is in persistence mode is not known",
            fix=f"switch it off first: sudo nvidia-smi -pm 0 -i {gpu.index}",
            certain=False,
        )


def _holders(gpu: Gpu, seen: Seen) -> Iterator[Obstacle]:
    for pid in _users(gpu, seen):
        holder = seen.holders.get(pid)
        command = known_or(holder.command, "?")[:60] if holder else "not in this PID namespace"
        if PERSISTENCED in command:
            continue
        owner = f" of {known_or(holder.user, '?')}" if holder else ""
        yield Obstacle(
            reason=f"process {pid}{owner} uses GPU {gpu.index} ({command})",
            fix=f"end it, with gpudiag release --pid {pid} or by its owner"
            if holder
            else "end it on the host, where it is seen",
        )


def _users(gpu: Gpu, seen: Seen) -> Iterable[int]:
    named = [process.pid for process in known_or(gpu.processes, ())]
    if isinstance(seen.handles, Missing) or isinstance(gpu.minor_number, Missing):
        return named
    node = f"nvidia{gpu.minor_number}"
    opened = [pid for pid, nodes in seen.handles.nodes.items() if node in nodes]
    return dict.fromkeys([*named, *opened])


def _peers(gpus: Sequence[Gpu], snapshot: Snapshot) -> Iterator[Obstacle]:
    """GPUs that have to be named too, by the manual's table.

    Before Ampere all that are linked by NVLink go together. From Ampere on each goes alone, but
    behind an NVSwitch only while Fabric Manager runs.
    """
    missing = _linked_but_not_named(gpus, snapshot)
    if not missing:
        return
    together = " ".join(f"-i {index}" for index in sorted({gpu.index for gpu in gpus} | missing))
    names = ", ".join(map(str, sorted(missing)))
    alone = f"GPU(s) {names} are linked by NVLink"
    architectures = {known_or(gpu.architecture, "") for gpu in gpus}
    if architectures & BEFORE_AMPERE:
        yield Obstacle(
            reason=f"{alone} and must be reset together with it", fix=f"gpudiag reset {together}"
        )
    elif "" in architectures:
        yield Obstacle(
            reason=f"{alone}, and the architecture, which decides whether they go together, is "
            "not known",
            fix=f"gpudiag reset {together}, if it is refused",
            certain=False,
        )
    elif _behind_a_switch(gpus, snapshot) and not _runs(snapshot, FABRIC_MANAGER):
        certain = bool(architectures & NEEDS_FABRIC_MANAGER) and not isinstance(
            snapshot.driver.services, Missing
        )
        yield Obstacle(
            reason=f"{alone} and go together while Fabric Manager does not run",
            fix=f"sudo systemctl start {FABRIC_MANAGER}, or gpudiag reset {together}",
            certain=certain,
        )


def _linked_but_not_named(gpus: Sequence[Gpu], snapshot: Snapshot) -> set[int]:
    chosen = {gpu.index for gpu in gpus}
    if not any(known_or(gpu.nvlink_active, ()) for gpu in gpus):
        return set()
    return {
        peer
        for pair in known_or(snapshot.nvml.pairs, ())
        for one, peer in ((pair.first, pair.second), (pair.second, pair.first))
        if one in chosen and peer not in chosen and known_or(pair.p2p_nvlink, "") == "ok"
    }


def _behind_a_switch(gpus: Sequence[Gpu], snapshot: Snapshot) -> bool:
    return known_or(snapshot.driver.nvswitch_count, 0) > 0 or any(
        known_or(gpu.fabric_state, "not_supported") != "not_supported" for gpu in gpus
    )


def _runs(snapshot: Snapshot, name: str) -> bool:
    return any(
        service.running and service.name == name
        for service in known_or(snapshot.driver.services, ())
    )


def _services(gpus: Sequence[Gpu], snapshot: Snapshot) -> Iterator[Obstacle]:
    for service in known_or(snapshot.driver.services, ()):
        if service.running and service.name in STOPS:
            yield Obstacle(
                reason=f"{service.name} runs and may keep the GPU open",
                fix=STOPS[service.name],
                certain=False,
            )
    old = any(known_or(gpu.architecture, "") in BEFORE_AMPERE for gpu in gpus)
    if old and _runs(snapshot, FABRIC_MANAGER):
        # "currently being used by one or more other processes (e.g., Fabric Manager, ...)":
        # https://github.com/NVIDIA/gpu-operator/issues/118. From Ampere on it helps with the reset.
        yield Obstacle(
            reason=f"{FABRIC_MANAGER} runs and may keep the GPU open",
            fix=f"stop it, if it is refused: sudo systemctl stop {FABRIC_MANAGER}",
            certain=False,
        )


def _surroundings(snapshot: Snapshot, seen: Seen, *, has_nvidia_drm: bool) -> Iterator[Obstacle]:
    if machine := known_or(snapshot.system.virtual_machine, None):
        # "On certain platforms like pass-through virtualization ... reset functionality may not be
        # exposed directly": NVIDIA's description of nvmlDeviceSetMigMode
        yield Obstacle(
            reason=f"this is a virtual machine ({machine}), which may not pass a reset on",
            fix="restart the virtual machine if it is refused",
            certain=False,
        )
    if container := known_or(snapshot.system.container, None):
        yield Obstacle(
            reason=f"this is a container ({container}); who uses the GPU outside is not seen",
            fix="look and reset from the host",
            certain=False,
        )
    if has_nvidia_drm:  # https://github.com/NVIDIA/mig-parted/issues/181
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
