"""The machine around the GPUs: operating system, limits, shared memory, container."""

from __future__ import annotations

import os
import platform
import re
import sys

from gpudiag.host import Host
from gpudiag.probes import topology
from gpudiag.snapshot import Disk, Missing, System

KIB = 1024
SCHEDULERS = {  # by a variable of theirs; what they granted is in the environment and the cgroup
    "SLURM_JOB_ID": "slurm",
    "PBS_JOBID": "pbs",
    "LSB_JOBID": "lsf",
    "KUBERNETES_SERVICE_HOST": "kubernetes",
}
NUMBER = re.compile(r"[0-9]{1,20}")  # 2^64 has twenty digits
NO_LIMIT_BYTES = 2**60  # cgroup v1 writes 2^63 less a page where there is no limit


def system(host: Host, limit_s: float) -> System:  # noqa: ARG001 - reads a few small files
    """The system's facts, each read for itself."""
    shm = host.capacity_bytes("/dev/shm")  # noqa: S108 - its size is the fact
    return System(
        os_name=_os_name(host),
        kernel=platform.release(),
        architecture=platform.machine(),
        python_version=platform.python_version(),
        cpu_count=os.cpu_count() or Missing("the number of CPUs is not known"),
        cpu_affinity_count=host.cpu_affinity_count(),
        cpu_quota=_cpu_quota(host),
        memory_total_bytes=_memory_total(host),
        memory_limit_bytes=_memory_limit(host),
        shm_total_bytes=shm if isinstance(shm, Missing) else shm[0],
        shm_used_bytes=shm if isinstance(shm, Missing) else shm[1],
        open_files_limit=host.open_files_limit(),
        locked_memory_limit_bytes=host.locked_memory_limit_bytes(),
        uptime_s=_uptime(host),
        virtual_machine=topology.virtual_machine(host),
        iommu_groups=topology.iommu_groups(host),
        kernel_parameters=topology.kernel_parameters(host),
        acs_redirects=topology.acs_redirects(host),
        infiniband_devices=topology.infiniband_devices(host),
        infiniband_library=topology.infiniband_library(host),
        network_interfaces=host.names("/sys/class/net"),
        nccl_segments=_nccl_segments(host),
        disks=_disks(host),
        compiler=_compiler(host),
        python_headers=host.exists(f"{_include_folder()}/Python.h"),
        cuda_toolkit_version=_cuda_toolkit_version(host),
        container=_container(host),
        wsl=_wsl(host),
        scheduler=_scheduler(host),
        is_root=host.is_root(),
    )


def _os_name(host: Host) -> str | Missing:
    text = host.read("/etc/os-release")
    if isinstance(text, Missing):
        return text
    found = re.search(r'^PRETTY_NAME="?([^"\n]*)"?$', text, re.MULTILINE)
    return found[1] if found else Missing("/etc/os-release: no PRETTY_NAME")


