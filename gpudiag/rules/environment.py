"""GD6xx: environment variables that slow torch down, break it, or do nothing."""

from __future__ import annotations

import re

from gpudiag.finding import Finding, Severity, rule
from gpudiag.rules.compatibility import Capability, support
from gpudiag.rules.machine import capabilities
from gpudiag.snapshot import NotObserved, Snapshot, known

# Left by a debugging or profiling session; each slows every call or stops at the first fault.
DEBUG_VARIABLES = (
    "TORCH_USE_CUDA_DSA",
    "CUDA_PROFILE",
    "CUDA_INJECTION32_PATH",
    "CUDA_INJECTION64_PATH",
    "CUDA_ENABLE_COREDUMP_ON_EXCEPTION",
    "CUDA_COREDUMP_FILE",
    "CUDA_DEVICE_WAITS_ON_EXCEPTION",
    "CUDA_AUTO_BOOST",
)
OFF = ("", "0")
TF32_FROM: Capability = (8, 0)  # Ampere, the first with TensorFloat-32
SMALL_CACHE_BYTES = 256 * 2**20  # below the driver's default (1 GiB from CUDA 11.4 on)
# As torch.utils.cpp_extension reads them.
ARCHITECTURE_NAMES = {
    "kepler+tesla": "3.7",
    "kepler": "3.5+PTX",
    "maxwell+tegra": "5.3",
    "maxwell": "5.0;5.2+PTX",
    "pascal": "6.0;6.1+PTX",
    "volta+tegra": "7.2",
    "volta": "7.0+PTX",
    "turing": "7.5+PTX",
    "ampere+tegra": "8.7",
    "ampere": "8.0;8.6+PTX",
    "ada": "8.9+PTX",
    "hopper": "9.0+PTX",
    "blackwell+tegra": "11.0",
    "blackwell": "10.0;10.3;12.0;12.1+PTX",
    "rubin": "10.7+PTX",
}
DEBUGGING = "https://github.com/NVIDIA/DCGM"
NUMERICS = "https://docs.pytorch.org/docs/stable/notes/numerical_accuracy.html"
VARIABLES = "https://docs.nvidia.com/cuda/cuda-c-programming-guide/#cuda-environment-variables"


@rule("GD612", Severity.WARNING, "https://github.com/llvm/llvm-project/issues/225493")
def more_threads_than_cpus(snapshot: Snapshot) -> Finding | None:
    """OMP_NUM_THREADS asks for more threads than there are CPUs.

    The value is compared with the CPUs that this process may use, by affinity and quota.
    """
    value = snapshot.environment.get("OMP_NUM_THREADS")
    if value is None or not value.isdecimal():
        return None
    visible, quota = known(snapshot.system.cpu_affinity_count), known(snapshot.system.cpu_quota)
    usable = visible if quota is None else min(visible, quota)
    if int(value) <= max(1, usable):
        return None
    return Finding(
        evidence=(f"OMP_NUM_THREADS={value}", f"usable CPUs: {usable:g}"),
        cause="the threads take turns and wait for one another: slower than with fewer",
        fix=f"export OMP_NUM_THREADS={max(1, int(usable))}",
    )


@rule("GD613", Severity.WARNING, VARIABLES)
def launches_block(snapshot: Snapshot) -> Finding | None:
    """CUDA_LAUNCH_BLOCKING makes every kernel wait for the one before.

    The variable is meant for finding the call that fails. With it the processor waits for the GPU
    after each launch.

    Ignore it while you look for a fault.
    """
    value = snapshot.environment.get("CUDA_LAUNCH_BLOCKING")
    if value is None or value in OFF:
        return None
    return Finding(
        evidence=(f"CUDA_LAUNCH_BLOCKING={value}",),
        cause="training runs at a fraction of its speed, without a word",
        fix="unset CUDA_LAUNCH_BLOCKING",
    )


