"""GD6xx: limits that the system sets to a training run."""

from __future__ import annotations

import re

from gpudiag.finding import Finding, Severity, rule
from gpudiag.rules.machine import in_container, on_this_machine
from gpudiag.rules.visible import visible
from gpudiag.snapshot import Gpu, NotObserved, Snapshot, known, known_or

MIB = 2**20
GIB = 2**30
COMFORTABLE_SHM_MIB = 1024  # 8 workers x 2 prefetched batches x 64 MiB
FULL_FRACTION = 0.9
USUAL_OPEN_FILES = 1024  # the kernel's default; each tensor that a worker hands over takes one
USUAL_LOCKED_MEMORY_BYTES = 64 * MIB  # 8 MiB from systemd, 64 MiB from some images; NCCL pins more
CPUS_PER_GPU = 2  # one for the training process and at least one for a loader
MOSTLY_FREE_FRACTION = 0.5  # such a file system is small, as a tmpfs may be, and not full
ROOM_ON_DISK_BYTES = GIB  # a checkpoint of 250 million parameters in float32
CONTEXT_BYTES = 300 * MIB  # what a program takes of a GPU before its first tensor
LEAST_MEMORY_BYTES = 4 * GIB  # CUDA's context and torch's libraries take 2 to 3 GiB of the host
KUBERNETES = ("kubernetes", "kubepods")
SHM = "/dev/shm"  # noqa: S108 - its size is what this is about


@rule("GD601", Severity.WARNING, "https://github.com/pytorch/pytorch/issues/5040")
def shared_memory_too_small(snapshot: Snapshot) -> Finding | None:
    """Shared memory is too small for DataLoader workers.

    Workers hand batches to the training process through /dev/shm, of which Docker gives a
    container only 64 MiB unless it is asked for more.

    Cure: start the container with --shm-size=8g or --ipc=host; or in Kubernetes mount an emptyDir
    with medium: Memory at /dev/shm; or on a machine of your own: sudo mount -o remount,size=50%
    /dev/shm; or use num_workers=0.
    """
    system = snapshot.system
    size_mib, used_mib = known(system.shm_total_bytes) // MIB, known(system.shm_used_bytes) // MIB
    if size_mib >= COMFORTABLE_SHM_MIB:
        return None
    return Finding(
        evidence=(
            f"{SHM} holds {size_mib} MiB, {used_mib} MiB of it in use",
            f"workers are comfortable from {COMFORTABLE_SHM_MIB} MiB",
        ),
        cause="a worker that fills /dev/shm dies with 'Bus error' in the middle of an epoch",
        fix=_more_shared_memory(snapshot),
    )


@rule(
    "GD602",
    Severity.NOTE,
    "https://github.com/pytorch/pytorch/issues/973",
    "https://github.com/pytorch/pytorch/issues/11201",
)
def few_open_files(snapshot: Snapshot) -> Finding | None:
    """A process may open few files only.

    DataLoader workers hand each tensor over as an open file. The kernel's default of 1024 is
    enough for small batches and few workers.

    Ignore it when your loaders use few workers, or the sharing strategy file_system.
    """
    limit = known(snapshot.system.open_files_limit)
    if limit > USUAL_OPEN_FILES:
        return None
    return Finding(
        evidence=(f"limit on open files: {limit}",),
        cause="the loader ends with 'received 0 items of ancdata' or 'Too many open files'",
        fix="ulimit -n 65536 in the shell that starts the training; or "
        "torch.multiprocessing.set_sharing_strategy('file_system')",
    )


@rule("GD603", Severity.WARNING, "https://github.com/NVIDIA/nccl-tests/issues/206")
def little_locked_memory(snapshot: Snapshot) -> Finding | None:
    """A process may lock too little memory for InfiniBand.

    The machine has InfiniBand or RoCE devices. NCCL registers its buffers with them, which locks
    them in memory.
    """
    limit = known(snapshot.system.locked_memory_limit_bytes)
    devices = known(snapshot.system.infiniband_devices)
    if limit is None or limit > USUAL_LOCKED_MEMORY_BYTES or not devices:
        return None
    return Finding(
        evidence=(
            f"limit on locked memory: {limit // 1024} KiB",
            f"InfiniBand devices: {', '.join(devices[:4])}",
        ),
        cause="NCCL ends with 'ibv_reg_mr … Cannot allocate memory'",
        fix="start the container with --ulimit memlock=-1"
        if in_container(snapshot)
        else "put '* - memlock unlimited' into /etc/security/limits.conf and log in again; or "
        "LimitMEMLOCK=infinity into the service that starts the job",
    )


