"""GD3xx: modes of a GPU that keep programs out: compute mode, MIG."""

from __future__ import annotations

from gpudiag.finding import Finding, Severity, gpu_in_machine_rule, gpu_rule, rule
from gpudiag.rules.machine import in_container
from gpudiag.rules.visible import visible
from gpudiag.snapshot import Gpu, NotObserved, Snapshot, known, known_or


@gpu_rule(
    "GD308",
    Severity.ERROR,
    "https://docs.nvidia.com/deploy/nvidia-smi/index.html",
    explains=("GD105", "GD221", "GD319", "GD716"),
)
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


@gpu_rule(
    "GD309",
    Severity.WARNING,
    "https://github.com/pytorch/pytorch/issues/3871",
    explains=("GD716",),
)
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


@rule(
    "GD311",
    Severity.WARNING,
    "https://github.com/pytorch/pytorch/issues/102715",
    "https://github.com/pytorch/pytorch/issues/130181",
    explains=("GD319",),
)
def several_mig_instances(snapshot: Snapshot) -> Finding | None:
    """CUDA_VISIBLE_DEVICES names several MIG instances, of which a process uses one.

    CUDA shows a process one instance of a partitioned GPU, the first in the list.
    """
    value, read = visible(snapshot)
    if read is None:
        return None
    instances = [e for e in read.kept if isinstance(e, str) and e.startswith("MIG-")]
    if len(instances) <= 1:
        return None
    return Finding(
        evidence=(
            f"CUDA_VISIBLE_DEVICES={value!r}",
            f"{len(instances)} MIG instances, the first counts",
        ),
        cause="torch.cuda.device_count() is 1, and DataParallel or torchrun finds too few devices",
        fix="start one process per instance, each with its own CUDA_VISIBLE_DEVICES",
    )


@gpu_in_machine_rule(
    "GD312",
    Severity.ERROR,
    "https://github.com/pytorch/pytorch/issues/95784",
    explains=("GD221", "GD319"),
)
def mig_without_instances(gpu: Gpu, snapshot: Snapshot) -> Finding | None:
    """MIG mode is on and the GPU has no instance.

    A GPU in MIG mode gives itself to CUDA in parts only, and none has been made.
    """
    if not known(gpu.mig_enabled) or known(gpu.mig_uuids):
        return None
    if in_container(snapshot):
        raise NotObserved("in a container only the instances that were passed in are seen")
    return Finding(
        evidence=(f"GPU {gpu.index}: MIG mode on, 0 instances",),
        cause="CUDA does not list this GPU at all",
        fix=f"sudo nvidia-smi mig -i {gpu.index} -cgi 0 -C makes one instance of the whole GPU; "
        f"or sudo nvidia-smi -i {gpu.index} -mig 0 ends MIG mode",
    )
