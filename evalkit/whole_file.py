"""Files that appear whole or not at all, and stay after a power cut."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path

_UNFINISHED = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.tmp")


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


@contextmanager
def tidied(folder: Path, names: Container[str]) -> Iterator[None]:
    """Hold a folder while files are written into it, without what killed processes left there.

    Whoever writes shares the folder; one who finds it free of all others knows that every
    ``.NAME.TOKEN.tmp`` in it is of a process that was killed, and removes those of *names*. Where
    the file system knows no locks they stay.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / ".a.csv.0123abcd.tmp").touch()
        >>> with tidied(folder, {"a.csv"}):
        ...     list(folder.iterdir())
        []
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # others are at work there, or there are no locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for path in folder.iterdir():
                if (found := _UNFINISHED.fullmatch(path.name)) and found["name"] in names:
                    path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut as the bytes do."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
