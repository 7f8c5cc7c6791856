"""Free what torch of this process keeps for itself, without loading torch or starting CUDA."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = tuple(
    f"{what}_{when}_bytes"
    for what in ("allocated", "reserved", "free")
    for when in ("before", "after")
)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What torch of this process has of one device, and what nobody has of it."""

    allocated_bytes: int
    reserved_bytes: int
    free_bytes: int


def clear_cache() -> pd.DataFrame:
    """Give back the memory that torch of this process keeps; see `gpudiag.clear_cache`."""
    import pandas as pd

    torch = sys.modules.get("torch")
    before = {} if torch is None else dict(_figures(torch))
    if before:
        gc.collect()
        _empty_caches(torch)
    after = dict(_figures(torch)) if before else {}
    frame = pd.DataFrame(
        [_row(device, before[device], after[device]) for device in before],
        columns=["device", *COLUMNS],
    ).astype(dict.fromkeys(COLUMNS, "int64"))
    frame.attrs["reason"] = _why_nothing(torch) if not before else None
    return frame


def _row(device: str, before: Figures, after: Figures) -> dict[str, Any]:
    row: dict[str, Any] = {"device": device}
    for name in COLUMNS:
        what, when, _ = name.split("_")
        row[name] = getattr(before if when == "before" else after, f"{what}_bytes")
    return row


def _why_nothing(torch: Any) -> str:
    if torch is None:
        return "torch is not loaded in this process, so it keeps no GPU memory"
    return "torch of this process has not initialised a device, so it keeps no GPU memory"


def _figures(torch: Any) -> Iterator[tuple[str, Figures]]:
    for kind in ("cuda", "xpu"):
        if _is_initialized(torch, kind):
            yield from _of_each_device(torch, kind)
    if _mps_in_use(torch):
        driver_bytes = torch.mps.driver_allocated_memory()
        yield (
            "mps",
            Figures(
                allocated_bytes=torch.mps.current_allocated_memory(),
                reserved_bytes=driver_bytes,
                free_bytes=torch.mps.recommended_max_memory() - driver_bytes,
            ),
        )


def _of_each_device(torch: Any, kind: str) -> Iterator[tuple[str, Figures]]:
    backend = getattr(torch, kind)
    for index in range(backend.device_count()):
        if not _has_context(torch, kind, index):
            continue  # asking how much is free would create one, of some hundred MiB
        free_bytes, _ = backend.mem_get_info(index)
        yield (
            f"{kind}:{index}",
            Figures(
                allocated_bytes=backend.memory_allocated(index),
                reserved_bytes=backend.memory_reserved(index),
                free_bytes=free_bytes,
            ),
        )


def _is_initialized(torch: Any, kind: str) -> bool:
    backend = getattr(torch, kind, None)
    return backend is not None and bool(backend.is_initialized())


def _has_context(torch: Any, kind: str, index: int) -> bool:
    has_context = getattr(torch._C, "_cuda_hasPrimaryContext", None)  # noqa: SLF001 - no public form
    if kind != "cuda" or has_context is None:
        return bool(getattr(torch, kind).memory_reserved(index))
    return bool(has_context(index))


def _mps_in_use(torch: Any) -> bool:
    mps = getattr(torch.backends, "mps", None)
    return mps is not None and bool(mps.is_available())


def _empty_caches(torch: Any) -> None:
    for kind in ("cuda", "xpu"):
        if _is_initialized(torch, kind):
            getattr(torch, kind).empty_cache()
    if _is_initialized(torch, "cuda"):
        torch.cuda.ipc_collect()  # tensors that other processes sent and have let go of
    if _mps_in_use(torch):
        torch.mps.empty_cache()
