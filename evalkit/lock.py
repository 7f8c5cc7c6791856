"""One run per folder: what it has begun there, and a lock that ends with its process."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO

from evalkit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OF_EVALUATION = "unfinished/lock"  # in the folder that is written to
OF_TRAINING = ".lock"
SHARDS, LAST = "unfinished/shard-*.parquet", "last.pth"  # what there is to go on with
HELD = {errno.EAGAIN, errno.EACCES}
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}

_OURS: set[BinaryIO] = set()  # what this process holds


def is_begun(out: Path) -> bool:
    """Whether a run left predictions, or a training its state, for another one to go on with."""
    return any(out.glob(SHARDS)) or (out / LAST).exists()


@contextmanager
def locked(path: Path, *, out: Path) -> Iterator[bool]:
    """Hold a file for this process alone.

    The kernel lets go of it when the process ends, so a dead run never blocks. The file says who
    holds it; the holder may remove it.

    Args:
        path: The file, in a folder that exists.
        out: The folder that it stands for, as the user named it.

    Yields:
        Whether it is held; False where the file system knows no locks.

    Raises:
        InputError: Another process holds it.
    """
    with _held_or_not(path, out) as (stream, held):
        stream.truncate(0)
        me = {"process": os.getpid(), "host": platform.node(), "since": _now()}
        stream.write(json.dumps(me).encode())
        stream.flush()
        yield held


def refuse_company(out: Path, *names: str) -> None:
    """Raise while another run is at work in a folder.

    Args:
        out: The folder, which need not exist.
        names: Of the locks that such a run would hold.

    Raises:
        InputError: One is.
    """
    for path in (out / name for name in names):
        if path.is_file():
            with locked(path, out=out):
                pass


@contextmanager
def _held_or_not(path: Path, out: Path) -> Iterator[tuple[BinaryIO, bool]]:
    """Open the file and lock it; again if its last holder removed it in between."""
    while True:
        with path.open("a+b") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = True
            except OSError as error:
                if error.errno in HELD:
                    raise InputError(
                        f"out must be free of other runs, got {out} with {_who(path)} at work: "
                        "wait for it, or choose another folder"
                    ) from None
                if error.errno not in NO_LOCKS:
                    raise
                held = False
            if _is_at(path, stream):
                _OURS.add(stream)
                try:
                    yield stream, held
                finally:
                    _OURS.discard(stream)
                return


def _is_at(path: Path, stream: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(stream.fileno()))
    except FileNotFoundError:
        return False


def _let_go() -> None:
    """Leave the locks to the parent: workers outlive one that is killed, by seconds."""
    for stream in _OURS:
        stream.close()
    _OURS.clear()


os.register_at_fork(after_in_child=_let_go)


def _who(path: Path) -> str:
    try:
        who = json.loads(path.read_bytes())
        return f"process {who['process']} on {who['host']}, since {who['since']},"
    except (OSError, ValueError, KeyError, TypeError):  # it has just begun, or just ended
        return "another process"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
