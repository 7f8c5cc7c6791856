"""GD3xx: GPUs that exist and that this process does not get to see."""

from __future__ import annotations

import re

from gpudiag.finding import Finding, Severity, rule
from gpudiag.rules.machine import has_nvidia_gpu, in_container, quoted
from gpudiag.rules.visible import VARIABLE, uuids, visible
from gpudiag.snapshot import DeviceNode, Snapshot, known, known_or
from gpudiag.visible_devices import named_again

# What CUDA opens; without the others, as nvidia-modeset, it works.
OPENED_BY_CUDA = re.compile(r"/dev/(?:nvidia(?:\d+|ctl|-uvm)|dxg)")
DOCUMENTATION = "https://docs.nvidia.com/cuda/cuda-c-programming-guide/#cuda-environment-variables"


@rule("GD301", Severity.ERROR, DOCUMENTATION, explains=("GD221", "GD319"))
def all_gpus_hidden(snapshot: Snapshot) -> Finding | None:
    """CUDA_VISIBLE_DEVICES hides every GPU.

    The variable is set to nothing, to -1, or to a text that CUDA reads as an empty list.

    Ignore it when the program is meant to run on the CPU.
    """
    value, read = visible(snapshot)
    if read is None or read.kept or read.repeated or read.beyond is not None:
        return None
    if not has_nvidia_gpu(snapshot):
        return None
    return Finding(
        evidence=(f"{VARIABLE}={value!r}", *([read.malformed] if read.malformed else [])),
        cause="CUDA reports no device to any program started with this value",
        fix=f"unset {VARIABLE}, or export {VARIABLE}=0",
    )


@rule("GD302", Severity.WARNING, DOCUMENTATION, explains=("GD319",))
def visible_devices_malformed(snapshot: Snapshot) -> Finding | None:
    """CUDA_VISIBLE_DEVICES is not read as it was meant.

    CUDA reads the list up to the first entry it does not understand and says nothing: ranges,
    spaces, full-width commas, names, and a mix of UUIDs and numbers all end or bend it.

    Cure: export CUDA_VISIBLE_DEVICES=0,1 (digits or full UUIDs, ASCII commas, no ranges).
    """
    value, read = visible(snapshot)
    if read is None or read.malformed is None or not read.kept:
        return None
    kept = ",".join(str(entry) for entry in read.kept)
    return Finding(
        evidence=(f"{VARIABLE}={value!r}", read.malformed, f"CUDA uses: {kept}"),
        cause="fewer or other GPUs are used than the value seems to say",
        fix=f"export {VARIABLE}={_example(snapshot)} (digits or full UUIDs, ASCII commas, no "
        "ranges)",
    )


@rule("GD303", Severity.ERROR, DOCUMENTATION, explains=("GD221", "GD319"))
def visible_device_repeated(snapshot: Snapshot) -> Finding | None:
    """CUDA_VISIBLE_DEVICES names a GPU twice, which hides all of them.

    A repeated entry makes CUDA read the whole list as empty.

    Cure: export CUDA_VISIBLE_DEVICES=0,1 with every GPU named once.
    """
    value, read = visible(snapshot)
    repeated = None if read is None else read.repeated or named_again(read)
    if repeated is None:
        return None
    return Finding(
        evidence=(f"{VARIABLE}={value!r}", f"{repeated!r} stands in it twice"),
        cause="CUDA reports no device at all, not even those that are named once",
        fix=f"name every GPU once: export {VARIABLE}={_example(snapshot)}",
    )


