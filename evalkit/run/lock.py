"""One run per folder: a lock that ends with its process, however that ends."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from evalkit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HELD = {errno.EAGAIN, errno.EACCES}
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold a file for this process alone.

    The kernel lets go of it when the process ends, so a dead run never blocks. The file says who
    holds it and stays there: it is removed with its folder.

    Args:
        path: The file, in a folder that exists.

    Yields:
        Whether it is held; False where the file system knows no locks.

    Raises:
        InputError: Another process holds it.
    """
    with path.open("a+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        except OSError as error:
            if error.errno in HELD:
                raise InputError(
                    f"out must be free of other runs, got {path.parent.parent} with {_who(path)} "
                    "at work: wait for it, or choose another folder"
                ) from None
            if error.errno not in NO_LOCKS:
                raise
            held = False
        stream.truncate(0)
        me = {"process": os.getpid(), "host": platform.node(), "since": _now()}
        stream.write(json.dumps(me).encode())
        stream.flush()
        yield held


def _who(path: Path) -> str:
    try:
        who = json.loads(path.read_bytes())
        return f"process {who['process']} on {who['host']}, since {who['since']},"
    except (OSError, ValueError, KeyError, TypeError):  # it has just begun, or just ended
        return "another process"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
