"""Products of matrices: how fast in each precision, and whether the bits stay the same."""

from __future__ import annotations

import ctypes
import hashlib
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from . import devices
from .clock import rate
from .said import digest, fault, sound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .effort import Effort

SEED = 20
AMPERE, ADA = (8, 0), (8, 9)  # the first with bfloat16 and TF32, the first with 8-bit floats
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp8": torch.bfloat16}


@cache
def _on_the_host(shape: tuple[int, ...]) -> Any:
    generator = torch.Generator().manual_seed(SEED)
    return torch.randn(*shape, generator=generator)


def random(device: torch.device, *shape: int, dtype: Any = torch.float32) -> Any:
    """Seeded normal numbers, the same on every device: zeros and constants run faster."""
    return _on_the_host(shape).to(device=device, dtype=dtype, copy=True)


def precisions(device: torch.device) -> Iterator[str]:
    """What the device has units for."""
    yield "fp32"
    if not devices.is_gpu(device):
        yield "bf16"
        return
    capability = torch.cuda.get_device_capability(device)
    yield "fp16"
    if capability >= AMPERE:
        yield from ("tf32", "bf16")
    if capability >= ADA and hasattr(torch, "_scaled_mm"):
        yield "fp8"


def use_tf32(*, on: bool) -> None:
    """Let fp32 products use the tensor cores, or not."""
    matmul = torch.backends.cuda.matmul
    if hasattr(matmul, "fp32_precision"):
        matmul.fp32_precision = "tf32" if on else "ieee"
    else:
        matmul.allow_tf32 = on


def product(device: torch.device, precision: str, side: int) -> Callable[[], Any]:
    """What computes a square product of seeded numbers, (side, side)."""
    dtype = DTYPES.get(precision, torch.float32)
    a = random(device, side, side, dtype=dtype)
    b = a.t().contiguous()
    if precision != "fp8":
        return lambda: a @ b
    a8, b8 = a.to(torch.float8_e4m3fn), b.to(torch.float8_e4m3fn).t().contiguous().t()
    one = torch.ones((), device=device)
    return lambda: torch._scaled_mm(a8, b8, one, one, out_dtype=torch.bfloat16)  # noqa: SLF001 - no public form


def matmul(device: torch.device, effort: Effort, precision: str) -> None:
    """How fast a square product is."""
    side = effort.sizes.side
    use_tf32(on=precision == "tf32")
    try:
        run = product(device, precision, side)
        sound(f"matmul {precision}", device, run())
        work = 2 * side**3 / 1e12
        rate("matmul", device, run, work, "TFLOP/s", effort=effort, precision=precision)
    finally:
        use_tf32(on=False)


def repeatable(device: torch.device, effort: Effort, precision: str) -> None:
    """The same product twice, bit by bit; its digest is compared with those of its kind.

    https://docs.nvidia.com/cuda/cublas/#results-reproducibility: equal bits on GPUs of the same
    architecture with as many multiprocessors.
    """
    test = f"repeatable {precision}"
    use_tf32(on=precision == "tf32")
    try:
        run = product(device, precision, effort.sizes.repeated_side)
        first, second = run().cpu(), run().cpu()
    finally:
        use_tf32(on=False)
    sound(test, device, first)
    if not torch.equal(first, second):
        fault(test, device, "the same product gave different bits the second time")
    digest(test, device, devices.kind(device), _sha256(first.contiguous()))


def _sha256(tensor: Any) -> str:
    """Of the bytes of a tensor on the host, also where torch and NumPy do not fit together."""
    size = tensor.numel() * tensor.element_size()
    return hashlib.sha256((ctypes.c_char * size).from_address(tensor.data_ptr())).hexdigest()