@rule("GD304", Severity.ERROR, DOCUMENTATION, explains=("GD221", "GD319"))
def visible_device_does_not_exist(snapshot: Snapshot) -> Finding | None:
    """CUDA_VISIBLE_DEVICES names a GPU that this machine does not have.

    Indices count from 0; the first one that no GPU has ends the list. A UUID must be that of a
    GPU or MIG instance in this machine.

    Cause: CUDA stops reading at the first entry that no GPU has, and uses those before it, if any.
    """
    value, read = visible(snapshot)
    if read is None:
        return None
    gpus = known(snapshot.nvml.gpus)
    kept = read.kept
    if read.beyond is not None:
        wrong = f"index {read.beyond}, with {len(gpus)} GPU(s) counted from 0"
    else:
        for gpu in gpus:
            known(gpu.uuid)
        named = [uuid for gpu in gpus for uuid in uuids(gpu)]
        fits = [sum(uuid.startswith(str(entry)) for uuid in named) for entry in kept]
        first = next(
            (i for i, entry in enumerate(kept) if isinstance(entry, str) and fits[i] != 1), None
        )
        if first is None:
            return None
        wrong = f"{kept[first]}, which is no GPU of this machine"
        if fits[first]:
            wrong = f"{kept[first]!r}, with which the UUIDs of {fits[first]} GPUs begin"
        kept = kept[:first]
    return Finding(
        evidence=(f"{VARIABLE}={value!r}", f"it names {wrong}"),
        cause=f"CUDA stops reading there and uses: {','.join(map(str, kept)) or 'no GPU'}",
        fix=f"nvidia-smi -L lists the GPUs; export {VARIABLE} with indices below {len(gpus)}",
    )


@rule(
    "GD305",
    Severity.WARNING,
    "https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/environment-variables.html",
    "https://docs.pytorch.org/docs/stable/cuda_environment_variables.html",
)
def variable_misspelt(snapshot: Snapshot) -> Finding | None:
    """The name of an environment variable is misspelt.

    A variable is set whose name is one slip away from one that CUDA, torch or NCCL reads. Nobody
    reads the misspelt one, so it has no effect.

    Cure: unset the misspelt variable and export the one that was meant, with the same value.
    """
    misspelt = known(snapshot.environment.misspelt)
    if not misspelt:
        return None
    return Finding(
        evidence=tuple(f"{m.name}={m.value!r} is set; {m.meant} was meant" for m in misspelt),
        cause="the setting has no effect, without a word from anyone",
        fix="; ".join(f"unset {m.name}; export {m.meant}={_assigned(m.value)}" for m in misspelt),
    )


def _assigned(value: str) -> str:
    """A value as the shell takes it; it expands a ``~/`` at its start and behind each colon."""
    return ":".join(map(quoted, value.split(":"))) if "~" in value else quoted(value)


