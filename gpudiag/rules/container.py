"""GD3xx: what a container runtime or a batch system gives to a job, and what it keeps."""

from __future__ import annotations

import re

from gpudiag.finding import Finding, Severity, rule
from gpudiag.rules.machine import in_container
from gpudiag.snapshot import Snapshot, known

NVML_UNKNOWN = 999
CAPABILITIES = "NVIDIA_DRIVER_CAPABILITIES"
TOOLKIT = "https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/"
GRANTS = ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "SLURM_GPUS", "SLURM_GPUS_ON_NODE")


@rule("GD313", Severity.ERROR, TOOLKIT, explains=("GD131", "GD221", "GD306"))
def gpus_withheld_by_variable(snapshot: Snapshot) -> Finding | None:
    """A variable tells the container runtime to give no GPU.

    NVIDIA_VISIBLE_DEVICES is none, void or empty in this container, and no GPU is in it. Images
    and charts set it to keep GPUs away from a container that did not ask for one.

    Ignore it when the container is meant to run on the CPU.
    """
    value = snapshot.environment.get("NVIDIA_VISIBLE_DEVICES")
    if not in_container(snapshot) or value not in {"none", "void", ""}:
        return None
    if _gpu_nodes(snapshot):
        return None  # Kubernetes with CDI says void and injects the devices nevertheless
    return Finding(
        evidence=(
            f"NVIDIA_VISIBLE_DEVICES={value!r}",
            "no /dev/nvidia0 or sibling in the container",
        ),
        cause="the NVIDIA container runtime passes neither a GPU nor the driver's libraries",
        fix="start it with --gpus all or -e NVIDIA_VISIBLE_DEVICES=all; or in Kubernetes request "
        "nvidia.com/gpu: 1",
    )


@rule(
    "GD314",
    Severity.ERROR,
    "https://github.com/NVIDIA/nvidia-docker/issues/533",
    explains=("GD105", "GD116", "GD221"),
)
def container_without_compute(snapshot: Snapshot) -> Finding | None:
    """The container did not get the driver's compute libraries.

    NVIDIA_DRIVER_CAPABILITIES lists what the runtime mounts, and compute is not in the list:
    nvidia-smi works, CUDA does not.
    """
    granted = _capabilities(snapshot)
    if granted is None or granted & {"compute", "all"}:
        return None
    return Finding(
        evidence=(f"{CAPABILITIES}={','.join(sorted(granted))}",),
        cause="libcuda.so.1 is not in the container, so CUDA finds no driver",
        fix=f"start the container with -e {CAPABILITIES}=compute,utility",
    )


@rule("GD315", Severity.WARNING, "https://github.com/NVIDIA/nvidia-docker/issues/533")
def container_without_utility(snapshot: Snapshot) -> Finding | None:
    """The container did not get nvidia-smi and NVML.

    NVIDIA_DRIVER_CAPABILITIES lists what the runtime mounts, and utility is not in the list: CUDA
    works, nvidia-smi and everything that asks NVML does not.
    """
    granted = _capabilities(snapshot)
    if granted is None or granted & {"utility", "all"}:
        return None
    return Finding(
        evidence=(f"{CAPABILITIES}={','.join(sorted(granted))}",),
        cause="monitoring, and libraries that ask NVML (vLLM, torch's memory figures), fail",
        fix=f"start the container with -e {CAPABILITIES}=compute,utility",
    )


@rule(
    "GD316",
    Severity.ERROR,
    "https://github.com/NVIDIA/nvidia-container-toolkit/issues/48",
    "https://github.com/NVIDIA/nvidia-container-toolkit/issues/1227",
    explains=("GD105", "GD221"),
)
def container_lost_its_gpus(snapshot: Snapshot) -> Finding | None:
    """The container has lost the GPUs that it was started with.

    The device files are still in it, and NVML fails with "Unknown Error". That is what a container
    sees whose cgroup was written anew, as by systemctl daemon-reload, without its devices.
    """
    if not in_container(snapshot) or known(snapshot.nvml.init_code) != NVML_UNKNOWN:
        return None
    nodes = _gpu_nodes(snapshot)
    if not nodes:
        return None
    return Finding(
        evidence=(
            "NVML: Failed to initialize (999, unknown error)",
            f"{nodes[0]} is in the container",
        ),
        cause="the cgroup no longer allows the device: new programs find no GPU",
        fix="start the container anew; for good, use nvidia-container-toolkit 1.18 or newer with "
        "CDI, or pass the devices with --device /dev/nvidia0 --device /dev/nvidiactl --device "
        "/dev/nvidia-uvm",
    )


