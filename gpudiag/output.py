"""Write a file whole or not at all, readable by its owner alone."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from gpudiag.errors import InputError


def write_private(path: Path, text: str) -> None:
    """Write *text* to *path* with mode 0600, replacing a file but never following a link.

    A device or a pipe is written into and stays what it is.

    Raises:
        InputError: The path is a symbolic link or a folder, or its folder cannot be written.
    """
    refuse_unwritable(path)
    if path.exists() and not path.is_file():
        _write_into(path, text)
        return
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException as error:  # Ctrl-C, too, leaves nothing half-written
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise InputError(
            f"expected a folder that can be written for {path}, got: {error.strerror}"
        ) from error


def refuse_unwritable(path: Path) -> None:
    """Say beforehand what `write_private` would say, for what takes minutes to find out.

    Raises:
        InputError: The path is a symbolic link or a folder, or its folder cannot be written.
    """
    if path.is_symlink():
        raise InputError(f"expected a file to write, got the symbolic link {path}: name its target")
    if path.is_dir():
        raise InputError(f"expected a file to write, got the folder {path}: add a file name")
    if not path.exists() and not os.access(path.parent, os.W_OK):
        reason = "Permission denied" if path.parent.is_dir() else "No such file or directory"
        raise InputError(f"expected a folder that can be written for {path}, got: {reason}")


def _write_into(path: Path, text: str) -> None:
    try:
        with path.open("w", encoding="utf-8") as device:
            device.write(text)
    except OSError as error:
        raise InputError(
            f"expected a file or device to write, got {path}: {error.strerror}"
        ) from error
