"""How each child is run; see README.md. Importing this costs next to nothing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
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
    """Start every child now: they work while Python imports what their answers need.

    Those that need the standard library alone are forked from this process, which must have no
    other threads: a new interpreter for each costs 30 ms.
    """
    if with_torch:
        host.start(*torch())
    for command in filter(None, (nvml(), cuda())):
        host.fork(command, partial(_run, *command[len(BARE) :]))


def _run(script: str, *arguments: str) -> None:
    """Do in this process what the interpreter would do with a script."""
    sys.argv = [script, *arguments]
    import_module(f"gpudiag.children.{Path(script).stem}")
