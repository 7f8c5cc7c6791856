"""Environment variables: those on the allow-list, and names that are close to a known one."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

from gpudiag.host import Host
from gpudiag.snapshot import Environment, Misspelling, Variable

ALLOWED_PREFIXES = (
    "CUDA_",
    "NVIDIA_",
    "PYTORCH_",
    "TORCH_",
    "TORCHINDUCTOR_",
    "NCCL_",
    "OMP_",
    "MKL_",
    "HIP_",
    "ROCR_",
    "HSA_",
)
ALLOWED_NAMES = (
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "CONDA_DEFAULT_ENV",
    "PYTHONPATH",
    "PYTHONNOUSERSITE",
    "CC",
    "CXX",
    "ZE_AFFINITY_MASK",
    # Slurm's other variables name users, hosts and jobs
    "SLURM_JOB_GPUS",
    "SLURM_STEP_GPUS",
    "SLURM_GPUS",
    "SLURM_GPUS_ON_NODE",
    "SLURM_GPUS_PER_TASK",
    "SLURM_GPUS_PER_NODE",
    "SLURM_GPU_BIND",
    "SLURM_CPUS_PER_TASK",
    "SLURM_CPUS_ON_NODE",
    "SLURM_MEM_PER_NODE",
    "SLURM_MEM_PER_CPU",
    "SLURM_MEM_PER_GPU",
    "SLURM_NTASKS",
    "SLURM_NTASKS_PER_NODE",
    "SLURM_NNODES",
    "SLURM_LOCALID",
    "SLURM_PROCID",
    "WORLD_SIZE",
    "RANK",
    "LOCAL_RANK",
)
SECRET_WORDS = ("TOKEN", "KEY", "SECRET", "PASSW", "PASSPHRASE", "CREDENTIAL", "AUTH", "COOKIE")
# At the end of a word of the name, as in CUDA_PWD and PYTORCH_DBPASS; a BYPASS is none.
SECRET_ENDING = re.compile(r"(?:PWD|CREDS?|(?<!BY)(?<!COM)PASS)\d*(?:_|$)")

# Each names one file or folder, which is looked for where the value is an absolute path.
NAMES_OF_FILES = (
    "CUDA_HOME",
    "CUDA_INJECTION32_PATH",
    "CUDA_INJECTION64_PATH",
    "CUDA_PATH",
    "NCCL_CONF_FILE",
    "NCCL_GRAPH_FILE",
    "NCCL_NET_PLUGIN",
    "NCCL_TOPO_FILE",
    "NCCL_TUNER_PLUGIN",
)

# The variables that a misspelling can miss; each is read by CUDA, torch or NCCL.
KNOWN = (
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "CUDA_LAUNCH_BLOCKING",
    "CUDA_MODULE_LOADING",
    "CUDA_CACHE_PATH",
    "CUDA_HOME",
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
    "NVIDIA_TF32_OVERRIDE",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_NO_CUDA_MEMORY_CACHING",
    "TORCH_CUDA_ARCH_LIST",
    "TORCH_USE_CUDA_DSA",
    "NCCL_DEBUG",
    "NCCL_P2P_DISABLE",
    "NCCL_IB_DISABLE",
    "NCCL_SOCKET_IFNAME",
    "LD_LIBRARY_PATH",
    "OMP_NUM_THREADS",
)
# Real names that are near one of the above and mean something else.
NOT_MISSPELT = (
    "CUDA_PATH",
    "CUDA_ROOT",
    "CUDA_CACHE_DISABLE",
    "CUDA_CACHE_MAXSIZE",
    "CUDA_VERSION",
    "NVIDIA_REQUIRE_CUDA",
    "NVIDIA_PRODUCT_NAME",
    "LD_RUN_PATH",
    "LIBRARY_PATH",
    "NCCL_VERSION",
    "NCCL_SHM_DISABLE",
    "NCCL_NVLS_ENABLE",
    "NCCL_DEBUG_FILE",
    "NCCL_DEBUG_SUBSYS",
    "NCCL_IB_HCA",
    "NCCL_HOME",
    "MKL_NUM_THREADS",
    "OMP_THREAD_LIMIT",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "ZE_VISIBLE_DEVICES",
)
SIMILARITY = 0.86  # CUDA_VIDIBLE_DEVICES scores 0.95, CUDA_VISIBLE_DEVICE 0.97, CUDA_PATH 0.6
REACH = SIMILARITY / (2 - SIMILARITY)  # a name of less than this share of the length cannot score


def environment(host: Host, limit_s: float) -> Environment:  # noqa: ARG001 - no outside call
    """The variables that matter, never the value of one that may hold a secret."""
    names = sorted(host.environment)
    return Environment(
        variables=tuple(
            Variable(name=name, value=host.environment[name]) for name in names if is_allowed(name)
        ),
        misspelt=tuple(
            Misspelling(name=name, meant=meant, value=host.environment[name])
            for name in names
            if (meant := meant_by(name)) is not None
        ),
        dangling=tuple(
            Variable(name=name, value=host.environment[name])
            for name in NAMES_OF_FILES
            if host.environment.get(name, "").startswith("/")
            and not host.exists(host.environment[name])
        ),
    )


def is_allowed(name: str) -> bool:
    """Whether the value of a variable may be recorded.

    Example:
        >>> is_allowed("CUDA_VISIBLE_DEVICES"), is_allowed("NVIDIA_API_KEY"), is_allowed("HOME")
        (True, False, False)
    """
    if not (name in ALLOWED_NAMES or name.startswith(ALLOWED_PREFIXES)):
        return False
    return not is_secret(name)


def is_secret(name: str) -> bool:
    """Whether the name of a variable says that its value is a secret.

    Example:
        >>> [is_secret(name) for name in ("CUDA_PWD", "NCCL_COOKIE", "CUDA_BYPASS")]
        [True, True, False]
    """
    upper = name.upper()
    return any(word in upper for word in SECRET_WORDS) or bool(SECRET_ENDING.search(upper))


def meant_by(name: str) -> str | None:
    """The known variable that *name* misspells, None if it misspells none.

    Example:
        >>> meant_by("CUDA_VIDIBLE_DEVICES"), meant_by("cuda_visible_devices")
        ('CUDA_VISIBLE_DEVICES', 'CUDA_VISIBLE_DEVICES')
        >>> meant_by("CUDA_VISIBLE_DEVICES") is None, meant_by("CUDA_PATH") is None
        (True, True)
    """
    if name in KNOWN or name in NOT_MISSPELT:
        return None
    if is_secret(name) or not any(_may_be_close(name.upper(), known) for known in KNOWN):
        return None
    from difflib import get_close_matches  # most environments hold no name that gets here

    return next(iter(get_close_matches(name.upper(), KNOWN, n=1, cutoff=SIMILARITY)), None)


@cache
def _letters(name: str) -> Counter[str]:
    return Counter(name)


def _may_be_close(name: str, known: str) -> bool:
    """Lengths, then letters in common, bound the similarity from above at a fraction of its cost.

    Example:
        >>> _may_be_close("CUDA_VIDIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")
        True
        >>> _may_be_close("PATH", "CUDA_VISIBLE_DEVICES")
        False
    """
    if not REACH <= len(name) / len(known) <= 1 / REACH:
        return False
    needed = SIMILARITY * (len(name) + len(known)) / 2
    if sum(map(_letters(known).__contains__, name)) < needed:  # whatever their number
        return False
    return sum((_letters(name) & _letters(known)).values()) >= needed
