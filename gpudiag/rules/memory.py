"""GD5xx: GPU memory that is gone."""

from __future__ import annotations

from gpudiag.finding import Finding, Severity, gpu_rule
from gpudiag.snapshot import Gpu, Missing, NotObserved, known, known_or

MIB = 2**20
# A CUDA context of a process that is just ending, and the driver's own page tables, stay below.
UNACCOUNTED_MIB = 512
# Drivers before 515 count their own reserve as used: up to 1.1 GiB on an 80 GB part with ECC.
UNACCOUNTED_WITH_RESERVE_MIB = 1536


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