@rule(
    "GD604",
    Severity.NOTE,
    "https://github.com/pytorch/pytorch/pull/46867",
    "https://github.com/tinygrad/tinygrad/pull/17263",
)
def quota_below_cpu_count(snapshot: Snapshot) -> Finding | None:
    """The container may use fewer CPUs than it sees.

    A quota of the control group limits CPU time. torch and its loaders count the CPUs that they
    see and start as many threads; the kernel then halts them all for a part of each 100 ms.

    Ignore it when OMP_NUM_THREADS and num_workers are set to fit the quota.
    """
    quota, visible = known(snapshot.system.cpu_quota), known(snapshot.system.cpu_affinity_count)
    if quota is None or quota >= visible:
        return None
    if snapshot.environment.get("OMP_NUM_THREADS") is not None:
        return None
    return Finding(
        evidence=(f"CPU quota: {quota:g}, CPUs visible: {visible}", "OMP_NUM_THREADS is not set"),
        cause="the loader and everything on the CPU runs slower than with fewer threads",
        fix=f"export OMP_NUM_THREADS={max(1, int(quota))} and use no more loader workers than that",
    )


@rule("GD605", Severity.WARNING, "https://github.com/pytorch/pytorch/pull/46867")
def few_cpus_for_the_gpus(snapshot: Snapshot) -> Finding | None:
    """There are too few CPUs to keep the GPUs busy.

    Counted are the CPUs that this process may use, by affinity and quota, against the GPUs that
    it sees. Slurm gives a task one CPU unless it is asked for more.

    Ignore it when the data are prepared elsewhere, or on the GPU.
    """
    visible, quota = known(snapshot.system.cpu_affinity_count), known(snapshot.system.cpu_quota)
    usable = visible if quota is None else min(visible, quota)
    gpus = _number_of_gpus(snapshot)
    if gpus == 0 or usable >= CPUS_PER_GPU * gpus:
        return None
    scheduler = known_or(snapshot.system.scheduler, None)
    return Finding(
        evidence=(f"{usable:g} usable CPU(s) for {gpus} GPU(s)",),
        cause="the GPUs wait for the loader: low utilization and slow epochs",
        fix="ask for more: --cpus-per-task=8"
        if scheduler == "slurm"
        else "raise the CPU limit of the container or machine; or move decoding to the GPU",
    )


@rule("GD606", Severity.WARNING, "https://github.com/pytorch/pytorch/issues/12283")
def disk_nearly_full(snapshot: Snapshot) -> Finding | None:
    """A disk that torch writes to is nearly full.

    Looked at are the file systems of the home folder, of temporary files, of torch's cache and of
    CUDA's cache of compiled kernels.
    """
    full = [
        d
        for d in known(snapshot.system.disks)
        if d.free_bytes < min(ROOM_ON_DISK_BYTES, d.total_bytes * MOSTLY_FREE_FRACTION)
    ]
    if not full:
        return None
    return Finding(
        evidence=tuple(
            f"{d.use}: {d.free_bytes // MIB} MiB free of {d.total_bytes // MIB} MiB" for d in full
        ),
        cause="checkpoints, downloads and compiled kernels are cut off or written again and again",
        fix="make room (du -xh ~ | sort -h | tail); or set TMPDIR, TORCH_HOME and CUDA_CACHE_PATH "
        "to a larger disk",
    )


@rule("GD607", Severity.WARNING, "https://github.com/pytorch/pytorch/issues/8976")
def little_memory_allowed(snapshot: Snapshot) -> Finding | None:
    """The container may use hardly more memory than CUDA itself takes.

    The control group limits the memory of the host. Importing torch and starting CUDA takes two
    to three GiB of it before the first tensor.
    """
    limit = known(snapshot.system.memory_limit_bytes)
    if limit is None or limit >= LEAST_MEMORY_BYTES:
        return None
    return Finding(
        evidence=(f"memory limit: {limit // MIB} MiB",),
        cause="the kernel kills the training or its workers: 'Killed', exit code 137",
        fix="raise the memory limit of the pod"
        if known_or(snapshot.system.container, None) in KUBERNETES
        else "ask for more memory: docker run --memory=16g, or sbatch --mem=16G",
    )


@rule("GD608", Severity.WARNING, "https://github.com/NVIDIA/nccl/issues/290")
def shared_memory_nearly_full(snapshot: Snapshot) -> Finding | None:
    """Shared memory is nearly full.

    Somebody holds most of /dev/shm: running loaders, or files that a crashed program left.

    Cure: ls -l /dev/shm shows the files; remove those whose programs have ended; or make it larger,
    as GD601 says.
    """
    total, used = known(snapshot.system.shm_total_bytes), known(snapshot.system.shm_used_bytes)
    if total == 0 or used < FULL_FRACTION * total:
        return None
    return Finding(
        evidence=(f"{SHM}: {used // MIB} of {total // MIB} MiB in use",),
        cause="the next worker dies with 'Bus error', and NCCL with 'No space left on device'",
        fix=f"ls -l {SHM} shows the files; remove those whose programs have ended; or "
        + _more_shared_memory(snapshot),
    )


