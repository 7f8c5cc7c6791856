"""Environment variables: those on the allow-list, and names that are close to a known one."""

from __future__ import annotations

import re
from os.path import commonprefix

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
# Words that another program's variables have where those above have one of nearly the same letters:
# AMD's, Huawei's and oneAPI's collectives, Intel's OpenMP, and what was kept of an older value.
OF_ANOTHER = frozenset({"RCCL", "HCCL", "MCCL", "UCCL", "CCL", "KMP", "OLD"})


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
    if name in KNOWN or is_secret(name):
        return None
    upper = re.sub("_CONFIG$", "_CONF", name.upper())
    if upper in KNOWN:
        return upper
    if OF_ANOTHER.intersection(upper.split("_")) or upper.strip("_0123456789") in KNOWN:
        return None  # _LD_LIBRARY_PATH and CUDA_HOME2 keep a value on purpose
    return next((known for known in KNOWN if _is_one_slip(upper, known)), None)


def _is_one_slip(name: str, known: str) -> bool:
    """Whether one letter is too many, missing or another one, or two are exchanged.

    Example:
        >>> [_is_one_slip(name, "NCCL_DEBUG") for name in ("NCLC_DEBUG", "NCCL_DEBG", "NCCL_DBG")]
        [True, True, False]
    """
    if abs(len(name) - len(known)) > 1:
        return False
    same = len(commonprefix((name, known)))  # noqa: RUF071 - letter by letter is what is meant
    ours, theirs = name[same:], known[same:]
    return (
        ours[1:] in {theirs, theirs[1:]}
        or ours == theirs[1:]
        or (ours[1::-1] == theirs[:2] and ours[2:] == theirs[2:])
    )
