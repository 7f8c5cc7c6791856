"""How each child is run; see README.md. Importing this costs next to nothing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from gpudiag.host import Host

HERE = Path(__file__).parent
BARE = (sys.executable, "-I", "-S")  # the standard library alone: a third of the time to start


def nvml() -> tuple[str, ...] | None:
    """The command that asks NVML, None where its Python binding is not installed."""
    binding = find_spec("pynvml")
    if binding is None or binding.origin is None:
        return None
    folder = Path(binding.origin).parent
    if binding.submodule_search_locations:
        folder = folder.parent  # pynvml is a package in some releases, a module in others
    return (*BARE, str(HERE / "ask_nvml.py"), str(folder))


def samples(pid: int, *, interval_s: float) -> tuple[str, ...]:
    """The command that samples the GPUs and a process until its standard input ends."""
    command = nvml()
    folder = command[-1] if command else ""
    return (*BARE, str(HERE / "sample.py"), str(pid), str(interval_s), folder)


def cuda() -> tuple[str, ...]:
    """The command that asks libcuda."""
    return (*BARE, str(HERE / "ask_cuda.py"))


def torch() -> tuple[str, ...]:
    """The command that asks torch, run as the user's own programs are."""
    return (sys.executable, str(HERE / "ask_torch.py"))


def measure(*, devices: Sequence[int], seconds: float, quick: bool) -> tuple[str, ...]:
    """The command that measures torch's devices, run as the user's own programs are."""
    import json  # the rest of this module starts a short run, which has no use for it

    options = json.dumps({"devices": list(devices), "seconds": seconds, "quick": quick})
    return (sys.executable, str(HERE / "measure.py"), options)


def start(host: Host, *, with_torch: bool) -> None:
    """Start every child now: they work while Python imports what their answers need."""
    if with_torch:
        host.start(*torch())
    if (command := nvml()) is not None:
        host.start(*command)
    host.start(*cuda())


class Ahead:
    """The children that the entry point has started, until a command takes them over."""

    host: Host | None = None


def started(*, with_torch: bool) -> Host:
    """This machine, with its children under way: those of the entry point, or new ones."""
    host, Ahead.host = Ahead.host, None
    if host is None:
        host = Host()
        start(host, with_torch=with_torch)
    return host