@rule("GD614", Severity.WARNING, DEBUGGING)
def debugging_left_on(snapshot: Snapshot) -> Finding | None:
    """Variables of a debugging or profiling session are still set.

    They make CUDA load a tool into every program, write core dumps, or wait at an exception.

    Cure: unset the variables that the report names.

    Ignore it while you debug or profile.
    """
    left = [
        f"{name}={value}"
        for name in DEBUG_VARIABLES
        if (value := snapshot.environment.get(name)) is not None and value not in OFF
    ]
    if not left:
        return None
    return Finding(
        evidence=tuple(left),
        cause="programs run slower, or stop at a fault and wait for a debugger",
        fix="unset " + " ".join(text.partition("=")[0] for text in left),
    )


@rule("GD615", Severity.WARNING, "https://github.com/pytorch/pytorch/issues/145661")
def memory_caching_off(snapshot: Snapshot) -> Finding | None:
    """Torch's memory cache is switched off.

    PYTORCH_NO_CUDA_MEMORY_CACHING is set. The allocator looks only whether it is there: the value
    0 switches the cache off, too.

    Ignore it while you look for illegal memory accesses.
    """
    value = snapshot.environment.get("PYTORCH_NO_CUDA_MEMORY_CACHING")
    if value is None:
        return None
    return Finding(
        evidence=(f"PYTORCH_NO_CUDA_MEMORY_CACHING={value!r}",),
        cause="every tensor is allocated and freed by the driver, which stops the GPU each time",
        fix="unset PYTORCH_NO_CUDA_MEMORY_CACHING",
    )


@rule("GD616", Severity.WARNING, NUMERICS)
def tensor_float_overridden(snapshot: Snapshot) -> Finding | None:
    """NVIDIA_TF32_OVERRIDE decides on precision over the program's head.

    With 0 no library uses TensorFloat-32, with 1 all of them do, whatever torch was told.

    Ignore it when that is what you want for every program in this environment.
    """
    value = snapshot.environment.get("NVIDIA_TF32_OVERRIDE")
    if value not in {"0", "1"}:
        return None
    if not any(capability >= TF32_FROM for capability in _capabilities(snapshot)):
        return None
    return Finding(
        evidence=(f"NVIDIA_TF32_OVERRIDE={value}",),
        cause="float32 products run at a fraction of the GPU's speed"
        if value == "0"
        else "float32 results have the precision of 10 bits even where the program forbids it",
        fix="unset NVIDIA_TF32_OVERRIDE, and use torch.set_float32_matmul_precision in the program",
    )


@rule("GD617", Severity.NOTE, NUMERICS)
def tensor_float_off(snapshot: Snapshot) -> Finding | None:
    """float32 products do not use the tensor cores.

    That is torch's default: full precision. On GPUs from Ampere on, TensorFloat-32 is several
    times as fast and rounds the factors to 10 bits.

    Ignore it when you train in bfloat16 or float16, or need full float32 precision.
    """
    if known(snapshot.torch.float32_matmul_precision) != "highest":
        return None
    if not known(snapshot.torch.cuda_available):
        return None  # nothing runs on the GPU
    able = [capability for capability in _capabilities(snapshot) if capability >= TF32_FROM]
    if not able:
        return None
    return Finding(
        evidence=("torch.get_float32_matmul_precision() is 'highest'",),
        cause="training in float32 is slower than this GPU can",
        fix="torch.set_float32_matmul_precision('high') at the start of the program",
    )


@rule("GD623", Severity.NOTE, VARIABLES)
def kernels_loaded_eagerly(snapshot: Snapshot) -> Finding | None:
    """CUDA_MODULE_LOADING=EAGER loads every kernel at the start.

    CUDA loads kernels when they are called first, unless this variable says otherwise.

    Ignore it when you measure, and want no load in the middle.
    """
    value = snapshot.environment.get("CUDA_MODULE_LOADING")
    if value is None or value.upper() != "EAGER":
        return None
    return Finding(
        evidence=(f"CUDA_MODULE_LOADING={value}",),
        cause="starting takes seconds longer, and hundreds of MiB more of GPU memory are taken",
        fix="unset CUDA_MODULE_LOADING",
    )


