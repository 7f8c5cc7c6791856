"""Which devices are measured, and who they are."""

from __future__ import annotations

import os
import platform
import time
from typing import Any

import torch

from . import effort
from .said import figure, say

# A scheduler may leave RANK alone behind; processes that shall meet know where.
TOGETHER = {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys()
RANK = int(os.environ["RANK"]) if TOGETHER else 0
WORLD = int(os.environ["WORLD_SIZE"]) if TOGETHER else 1


def gpu(index: int) -> torch.device:
    """The device of one of torch's indices."""
    return torch.device("cuda", index)


def is_gpu(device: torch.device) -> bool:
    """Whether it has a clock, memory and peers of its own."""
    return device.type == "cuda"


def sizes(device: torch.device, *, quick: bool) -> effort.Sizes:
    """How large things are on a device."""
    if is_gpu(device):
        return effort.GPU
    return effort.CPU_QUICK if quick else effort.CPU


def kind(device: torch.device) -> str:
    """What has to give the same bits: equal parts, and the processors of one machine."""
    if is_gpu(device):
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.multi_processor_count} multiprocessors"
    return f"cpu of {platform.node()}"


def chosen(wanted: list[int]) -> list[torch.device]:
    """The devices to measure; none where one of the wanted is not there, which is said."""
    started = time.perf_counter()
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count:
        initialise: Any = torch.cuda.init  # not typed
        initialise()
        figure("CUDA initialisation", "cuda", time.perf_counter() - started, "s")
    if strangers := [index for index in wanted if not 0 <= index < count]:
        say(no_such_device=strangers, device_count=count)
        return []
    if not count:
        return [torch.device("cpu")]
    indices = wanted or list(range(count))
    if WORLD == 1:
        return [gpu(index) for index in indices]
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    if rank >= len(indices):
        say(no_such_device=[rank], device_count=len(indices))
        return []
    return [gpu(indices[rank])]


def describe(device: torch.device) -> None:
    """Who it is; how long its context takes to start."""
    from . import said

    about: dict[str, Any] = dict.fromkeys(("name", "uuid", "memory_total_bytes"))
    if is_gpu(device):
        started = time.perf_counter()
        torch.cuda.set_device(device)
        torch.zeros(1, device=device)
        torch.cuda.synchronize(device)
        figure("context", device, time.perf_counter() - started, "s")
        properties = torch.cuda.get_device_properties(device)
        uuid = getattr(properties, "uuid", None)
        about["name"] = properties.name
        about["uuid"] = None if uuid is None else f"GPU-{str(uuid).removeprefix('GPU-')}"
        about["memory_total_bytes"] = properties.total_memory
    say(device=about | {"device": f"{said.label}{device}"})
