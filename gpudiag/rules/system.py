"""GD6xx: limits that the system sets to a training run."""

from __future__ import annotations

from gpudiag.finding import Finding, Severity, rule
from gpudiag.snapshot import Snapshot, known

MIB = 2**20
COMFORTABLE_SHM_MIB = 1024  # 8 workers x 2 prefetched batches x 64 MiB


@rule("GD601", Severity.WARNING, "https://github.com/pytorch/pytorch/issues/5040")
def shared_memory_too_small(snapshot: Snapshot) -> Finding | None:
    """Shared memory is too small for DataLoader workers.

    Workers hand batches to the training process through /dev/shm, of which Docker gives a
    container only 64 MiB unless it is asked for more.
    """
    system = snapshot.system
    size_mib, used_mib = known(system.shm_total_bytes) // MIB, known(system.shm_used_bytes) // MIB
    if size_mib >= COMFORTABLE_SHM_MIB:
        return None
    in_kubernetes = known(system.container) in {"kubernetes", "kubepods"}
    return Finding(
        evidence=(
            f"/dev/shm holds {size_mib} MiB, {used_mib} MiB of it in use",  # noqa: S108 - a fact
            f"workers are comfortable from {COMFORTABLE_SHM_MIB} MiB",
        ),
        cause="a worker that fills /dev/shm dies with 'Bus error' in the middle of an epoch",
        fix="mount an emptyDir with medium: Memory at /dev/shm, or use num_workers=0"
        if in_kubernetes
        else "start the container with --shm-size=8g or --ipc=host, or use num_workers=0",
    )