@rule("GD624", Severity.WARNING, "https://github.com/pytorch/pytorch/issues/12283", VARIABLES)
def kernel_cache_off(snapshot: Snapshot) -> Finding | None:
    """CUDA's cache of compiled kernels is off or too small.

    Kernels that are compiled for the GPU at first use are kept in ~/.nv/ComputeCache, unless
    CUDA_CACHE_DISABLE or a small CUDA_CACHE_MAXSIZE forbids it.
    """
    disabled = snapshot.environment.get("CUDA_CACHE_DISABLE")
    size = snapshot.environment.get("CUDA_CACHE_MAXSIZE")
    small = size is not None and size.isdecimal() and int(size) < SMALL_CACHE_BYTES
    if disabled in {None, *OFF} and not small:
        return None
    return Finding(
        evidence=tuple(
            f"{name}={value}"
            for name, value in (("CUDA_CACHE_DISABLE", disabled), ("CUDA_CACHE_MAXSIZE", size))
            if value is not None
        ),
        cause="kernels that must be compiled for this GPU are compiled at every start: minutes",
        fix="unset CUDA_CACHE_DISABLE CUDA_CACHE_MAXSIZE; or export CUDA_CACHE_MAXSIZE=4294967296",
    )


@rule("GD625", Severity.WARNING, "https://github.com/pytorch/pytorch/issues/31285")
def extensions_without_this_gpu(snapshot: Snapshot) -> Finding | None:
    """TORCH_CUDA_ARCH_LIST leaves out the GPU of this machine.

    Extensions are compiled for the architectures in the list. None of them runs on this GPU.

    Cure: export TORCH_CUDA_ARCH_LIST with this GPU's compute capability and build the extensions
    anew; or unset it: then they are built for the GPU that is seen.

    Ignore it when you build for another machine.
    """
    value = snapshot.environment.get("TORCH_CUDA_ARCH_LIST")
    if not value or value.strip().lower() in {"all", "common"}:
        return None
    entries = [entry for entry in re.split(r"[;\s,]+", value.strip()) if entry]
    left_out = [c for c in _capabilities(snapshot) if not any(_covers(e, c) for e in entries)]
    if not left_out:
        return None
    return Finding(
        evidence=(
            f"TORCH_CUDA_ARCH_LIST={value!r}",
            f"GPU of compute capability {left_out[0][0]}.{left_out[0][1]}",
        ),
        cause="extensions that are built here fail with 'no kernel image is available'",
        fix=f"export TORCH_CUDA_ARCH_LIST='{left_out[0][0]}.{left_out[0][1]}' and build them anew; "
        "or unset it: then they are built for the GPU that is seen",
    )


def _capabilities(snapshot: Snapshot) -> list[Capability]:
    known(snapshot.nvml.gpus)
    found = capabilities(snapshot)
    if not found and known(snapshot.nvml.gpus):
        raise NotObserved("no GPU tells its compute capability")
    return found


def _covers(entry: str, capability: Capability) -> bool:
    """Whether code for an entry (8.0, 9.0a, 8.6+PTX, Ampere) runs on a GPU."""
    built_for: list[str] = []
    for one in ARCHITECTURE_NAMES.get(entry.lower(), entry).split(";"):
        found = re.fullmatch(r"(\d+)\.(\d)([af]?)(\+PTX)?", one, re.IGNORECASE)
        if found is None:
            return True  # an entry that nobody here understands is no evidence
        number = f"{found[1]}{found[2]}{found[3].lower()}"
        built_for += [f"sm_{number}", *([f"compute_{number}"] if found[4] else [])]
    return support(capability, built_for) is not None
