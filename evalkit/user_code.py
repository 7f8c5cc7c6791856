"""Code that is not ours, a model, a Dataset, a module that a user names: what fails, what it is."""

from __future__ import annotations

import hashlib
import inspect
import sysconfig
import traceback
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

OURS = Path(__file__).parent
STANDARD = Path(sysconfig.get_path("stdlib"))
LIBRARIES = ("torch", "torchvision", "timm", "evalkit")  # whose versions tell what they are
INSTALLED = {"site-packages", "dist-packages"}  # names of folders


def told(error: BaseException) -> str:
    r"""Return what was raised, and the innermost line of the user's own code that led there.

    Example:
        >>> told(ValueError("no such\n  layer"))
        'ValueError: no such layer'
    """
    kind, reason = type(error).__name__, " ".join(str(error).split())
    what = f"{kind}: {reason}" if reason else kind
    if isinstance(error, SyntaxError):
        return what  # which says where
    place = _place(error)
    return f"{what} ({place})" if place else what


def code_digest(kinds: Iterable[type], *, spec: str | None = None) -> str:
    """A fingerprint of the files that classes are written in, but for those of libraries.

    Args:
        kinds: The classes; those that they are derived from count, too.
        spec: Where one of them was named, such as "net.py:Net"; that file counts, too.

    Example:
        >>> code_digest([dict]) == code_digest([list], spec="torchvision:resnet18")
        True
    """
    files = {Path(spec.rpartition(":")[0])} if spec is not None and ".py:" in spec else set()
    for kind in set(chain.from_iterable(one.__mro__ for one in kinds)):
        if kind.__module__.partition(".")[0] not in LIBRARIES:
            try:
                files.add(Path(inspect.getfile(kind)))
            except (OSError, TypeError):  # of a notebook, or built in
                continue
    digest = hashlib.sha256()
    for content in sorted(path.read_bytes() for path in files if path.is_file()):
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def _place(error: BaseException) -> str:
    """Return the file and line of the last frame that is neither ours nor of a library, or ""."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_absolute() and path.is_file() and not _is_of_others(path):
            where = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
            return f"{where}, line {frame.lineno}"
    return ""


def _is_of_others(path: Path) -> bool:
    by_others = any(path.is_relative_to(folder) for folder in (OURS, STANDARD))
    return by_others or not INSTALLED.isdisjoint(path.parts)
