"""Where a model runs and how exactly it computes there, chosen and recorded."""

from __future__ import annotations

import platform
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch

import gpudiag
from evalkit.errors import InputError
from evalkit.models import import_torchvision

if TYPE_CHECKING:
    from collections.abc import Iterator

DEVICES = ("cuda", "mps", "xpu", "cpu")  # in order of preference
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
# Errors that are no torch.OutOfMemoryError: of the CPU, of Apple's GPUs, of cuBLAS and cuDNN.
OUT_OF_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "MPS backend out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
    "CUDA out of memory",  # as whoever raises it anew may say it
)
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str) -> torch.device:
    """Return the device of that name, or the best there is for "auto".

    Raises:
        InputError: The name is none, or torch sees no such device.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        return next(torch.device(kind) for kind in DEVICES if _count(kind))
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in DEVICES:
        raise InputError(f"device must be auto, {', '.join(DEVICES)} or cuda:N, got '{name}'")
    count = _count(device.type)
    if (device.index or 0) >= count:
        seen = f"torch sees {count} of them" if count else "torch sees none"
        raise InputError(
            f"device must be one that is there, got '{name}': {seen}: run 'gpudiag diagnose' to "
            "see why"
        )
    return device


@contextmanager
def computing(device: torch.device, precision: str) -> Iterator[dict[str, Any]]:
    """Compute in a precision, and as before afterwards.

    torch leaves TF32 on for convolutions by default: "fp32" here is 32 bits everywhere.

    Args:
        device: Where the model is.
        precision: "fp32", "tf32" (CUDA only), or "bf16" and "fp16" by automatic casting.

    Yields:
        The flags that decide how exact the results are, for the record.

    Raises:
        InputError: There is no such precision on this device.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, got '{precision}'")
    if precision == "tf32" and device.type != "cuda":
        raise InputError(
            f"precision must be fp32, bf16 or fp16 on {device.type}, got 'tf32', which is CUDA's"
        )
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        with ExitStack() as stack:
            if precision in HALF:
                stack.enter_context(torch.autocast(device.type, dtype=HALF[precision]))
            yield precision_flags(precision)
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was not enough memory for a computation.

    Example:
        >>> is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory")), is_out_of_memory(
        ...     RuntimeError("mat1 and mat2 shapes cannot be multiplied")
        ... )
        (True, False)
    """
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in OUT_OF_MEMORY)


def free_cached_memory(device: torch.device) -> None:
    """Give back what torch keeps of a device's memory for later."""
    if device.type in {"cuda", "xpu", "mps"}:
        torch.get_device_module(device.type).empty_cache()


def precision_flags(precision: str) -> dict[str, Any]:
    """Return torch's settings that change results in their last digits, by name."""
    return {
        "precision": precision,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "cudnn_allow_tf32": torch.backends.cudnn.allow_tf32,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
    }


def environment(device: torch.device) -> dict[str, Any]:
    """Return what a reader must know to repeat a run elsewhere, and to trust it.

    ``versions`` and ``findings`` are gpudiag's: what is installed, and what it found wrong with
    the machine (a GPU that was throttled or short of memory) while the model ran on it.
    """
    snapshot = gpudiag.snapshot(torch=False)
    versions = gpudiag.versions(snapshot).dropna()
    findings = gpudiag.diagnose(snapshot).findings
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": str(torch.__version__),
        "torchvision": str(import_torchvision().__version__),
        "cuda": torch.version.cuda,
        "device": str(device),
        "device_name": _name(device),
        "threads": torch.get_num_threads(),
        "versions": dict(zip(versions["component"], versions["version"], strict=True)),
        "findings": [f"{f.id} {f.title}" for f in findings if f.severity != "note"],
    }


def _count(kind: str) -> int:
    """Return how many devices of a kind torch can use."""
    if kind == "cpu":
        return 1
    if kind == "mps":
        return int(torch.backends.mps.is_available())
    module = torch.get_device_module(kind)
    return int(module.device_count()) if module.is_available() else 0


def _name(device: torch.device) -> str:
    if device.type in {"cuda", "xpu"}:
        return str(torch.get_device_module(device.type).get_device_name(device))
    return platform.processor() or platform.machine()
