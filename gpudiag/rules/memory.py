"""GD5xx: GPU memory that is gone."""

from __future__ import annotations

from gpudiag.finding import Finding, Severity, gpu_in_machine_rule, gpu_rule, rule
from gpudiag.rules.machine import on_this_machine
from gpudiag.snapshot import Gpu, Missing, NotObserved, Snapshot, known, known_or

MIB = 2**20
# A CUDA context of a process that is just ending, and the driver's own page tables, stay below.
UNACCOUNTED_MIB = 512
# Drivers before 515 count their own reserve as used: up to 1.1 GiB on an 80 GB part with ECC.
UNACCOUNTED_WITH_RESERVE_MIB = 1536
FRAGMENTED_FRACTION = 0.2  # of what torch reserved; below that it is the slack of any allocator
FRAGMENTED_MIB = 1024  # less is not worth a warning, whatever fraction it is
BAR1_FULL_FRACTION = 0.95


@gpu_rule("GD501", Severity.WARNING, "https://github.com/pytorch/pytorch/issues/4031")
def memory_held_by_nobody(gpu: Gpu) -> Finding | None:
    """GPU memory is in use and no visible process holds it.

    NVML's figure for memory in use is compared with the sum over the processes it names. Usual
    holders of the rest: workers that outlived a killed training, a process of another container,
    or one that died and whose memory the driver still keeps.
    """
    processes = known(gpu.processes)
    used = known(gpu.memory_used_bytes)
    if used > known(gpu.memory_total_bytes):
        raise NotObserved("more memory in use than there is: the figures cannot be trusted")
    named = sum(known(p.used_bytes) for p in processes)
    limit_mib = (
        UNACCOUNTED_WITH_RESERVE_MIB
        if isinstance(gpu.memory_reserved_bytes, Missing)
        else UNACCOUNTED_MIB
    )
    unaccounted_mib = (used - named) // MIB
    if unaccounted_mib <= limit_mib:
        return None
    hidden = [str(p.pid) for p in processes if known_or(p.visible, True) is False]  # noqa: FBT003
    return Finding(
        evidence=(
            f"GPU {gpu.index}: {used // MIB} MiB in use, {named // MIB} MiB of it by the "
            f"{len(processes)} process(es) that NVML names",
            f"unaccounted for: {unaccounted_mib} MiB",
            *([f"not in this PID namespace: {', '.join(hidden)}"] if hidden else []),
        ),
        cause="programs here run out of memory that nothing seems to use",
        fix="sudo fuser -v /dev/nvidia* names every process with the GPU open; end the orphaned "
        "ones (in a container, look from the host)",
    )


@gpu_in_machine_rule(
    "GD502",
    Severity.WARNING,
    "https://github.com/qizhou000/VisEdit/issues/5",
    explains=("GD501",),
)
def memory_held_by_the_dead(gpu: Gpu, snapshot: Snapshot) -> Finding | None:
    """A process that no longer exists holds GPU memory.

    NVML names its number, and there is no such process on this machine. In a container that is
    normal, for the processes of other containers are not seen; nothing is concluded there.
    """
    gone = [process for process in known(gpu.processes) if not known(process.visible)]
    if not gone:
        return None
    on_this_machine(snapshot)
    held_mib = sum(known_or(process.used_bytes, 0) for process in gone) // MIB
    return Finding(
        evidence=(
            f"GPU {gpu.index}: not in /proc: process {', '.join(str(p.pid) for p in gone)}",
            f"memory it holds: {held_mib} MiB",
        ),
        cause="the driver did not take the memory back when the process died",
        fix=f"end the other programs on it, then sudo nvidia-smi --gpu-reset -i {gpu.index}; "
        "or sudo reboot",
    )


@rule(
    "GD503",
    Severity.WARNING,
    "https://github.com/vllm-project/vllm/pull/41158",
    "https://github.com/kaito-project/kaito/issues/976",
)
def memory_fragmented(snapshot: Snapshot) -> tuple[Finding, ...]:
    """Much of the memory that torch reserved is in pieces too small to use.

    Seen from inside a process only, with gpudiag.diagnose(): torch's allocator counts the inactive
    parts of blocks that it has split.
    """
    found = []
    for state in known(snapshot.torch.allocator):
        lost_mib = state.fragmented_bytes // MIB
        if lost_mib < FRAGMENTED_MIB:
            continue
        if state.fragmented_bytes < FRAGMENTED_FRACTION * state.reserved_bytes:
            continue
        found.append(
            Finding(
                evidence=(
                    f"{state.device}: {state.reserved_bytes // MIB} MiB reserved, "
                    f"{state.allocated_bytes // MIB} MiB allocated",
                    f"{lost_mib} MiB in inactive pieces of split blocks",
                ),
                cause="an allocation fails with 'out of memory' while enough is reserved",
                fix="export PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True before the start; or "
                "torch.cuda.empty_cache() between phases of different shapes",
            )
        )
    return tuple(found)


@gpu_rule(
    "GD504", Severity.WARNING, "https://github.com/aikitoria/open-gpu-kernel-modules/issues/9"
)
def window_to_memory_full(gpu: Gpu) -> Finding | None:
    """The window through which others reach a GPU's memory is full.

    Other devices (GPUs, network cards, the processor) reach the memory through BAR1. Without
    Resizable BAR it is 256 MiB.
    """
    used, total = known(gpu.bar1_used_bytes), known(gpu.bar1_total_bytes)
    if total == 0 or used < BAR1_FULL_FRACTION * total:
        return None
    return Finding(
        evidence=(f"GPU {gpu.index}: {used // MIB} of {total // MIB} MiB of BAR1 in use",),
        cause="peer access and GPUDirect RDMA fail although memory is free",
        fix="enable Above 4G Decoding and Resizable BAR in the BIOS; or end programs that map the "
        "memory",
    )
