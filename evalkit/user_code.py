"""What fails in code that is not ours: a model, a Dataset, a module that a user names."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

OURS = Path(__file__).parent
STANDARD = Path(sysconfig.get_path("stdlib"))
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
