"""What a GPU can report and be believed: the bounds beyond which a figure is no measurement."""

from __future__ import annotations

from msgspec.structs import replace

from gpudiag.fact import Missing, known_or
from gpudiag.gpu import Gpu, GpuProcess

COLDEST_CELSIUS = 1  # a sensor that reads 0 or less reads nothing
HOTTEST_CELSIUS = 130  # silicon is switched off long before


def is_temperature(celsius: float) -> bool:
    """Whether a GPU can have this temperature and be asked about it."""
    return COLDEST_CELSIUS <= celsius <= HOTTEST_CELSIUS


def is_memory(used_bytes: int, total_bytes: int) -> bool:
    """Whether this much of a GPU's memory can be in use."""
    return total_bytes > 0 and 0 <= used_bytes <= total_bytes


def plausible(gpu: Gpu) -> Gpu:
    """The GPU with a reason in place of every figure that cannot be true.

    For what shows figures: tables, sentences, gauges. The snapshot keeps them as they came.

    Example:
        >>> shown = plausible(Gpu(index=0, temperature_celsius=0, power_watts=71.0))
        >>> shown.temperature_celsius, shown.power_watts
        (Missing(missing='the driver says 0 °C, which cannot be'), 71.0)
    """
    celsius = known_or(gpu.temperature_celsius, None)
    if celsius is not None and not is_temperature(celsius):
        gpu = replace(gpu, temperature_celsius=_cannot_be(f"{celsius} °C"))
    busy = known_or(gpu.utilization_fraction, None)
    if busy is not None and not 0 <= busy <= 1:
        gpu = replace(gpu, utilization_fraction=_cannot_be(f"{busy:.0%} utilization"))
    return _with_plausible_memory(gpu)


def _with_plausible_memory(gpu: Gpu) -> Gpu:
    total, used = known_or(gpu.memory_total_bytes, None), known_or(gpu.memory_used_bytes, None)
    if total is None:
        return gpu
    if total <= 0 or (used is not None and not is_memory(used, total)):
        reason = _cannot_be(f"{'?' if used is None else used} of {total} bytes in use")
        gpu = replace(gpu, memory_used_bytes=reason, memory_free_bytes=reason)
        if total <= 0:
            return replace(gpu, memory_total_bytes=reason, memory_reserved_bytes=reason)
    for name in ("memory_free_bytes", "memory_reserved_bytes"):
        size = known_or(getattr(gpu, name), 0)
        if not is_memory(size, total):
            gpu = replace(gpu, **{name: _cannot_be(f"{size} of {total} bytes")})
    processes = known_or(gpu.processes, ())
    if all(is_memory(known_or(process.used_bytes, 0), total) for process in processes):
        return gpu
    return replace(gpu, processes=tuple(_with_plausible_size(one, total) for one in processes))


def _with_plausible_size(process: GpuProcess, total_bytes: int) -> GpuProcess:
    size = known_or(process.used_bytes, 0)
    if is_memory(size, total_bytes):
        return process
    return replace(process, used_bytes=_cannot_be(f"{size} of {total_bytes} bytes in use"))


def _cannot_be(figure: str) -> Missing:
    return Missing(f"the driver says {figure}, which cannot be")
