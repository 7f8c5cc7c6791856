"""GD3xx: GPUs that exist and that this process does not get to see."""

from __future__ import annotations

from gpudiag.finding import Finding, Severity, gpu_rule, rule
from gpudiag.rules.machine import has_nvidia_gpu, in_container
from gpudiag.snapshot import Gpu, NotObserved, Snapshot, known, known_or
from gpudiag.visible_devices import VisibleDevices, parse_visible_devices

VARIABLE = "CUDA_VISIBLE_DEVICES"
DOCUMENTATION = "https://docs.nvidia.com/cuda/cuda-c-programming-guide/#cuda-environment-variables"


@rule("GD301", Severity.ERROR, DOCUMENTATION)
def all_gpus_hidden(snapshot: Snapshot) -> Finding | None:
    """CUDA_VISIBLE_DEVICES hides every GPU.

    The variable is set to nothing, to -1, or to a text that CUDA reads as an empty list. Where
    that was meant, to run on the CPU, ignore this.
    """
    value, visible = _visible(snapshot)
    if visible is None or visible.kept or visible.repeated or visible.beyond is not None:
        return None
    if not has_nvidia_gpu(snapshot):
        return None
    return Finding(
        evidence=(f"{VARIABLE}={value!r}", *([visible.malformed] if visible.malformed else [])),
        cause="CUDA reports no device to any program started with this value",
        fix=f"unset {VARIABLE}, or export {VARIABLE}=0",
    )


@rule("GD302", Severity.WARNING, DOCUMENTATION)
def visible_devices_malformed(snapshot: Snapshot) -> Finding | None:
    """CUDA_VISIBLE_DEVICES is not read as it was meant.

    CUDA reads the list up to the first entry it does not understand and says nothing: ranges,
    spaces, full-width commas, names, and a mix of UUIDs and numbers all end or bend it.
    """
    value, visible = _visible(snapshot)
    if visible is None or visible.malformed is None or not visible.kept:
        return None
    kept = ",".join(str(entry) for entry in visible.kept)
    return Finding(
        evidence=(f"{VARIABLE}={value!r}", visible.malformed, f"CUDA uses: {kept}"),
        cause="fewer or other GPUs are used than the value seems to say",
        fix=f"export {VARIABLE}=0,1 (digits or full UUIDs, ASCII commas, no ranges)",
    )


@rule("GD303", Severity.ERROR, DOCUMENTATION)
def visible_device_repeated(snapshot: Snapshot) -> Finding | None:
    """CUDA_VISIBLE_DEVICES names a GPU twice, which hides all of them.

    A repeated entry makes CUDA read the whole list as empty.
    """
    value, visible = _visible(snapshot)
    if visible is None or visible.repeated is None:
        return None
    return Finding(
        evidence=(f"{VARIABLE}={value!r}", f"{visible.repeated!r} stands in it twice"),
        cause="CUDA reports no device at all, not even those that are named once",
        fix=f"name every GPU once: export {VARIABLE}=0,1",
    )


@rule("GD304", Severity.ERROR, DOCUMENTATION)
def visible_device_does_not_exist(snapshot: Snapshot) -> Finding | None:
    """CUDA_VISIBLE_DEVICES names a GPU that this machine does not have.

    Indices count from 0; the first one that no GPU has ends the list. A UUID must be that of a
    GPU or MIG instance in this machine.
    """
    value, visible = _visible(snapshot)
    if visible is None:
        return None
    gpus = known(snapshot.nvml.gpus)
    if visible.beyond is not None:
        missing = f"index {visible.beyond}, with {len(gpus)} GPU(s) counted from 0"
    else:
        uuids = [known(gpu.uuid) for gpu in gpus]
        uuids += [uuid for gpu in gpus for uuid in known_or(gpu.mig_uuids, ())]
        unknown = [
            entry
            for entry in visible.kept
            if isinstance(entry, str) and not any(uuid.startswith(entry) for uuid in uuids)
        ]
        if not unknown:
            return None
        missing = f"{unknown[0]}, which is no GPU of this machine"
    kept = ",".join(str(entry) for entry in visible.kept) if visible.beyond is not None else ""
    return Finding(
        evidence=(f"{VARIABLE}={value!r}", f"it names {missing}"),
        cause=f"CUDA stops reading there and uses: {kept or 'no GPU'}",
        fix=f"nvidia-smi -L lists the GPUs; export {VARIABLE} with indices below {len(gpus)}",
    )


