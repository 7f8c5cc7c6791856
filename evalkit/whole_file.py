"""Files that appear whole or not at all, and stay after a power cut."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Give a place to write to, which takes the name *path* when the block ends without an error.

    Bytes and name are synchronised. After an error, or Ctrl-C, what *path* was is as it was, and
    nothing is left beside it; only a kill leaves a file ``.NAME.TOKEN.tmp``.

    Raises:
        OSError: It cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "notes.txt"
        >>> with written_beside(path) as unfinished:
        ...     _ = unfinished.write_text("whole")
        >>> path.read_text(), len(list(path.parent.iterdir()))
        ('whole', 1)
    """
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
        sync_folder(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write bytes as `written_beside` says.

    Raises:
        OSError: They cannot be written.
    """
    with written_beside(path) as unfinished, unfinished.open("xb") as file:
        file.write(content)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut as the bytes do."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