@rule(
    "GD306",
    Severity.ERROR,
    "https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/",
    explains=("GD221",),
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


@rule(
    "GD307",
    Severity.ERROR,
    "https://github.com/NVIDIA/open-gpu-kernel-modules/blob/main/kernel-open/nvidia/nv-reg.h",
    explains=("GD105", "GD221"),
)
def device_files_not_accessible(snapshot: Snapshot) -> Finding | None:
    """This user may not open the GPU's device files.

    CUDA opens /dev/nvidia0, /dev/nvidiactl and /dev/nvidia-uvm for reading and writing.

    Cure: ls -l /dev/nvidia* shows the group: sudo usermod -aG <group> $USER and log in again; or
    where no group may open them: sudo chmod 0666 /dev/nvidia*, and for the time after the next boot
    the module's option NVreg_DeviceFileMode=0666.
    """
    nodes = [n for n in known(snapshot.driver.device_nodes) if OPENED_BY_CUDA.fullmatch(n.path)]
    closed = [node for node in nodes if not node.usable]
    if not closed or _cuda_lists_all(snapshot):
        return None
    paths = [node.path for node in closed]
    if all(known_or(node.mode, "")[7:9] == "rw" for node in closed):
        return Finding(
            evidence=(f"no permission to read and write, in spite of mode 0666: {paths[0]}",),
            cause="CUDA finds no device: something else than the mode denies it",
            fix="in a container or job ask for the GPU (--gpus all, --gres=gpu:1); else look at "
            "SELinux and AppArmor: sudo ausearch -m avc -ts recent, sudo dmesg | grep DENIED",
        )
    return Finding(
        evidence=(f"no permission to read and write: {', '.join(paths)}",),
        cause="CUDA finds no device for this user while root may see them all",
        fix=_join(closed)
        or f"sudo chmod 0666 {' '.join(paths)}, and for the time after the next "
        "boot put 'options nvidia NVreg_DeviceFileMode=0666' into /etc/modprobe.d/nvidia.conf, "
        "unless a udev rule sets another mode",
    )


def _cuda_lists_all(snapshot: Snapshot) -> bool:
    """Whether CUDA started and lists as many GPUs as the driver, whatever is closed."""
    driver, gpus = snapshot.driver, known_or(snapshot.nvml.gpus, ())
    started = known_or(driver.cuda_init_code, None) == 0
    return started and known_or(driver.cuda_device_count, len(gpus)) >= len(gpus)


@rule(
    "GD310",
    Severity.NOTE,
    "https://github.com/flashinfer-ai/flashinfer/pull/4901",
    "https://github.com/baker-laboratory/rf_diffusion_all_atom/issues/36",
)
def visible_devices_by_uuid(snapshot: Snapshot) -> Finding | None:
    """CUDA_VISIBLE_DEVICES names GPUs by UUID.

    CUDA accepts UUIDs, whole or shortened. Libraries that read the variable themselves may expect
    numbers. MIG instances are not reported: a UUID is their only name.

    Ignore it when your programs work with it.
    """
    value, read = visible(snapshot)
    if read is None:
        return None
    if not any(isinstance(entry, str) and entry.startswith("GPU-") for entry in read.kept):
        return None
    return Finding(
        evidence=(f"{VARIABLE}={value!r}",),
        cause="tools that turn each entry into a number fail on it, or take another GPU",
        fix=f"export {VARIABLE} with indices, which nvidia-smi -L lists beside the UUIDs; or "
        "upgrade the tool that fails",
    )


@rule("GD319", Severity.WARNING, DOCUMENTATION)
def cuda_lists_fewer(snapshot: Snapshot) -> Finding | None:
    """CUDA lists fewer GPUs than the driver.

    cuInit succeeded, and its device count is below the number of GPUs that NVML lists, although
    CUDA_VISIBLE_DEVICES does not ask for fewer.
    """
    value, read = visible(snapshot)
    count, gpus = known(snapshot.driver.cuda_device_count), known(snapshot.nvml.gpus)
    expected = len(gpus) if read is None else len(read.kept)
    if any(known_or(gpu.mig_enabled, False) for gpu in gpus) or count >= expected:  # noqa: FBT003
        return None
    return Finding(
        evidence=(
            f"NVML lists {len(gpus)} GPU(s), CUDA {count}",
            f"{VARIABLE}={value!r}" if read else f"{VARIABLE} is not set",
        ),
        cause="a GPU does not start, or is closed to this process",
        fix="sudo dmesg | grep -i nvrm names the GPU; or look at its compute mode and its files in "
        "/dev",
    )


@rule("GD322", Severity.WARNING, DOCUMENTATION)
def device_order_unknown(snapshot: Snapshot) -> Finding | None:
    """CUDA_DEVICE_ORDER has a value that CUDA does not know.

    CUDA knows FASTEST_FIRST and PCI_BUS_ID.
    """
    value = snapshot.environment.get("CUDA_DEVICE_ORDER")
    if value is None or value in {"FASTEST_FIRST", "PCI_BUS_ID"}:
        return None
    return Finding(
        evidence=(f"CUDA_DEVICE_ORDER={value!r}",),
        cause="CUDA ignores it and puts the fastest GPU first",
        fix="export CUDA_DEVICE_ORDER=PCI_BUS_ID",
    )


def _example(snapshot: Snapshot) -> str:
    return "0" if len(known_or(snapshot.nvml.gpus, ())) == 1 else "0,1"


def _join(nodes: list[DeviceNode]) -> str | None:
    """The command after which the group's permission is this user's; None where it has none."""
    if any(known_or(node.mode, "crw-rw----")[4:6] != "rw" for node in nodes):
        return None
    groups = {known_or(node.group, "<group>") for node in nodes} - {"root", "nogroup", "nobody"}
    if not groups:
        return None
    shown = "ls -l /dev/nvidia* shows the group: " if "<group>" in groups else ""
    return f"{shown}sudo usermod -aG {','.join(sorted(groups))} $USER and log in again"