@rule(
    "GD609",
    Severity.WARNING,
    "https://github.com/NVIDIA/nccl/issues/290",
    "https://github.com/NVIDIA/nccl/issues/342",
)
def nccl_left_segments(snapshot: Snapshot) -> Finding | None:
    """NCCL's files are left in shared memory and no program uses a GPU.

    NCCL removes its files nccl-* from /dev/shm when a job ends, unless it is killed. In a container
    they may be those of a job outside of it, so nothing is concluded there.
    """
    count = known(snapshot.system.nccl_segments)
    if count == 0:
        return None
    on_this_machine(snapshot)
    if any(_is_in_use(gpu) for gpu in known(snapshot.nvml.gpus)):
        return None
    return Finding(
        evidence=(f"{count} file(s) {SHM}/nccl-*", "no GPU is in use"),
        cause="they take shared memory until it is full: NCCL then fails to extend it",
        fix=f"rm {SHM}/nccl-*",
    )


@rule(
    "GD610",
    Severity.WARNING,
    "https://github.com/pytorch/pytorch/issues/8976",
    "https://github.com/ymoslem/OpenNMT-Tutorial/issues/6",
)
def killed_for_memory(snapshot: Snapshot) -> Finding | None:
    """The kernel has killed a Python process for want of memory.

    The kernel log names the process. It is the host's memory that ran out, not the GPU's. In a
    container the log tells of other people's processes, too, so nothing is concluded there.
    """
    on_this_machine(snapshot)
    killed = re.compile(r"Killed process \d+ \((?:python|pt_|torchrun)")
    lines = [e.text for e in known(snapshot.kernel_log.events) if killed.search(e.text)]
    if not lines:
        return None
    return Finding(
        evidence=(lines[-1], f"{len(lines)} such line(s) since boot"),
        cause="a training or loader disappears with 'Killed' or 'exited unexpectedly'",
        fix="use fewer loader workers or a smaller prefetch factor; or raise the memory limit",
    )


@rule("GD611", Severity.WARNING, "https://github.com/leptonai/gpud")
def crash_in_library(snapshot: Snapshot) -> Finding | None:
    """A program crashed inside a library of CUDA or torch.

    The kernel log tells of a segmentation fault in libnccl, libcuda, libcudnn, libcublas or torch.
    In a container the log tells of other people's programs, too, so nothing is concluded there.
    """
    on_this_machine(snapshot)
    crash = re.compile(r"segfault at .* in (lib(?:nccl|cuda|cudnn|cublas|torch|c10)\S*)\[")
    found = [m for e in known(snapshot.kernel_log.events) if (m := crash.search(e.text))]
    if not found:
        return None
    name = found[-1][1]
    return Finding(
        evidence=(found[-1].string, f"{len(found)} such line(s) since boot"),
        cause="in libnccl it is often the fabric manager, else mixed library versions"
        if name.startswith("libnccl")
        else f"{name} met data or a library that it was not built for",
        fix="look at the findings on library versions; or run again with NCCL_DEBUG=WARN and "
        "python -X faulthandler",
    )


def _is_in_use(gpu: Gpu) -> bool:
    """Whether a program is on a GPU; NVML does not name those of other containers."""
    return (
        bool(known(gpu.processes))
        or known_or(gpu.utilization_fraction, 0.0) > 0
        or known(gpu.memory_used_bytes) >= CONTEXT_BYTES
    )


def _more_shared_memory(snapshot: Snapshot) -> str:
    """How a container gets more shared memory."""
    container = known(snapshot.system.container)
    if container is None:
        return "sudo mount -o remount,size=50% /dev/shm; or use num_workers=0"
    if container in KUBERNETES:
        return "mount an emptyDir with medium: Memory at /dev/shm, or use num_workers=0"
    return "start the container with --shm-size=8g or --ipc=host, or use num_workers=0"


def _number_of_gpus(snapshot: Snapshot) -> int:
    """How many GPUs this process may use: those that CUDA_VISIBLE_DEVICES leaves."""
    gpus = known(snapshot.nvml.gpus)
    try:
        _, read = visible(snapshot)
    except NotObserved:
        return len(gpus)
    return len(gpus) if read is None else len(read.kept) or len(gpus)