@rule(
    "GD317",
    Severity.ERROR,
    "https://github.com/pytorch/pytorch/issues/49081",
    explains=("GD105", "GD221"),
)
def device_files_missing(snapshot: Snapshot) -> Finding | None:
    """The driver runs, and its device files are missing.

    The nvidia kernel module is loaded and there is no /dev/nvidia0 or sibling. They are made by
    nvidia-modprobe when root or an X server first uses the GPU.
    """
    if in_container(snapshot) or not known(snapshot.driver.module_loaded):
        return None
    if _gpu_nodes(snapshot) or not known(snapshot.driver.pci_devices):
        return None
    return Finding(
        evidence=("the nvidia kernel module is loaded", "there is no /dev/nvidia0 or sibling"),
        cause="neither nvidia-smi nor CUDA can reach the driver",
        fix="sudo nvidia-modprobe -c 0 -u; or for good: sudo systemctl enable --now "
        "nvidia-persistenced",
    )


@rule("GD318", Severity.WARNING, "https://github.com/NVIDIA/pyxis/issues/47")
def gpus_without_grant(snapshot: Snapshot) -> Finding | None:
    """This Slurm job sees GPUs that it was not given.

    Slurm grants GPUs through --gpus or --gres. No variable names a grant, CUDA_VISIBLE_DEVICES is
    not set, and NVML lists GPUs: the cluster does not lock GPUs away (ConstrainDevices).
    """
    if known(snapshot.system.scheduler) != "slurm":
        return None
    if any(
        snapshot.environment.get(name) is not None for name in (*GRANTS, "CUDA_VISIBLE_DEVICES")
    ):
        return None
    count = len(known(snapshot.nvml.gpus))
    if count == 0:
        return None
    return Finding(
        evidence=(
            f"{count} GPU(s) are visible in a Slurm job",
            f"none of {', '.join(GRANTS)} is set",
        ),
        cause="the job runs on GPUs that Slurm may give to somebody else at the same time",
        fix="ask for GPUs: --gpus-per-task=1 or --gres=gpu:1 in sbatch or srun",
    )


@rule("GD320", Severity.ERROR, "https://github.com/tatsu-lab/stanford_alpaca/issues/67")
def more_processes_than_gpus(snapshot: Snapshot) -> Finding | None:
    """LOCAL_RANK is higher than the number of GPUs.

    The launcher started more processes on this machine than torch lists GPUs. Each process takes
    the GPU with the number of its local rank.

    Ignore it when several processes share a GPU on purpose, or run on the CPU.
    """
    rank = _integer(snapshot, "LOCAL_RANK")
    if rank is None:
        return None
    count = len(known(snapshot.torch.devices))
    if count == 0 or rank < count:
        return None
    return Finding(
        evidence=(f"LOCAL_RANK={rank}", f"torch lists {count} GPU(s), counted from 0"),
        cause="torch.cuda.set_device ends with 'invalid device ordinal'",
        fix=f"torchrun --nproc-per-node={count}; or let every task see all GPUs of its node "
        "(--gpus-per-node in place of --gpus-per-task)",
    )


@rule("GD321", Severity.ERROR, "https://docs.pytorch.org/docs/stable/elastic/run.html")
def rank_beyond_world_size(snapshot: Snapshot) -> Finding | None:
    """RANK does not fit WORLD_SIZE.

    Ranks count from 0 to WORLD_SIZE - 1. Leftovers of an earlier shell, or a start script that
    counts from 1, break that.
    """
    rank, size = _integer(snapshot, "RANK"), _integer(snapshot, "WORLD_SIZE")
    if rank is None or size is None or rank < size:
        return None
    return Finding(
        evidence=(f"RANK={rank}", f"WORLD_SIZE={size}"),
        cause="init_process_group fails, or waits for processes that never come",
        fix="unset RANK WORLD_SIZE LOCAL_RANK; or start with torchrun, which sets them",
    )


def _integer(snapshot: Snapshot, variable: str) -> int | None:
    value = snapshot.environment.get(variable)
    return int(value) if value and value.isdecimal() else None


def _gpu_nodes(snapshot: Snapshot) -> list[str]:
    nodes = known(snapshot.driver.device_nodes)
    return [node.path for node in nodes if re.fullmatch(r"/dev/(nvidia\d+|dxg)", node.path)]


def _capabilities(snapshot: Snapshot) -> set[str] | None:
    """What the runtime was asked to mount; None where nobody asked or there is no GPU."""
    value = snapshot.environment.get(CAPABILITIES)
    if not in_container(snapshot) or not value:
        return None
    if not _gpu_nodes(snapshot):
        return None
    return {part.strip() for part in value.split(",")}
