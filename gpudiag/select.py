"""Choose this process's GPUs, while CUDA still listens."""

from __future__ import annotations

import os
import sys

from gpudiag.errors import InputError
from gpudiag.visible_devices import parse_visible_devices

VARIABLE = "CUDA_VISIBLE_DEVICES"


def select(value: str) -> str:
    """Set CUDA_VISIBLE_DEVICES to *value* without spaces; see `gpudiag.select_devices`."""
    cleaned = ",".join(entry.strip() for entry in value.split(","))
    visible = parse_visible_devices(cleaned)
    if visible.repeated:
        raise InputError(
            f"expected every GPU once, got {value!r} with {visible.repeated!r} twice: "
            "CUDA would hide all of them"
        )
    if visible.malformed:
        raise InputError(
            f"expected indices or UUIDs with commas, got {value!r}: {visible.malformed}"
        )
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        raise RuntimeError(
            f"expected to choose GPUs before CUDA is used, got {value!r} after it: "
            f"set {VARIABLE} in the shell or call select_devices first"
        )
    os.environ[VARIABLE] = cleaned
    return cleaned