@rule("GD305", Severity.WARNING)
def variable_misspelt(snapshot: Snapshot) -> Finding | None:
    """The name of an environment variable is misspelt.

    A variable is set whose name is one slip away from one that CUDA, torch or NCCL reads. Nobody
    reads the misspelt one, so it has no effect.
    """
    misspelt = known(snapshot.environment.misspelt)
    if not misspelt:
        return None
    return Finding(
        evidence=tuple(f"{m.name}={m.value!r} is set; {m.meant} was meant" for m in misspelt),
        cause="the setting has no effect, without a word from anyone",
        fix="; ".join(f"unset {m.name}; export {m.meant}={m.value!r}" for m in misspelt),
    )


@rule(
    "GD306",
    Severity.ERROR,
    "https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/",
)
def container_without_gpus(snapshot: Snapshot) -> Finding | None:
    """The container was started without GPUs.

    The host has an NVIDIA GPU, which the PCI bus shows, but neither its device files nor the
    driver's library were given to this container.
    """
    if not in_container(snapshot) or not known(snapshot.driver.pci_devices):
        return None
    if known(snapshot.driver.device_nodes):
        return None
    kind = known(snapshot.system.container)
    granted = snapshot.environment.get("NVIDIA_VISIBLE_DEVICES")
    return Finding(
        evidence=(
            f"this is a {kind} container on a host with NVIDIA GPUs "
            f"({', '.join(d.address for d in known(snapshot.driver.pci_devices))})",
            "no /dev/nvidia* in it",
            f"NVIDIA_VISIBLE_DEVICES is {'not set' if granted is None else repr(granted)}",
        ),
        cause="the runtime passes a GPU and the driver's library into a container only when asked",
        fix="request nvidia.com/gpu: 1 in the pod's resource limits"
        if kind in {"kubernetes", "kubepods"}
        else "start it with 'docker run --gpus all …' (podman: --device nvidia.com/gpu=all; "
        "apptainer: --nv); the host needs nvidia-container-toolkit",
    )


@rule("GD307", Severity.ERROR)
def device_files_not_accessible(snapshot: Snapshot) -> Finding | None:
    """This user may not open the GPU's device files.

    CUDA opens /dev/nvidia0, /dev/nvidiactl and /dev/nvidia-uvm for reading and writing.
    """
    nodes = known(snapshot.driver.device_nodes)
    closed = [node.path for node in nodes if not node.usable]
    if not closed:
        return None
    return Finding(
        evidence=(f"no permission to read and write: {', '.join(closed)}",),
        cause="CUDA finds no device for this user while root may see them all",
        fix="ls -l /dev/nvidia* shows the group: sudo usermod -aG <group> $USER and log in again",
    )


@gpu_rule("GD308", Severity.ERROR)
def compute_mode_prohibited(gpu: Gpu) -> Finding | None:
    """The GPU's compute mode forbids every CUDA program.

    Somebody set the mode PROHIBITED with nvidia-smi -c.
    """
    if known(gpu.compute_mode) != "prohibited":
        return None
    return Finding(
        evidence=(f"GPU {gpu.index} is in compute mode prohibited",),
        cause="CUDA refuses: all CUDA-capable devices are busy or unavailable",
        fix=f"sudo nvidia-smi -i {gpu.index} -c DEFAULT",
    )


@gpu_rule("GD309", Severity.WARNING, "https://github.com/pytorch/pytorch/issues/3871")
def compute_mode_exclusive(gpu: Gpu) -> Finding | None:
    """The GPU admits one process only, and one is there.

    In compute mode EXCLUSIVE_PROCESS the second process that wants the GPU is refused.
    """
    mode = known(gpu.compute_mode)
    if not mode.startswith("exclusive"):
        return None
    holders = [p for p in known(gpu.processes) if p.kind == "compute"]
    if not holders:
        return None
    names = ", ".join(f"{p.pid} ({known_or(p.name, 'not visible here')})" for p in holders)
    return Finding(
        evidence=(f"GPU {gpu.index} is in compute mode {mode}", f"held by process {names}"),
        cause="the next program is refused: all CUDA-capable devices are busy or unavailable",
        fix=f"use another GPU, wait for that process, or sudo nvidia-smi -i {gpu.index} -c DEFAULT",
    )


def _visible(snapshot: Snapshot) -> tuple[str, VisibleDevices | None]:
    value = snapshot.environment.get(VARIABLE)
    if value is None:
        return "", None
    try:
        count = len(known(snapshot.nvml.gpus))
    except NotObserved:
        count = None  # the list can still be read, only not be held against the machine
    return value, parse_visible_devices(value, device_count=count)
