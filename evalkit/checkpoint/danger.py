"""What in a file would run code in programs that read it without care."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from evalkit.wording import some

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from evalkit.checkpoint.read import Contents

SWITCH = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
# No class of a model is in these modules: who names them wants to have something run.
_MODULES = frozenset(
    (
        *(
            "os",
            "io",
            "_io",
            "posix",
            "nt",
            "sys",
            "subprocess",
            "shutil",
            "socket",
            "ctypes",
            "runpy",
            "code",
        ),
        *("importlib", "builtins", "commands", "webbrowser", "pty", "pickle"),
        *("_pickle", "pip", "asyncio", "multiprocessing", "operator", "urllib", "http", "signal"),
    )
)
_VALUES = ("builtins.slice", "builtins.range", "builtins.tuple")  # that pandas pickles, say
_PLACES = (
    *("torch.serialization.", "torch.hub.", "torch.jit.", "torch.ops.", "torch.utils.cpp_ext"),
    *("torch.multiprocessing.", "torch.compile", "torch.from_file", "torch.load", "torch.save"),
    *("numpy.load", "numpy.fromfile", "numpy.f2py", "numpy.testing", "numpy.distutils"),
)


def dangerous(names: Iterable[str]) -> list[str]:
    """Return those of the names that run, read or change something when they are called.

    Example:
        >>> dangerous(["posix.system", "project.models.Net"])
        ['posix.system']
    """
    return [
        name
        for name in names
        if name not in _VALUES and (name.startswith(_PLACES) or name.partition(".")[0] in _MODULES)
    ]


def warnings_of(contents: Contents) -> Iterator[str]:
    """Say what else is unsafe about a file, or about how this machine reads files."""
    found = dangerous(contents.unknown)
    if found:
        yield (
            f"the file names {some(found)}, which would run, read or change something on the "
            "machine of whoever unpickles it: nothing of it was run here; do not open it in other "
            "programs"
        )
    if contents.is_trusted:
        yield "the file was trusted: its own classes were imported and their code was run"
    if os.environ.get(SWITCH, "0").lower() in ("1", "y", "yes", "true"):
        yield (
            f"{SWITCH} is set: every other program here runs whatever the checkpoints that it "
            "loads ask for; evalkit does not: unset it"
        )
