"""Names of files that a file gives: only of those beside it."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath


def require_plain_name(name: str) -> str:
    """Return *name* if it is that of a file in the same directory.

    Raises:
        ValueError: It leads elsewhere.

    Example:
        >>> require_plain_name("model-00001-of-00002.safetensors")
        'model-00001-of-00002.safetensors'
    """
    if not name or name in (".", "..") or "\0" in name:
        raise ValueError(f"a file named '{name}'")
    if PurePosixPath(name).name != name or PureWindowsPath(name).name != name:
        raise ValueError(f"a file elsewhere, '{name}'")
    return name