def _cpu_quota(host: Host) -> float | Missing | None:
    path = "/sys/fs/cgroup/cpu.max"
    text = host.read(path)
    if isinstance(text, str):
        quota, _, period = text.partition(" ")
        return None if quota == "max" else _ratio(quota, period, path)
    path = "/sys/fs/cgroup/cpu/cpu.cfs_quota_us"
    quota_v1 = host.read(path)
    period_v1 = host.read("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
    if isinstance(quota_v1, Missing) or isinstance(period_v1, Missing):
        return text
    return None if quota_v1.startswith("-") else _ratio(quota_v1, period_v1, path)


def _ratio(quota: str, period: str, path: str) -> float | Missing:
    numbers = [text.strip() for text in (quota, period)]
    if not all(NUMBER.fullmatch(text) and text.strip("0") for text in numbers):
        return Missing(f"{path}: no quota in it")
    return int(numbers[0]) / int(numbers[1])


def _memory_total(host: Host) -> int | Missing:
    text = host.read("/proc/meminfo")
    if isinstance(text, Missing):
        return text
    found = re.search(r"^MemTotal:\s+(\d{1,15}) kB", text, re.MULTILINE)
    return int(found[1]) * KIB if found else Missing("/proc/meminfo: no MemTotal")


def _memory_limit(host: Host) -> int | Missing | None:
    text = host.read("/sys/fs/cgroup/memory.max")
    if isinstance(text, Missing):
        text = host.read("/sys/fs/cgroup/memory/memory.limit_in_bytes")
    if isinstance(text, Missing):
        return text
    text = text.strip()
    if text == "max":
        return None
    if not NUMBER.fullmatch(text):
        return Missing("the cgroup's memory limit is no number")
    return None if int(text) >= NO_LIMIT_BYTES else int(text)


def _uptime(host: Host) -> float | Missing:
    text = host.read("/proc/uptime")
    if isinstance(text, Missing):
        return text
    found = re.match(r"[0-9]{1,12}(?:\.[0-9]+)?(?= )", text)
    return float(found[0]) if found else Missing("/proc/uptime: no number in it")


def _disks(host: Host) -> tuple[Disk, ...]:
    """The file systems that caches and temporary files go to, without naming the folders."""
    variables = host.environment
    home = variables.get("HOME", "/")
    cache = variables.get("XDG_CACHE_HOME", f"{home}/.cache")
    folders = {
        "home": home,
        "temporary": variables.get("TMPDIR", "/tmp"),  # noqa: S108 - its free space is the fact
        "torch cache": variables.get("TORCH_HOME", f"{cache}/torch"),
        "CUDA cache": variables.get("CUDA_CACHE_PATH", f"{home}/.nv/ComputeCache"),
    }
    disks = []
    for use, folder in folders.items():
        capacity = host.capacity_bytes(_nearest_existing(host, folder))
        if not isinstance(capacity, Missing):
            total, used = capacity
            disks.append(Disk(use=use, total_bytes=total, free_bytes=total - used))
    return tuple(disks)


def _nearest_existing(host: Host, folder: str) -> str:
    while not host.exists(folder) and "/" in folder.strip("/"):
        folder = folder.rpartition("/")[0]
    return folder if host.exists(folder) else "/"


def _include_folder() -> str:
    """As sysconfig.get_path("include") has it, which takes 5 ms to find out."""
    return f"{sys.base_prefix}/include/python{sys.version_info.major}.{sys.version_info.minor}"


def _compiler(host: Host) -> str | None:
    """Torch's inductor takes $CC, else gcc; the name alone, for paths say who works here."""
    for program in (host.environment.get("CC", "").split(" ")[0], "gcc", "cc", "clang"):
        if program and (found := host.which(program)):
            return found.rpartition("/")[2]
    return None


def _nccl_segments(host: Host) -> int | Missing:
    """How many files of NCCL lie in shared memory: in use, or left by a program that crashed."""
    names = host.names("/dev/shm")  # noqa: S108 - what lies in it is the fact
    return names if isinstance(names, Missing) else sum(n.startswith("nccl-") for n in names)


def _cuda_toolkit_version(host: Host) -> str | Missing | None:
    """The toolkit that an extension would be compiled with, None where there is none."""
    home = host.environment.get("CUDA_HOME") or host.environment.get("CUDA_PATH")
    folder = home or "/usr/local/cuda"
    if not host.exists(f"{folder}/bin/nvcc"):
        return None
    text = host.read(f"{folder}/version.json")
    if isinstance(text, Missing):
        return text
    found = re.search(r'"cuda"\s*:\s*\{[^}]*"version"\s*:\s*"([\d.]+)"', text)
    return found[1] if found else Missing("version.json of the CUDA toolkit: no version in it")


def _container(host: Host) -> str | None:
    if "KUBERNETES_SERVICE_HOST" in host.environment:
        return "kubernetes"
    if host.exists("/run/.containerenv"):
        return "podman"
    if host.exists("/.dockerenv"):
        return "docker"
    if "APPTAINER_CONTAINER" in host.environment or "SINGULARITY_CONTAINER" in host.environment:
        return "apptainer"
    cgroup = host.read("/proc/1/cgroup")
    found = (
        re.search(r"docker|kubepods|lxc|containerd", cgroup) if isinstance(cgroup, str) else None
    )
    return found[0] if found else host.environment.get("container")


def _wsl(host: Host) -> bool | Missing:
    text = host.read("/proc/version")
    return text if isinstance(text, Missing) else "microsoft" in text.lower()


def _scheduler(host: Host) -> str | None:
    return next((name for sign, name in SCHEDULERS.items() if sign in host.environment), None)
