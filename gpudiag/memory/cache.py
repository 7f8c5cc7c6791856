"""Free what torch of this process keeps for itself, without loading torch or starting CUDA."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
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
    for kind in _kinds(torch):
        if kind == "mps":
            driver_bytes = torch.mps.driver_allocated_memory()
            yield (
                "mps",
                Figures(
                    allocated_bytes=torch.mps.current_allocated_memory(),
                    reserved_bytes=driver_bytes,
                    free_bytes=torch.mps.recommended_max_memory() - driver_bytes,
                ),
            )
        else:
            yield from _of_each_device(torch, kind)


def _of_each_device(torch: Any, kind: str) -> Iterator[tuple[str, Figures]]:
    for index in range(getattr(torch, kind).device_count()):
        if not _has_context(torch, kind, index):
            continue  # asking how much is free would create one, of some hundred MiB
        free_bytes, _ = _function(torch, kind, "get_memory_info", "mem_get_info")(index)
        yield (
            f"{kind}:{index}",
            Figures(
                allocated_bytes=_function(torch, kind, "memory_allocated")(index),
                reserved_bytes=_function(torch, kind, "memory_reserved")(index),
                free_bytes=free_bytes,
            ),
        )


def _kinds(torch: Any) -> Iterator[str]:
    """The kinds of devices that torch of this process has initialised; asking initialises none."""
    accelerator = _accelerator(torch)
    for kind in dict.fromkeys(["cuda", "xpu", *([accelerator] if accelerator else [])]):
        asks = getattr(getattr(torch, kind, None), "is_initialized", None)
        if kind != "mps" and asks is not None and asks():
            yield kind
    mps = getattr(torch.backends, "mps", None)
    if mps is not None and mps.is_available():
        yield "mps"


def _accelerator(torch: Any) -> str | None:
    """The kind that torch.accelerator speaks for: the one that this torch was built for."""
    if not hasattr(torch, "accelerator"):
        return None
    try:
        device = torch.accelerator.current_accelerator()
    except RuntimeError:  # torch 2.6 tells only of one that can be used
        return None
    return None if device is None else str(device.type)


def _function(torch: Any, kind: str, name: str, old_name: str | None = None) -> Callable[..., Any]:
    """torch.accelerator's function, or the kind's own where an older torch has no such one.

    torch.accelerator is there from 2.6 on, its memory functions from 2.9 on.
    """
    if _accelerator(torch) == kind and hasattr(torch.accelerator, name):
        found: Callable[..., Any] = getattr(torch.accelerator, name)
    else:
        found = getattr(getattr(torch, kind), old_name or name)
    return found


def _has_context(torch: Any, kind: str, index: int) -> bool:
    has_context = getattr(torch._C, "_cuda_hasPrimaryContext", None)  # noqa: SLF001 - no public form
    if kind != "cuda" or has_context is None:
        return bool(_function(torch, kind, "memory_reserved")(index))
    return bool(has_context(index))


def _empty_caches(torch: Any) -> None:
    for kind in _kinds(torch):
        if kind == "mps":
            torch.mps.empty_cache()
        else:
            _function(torch, kind, "empty_cache")()
        if kind == "cuda":
            torch.cuda.ipc_collect()  # tensors that other processes sent and have let go of
