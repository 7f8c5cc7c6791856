"""Choose this process's GPUs, while CUDA still listens."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from gpudiag.errors import InputError
from gpudiag.host import Host
from gpudiag.visible_devices import VisibleDevices, named_again, parse_visible_devices

VARIABLE = "CUDA_VISIBLE_DEVICES"
LARGEST_INDEX = 2**31 - 1  # CUDA reads an int; what is larger becomes another number
# The beginning of a UUID is enough; MIG-GPU-…/1/0 is how drivers before 470 name an instance.
UUID = re.compile(r"(?:GPU-|MIG-(?:GPU-)?)[0-9a-fA-F][0-9a-fA-F-]*(?:/\d+/\d+)?")
HIDES_ALL = "select_devices('') hides every GPU"


def select(value: str | int | Sequence[str | int], *, host: Host | None = None) -> str:
    """Set CUDA_VISIBLE_DEVICES to *value* without spaces; see `gpudiag.select_devices`."""
    text = _as_text(value)
    cleaned = ",".join(entry.strip() for entry in text.split(","))
    count = gpu_count(host or Host())
    visible = parse_visible_devices(cleaned, device_count=count)
    if repeated := visible.repeated or named_again(visible):
        raise InputError(
            f"expected every GPU once, got {value!r} with {repeated!r} twice: "
            "CUDA would hide all of them"
        )
    if wrong := visible.malformed or next(_no_device(visible), None):
        raise InputError(f"expected indices or UUIDs with commas, got {value!r}: {wrong}")
    if visible.beyond is not None:
        last = f"0 to {count - 1}" if count else "of none"
        raise InputError(
            f"expected indices of this machine's GPUs ({last}), got {value!r}: CUDA would leave "
            f"out {visible.beyond} and whatever follows it"
        )
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        raise RuntimeError(
            f"expected to choose GPUs before CUDA is used, got {value!r} after it: "
            f"set {VARIABLE} in the shell or call select_devices first"
        )
    os.environ[VARIABLE] = cleaned
    return cleaned


def gpu_count(host: Host) -> int | None:
    """How many GPUs the driver has here, without asking it; None where it does not say.

    A container may list fewer device nodes than its /proc does, or the other way round: the larger
    number counts, so that no index that exists is refused.
    """
    listed, nodes = host.names("/proc/driver/nvidia/gpus"), host.names("/dev")
    found = (
        len(listed) if isinstance(listed, tuple) else 0,
        sum(bool(re.fullmatch(r"nvidia\d+", name)) for name in nodes)
        if isinstance(nodes, tuple)
        else 0,
    )
    return max(found) or None


def _as_text(value: Any) -> str:
    """The value as the variable holds it; the entries of a list with commas."""
    if isinstance(value, str):
        return value
    entries = [value] if isinstance(value, int) else value
    if not isinstance(entries, list | tuple | range) or not entries:
        raise InputError(
            f"expected the indices or UUIDs of GPUs, as '0,1' or [0, 1], got {value!r}; {HIDES_ALL}"
        )
    for entry in entries:
        is_index = isinstance(entry, int) and not isinstance(entry, bool) and entry >= 0
        if not is_index and not (isinstance(entry, str) and entry.strip() and "," not in entry):
            raise InputError(
                f"expected each entry to be an index or a UUID, got {entry!r} in {value!r}; "
                f"{HIDES_ALL}"
            )
    return ",".join(str(entry) for entry in entries)


def _no_device(visible: VisibleDevices) -> Iterator[str]:
    """What looks like an index or a UUID and names no GPU of any machine."""
    for entry in visible.kept:
        if isinstance(entry, str) and not UUID.fullmatch(entry):
            yield f"{entry!r} is no UUID: 'gpudiag devices' shows them"
    numbers = [entry for entry in visible.kept if isinstance(entry, int)]
    if max((*numbers, visible.beyond or 0)) > LARGEST_INDEX:
        yield "that is no number of a GPU: 'gpudiag devices' shows them"
