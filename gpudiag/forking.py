"""A fork with pipes between both processes: all of it, or nothing left open."""

from __future__ import annotations

import os


def fork_with_pipes(count: int) -> tuple[int, list[int]]:
    """Fork this process, which must have no other thread.

    Args:
        count: How many pipes.

    Returns:
        In the parent the number of the child, in the child 0; and the ends of the pipes, reading
        and writing in turn, of which each process closes what it does not use.

    Raises:
        OSError: There are no more files or processes to be had.
    """
    ends: list[int] = []
    try:
        for _ in range(count):
            ends += os.pipe()
        return os.fork(), ends
    except OSError:
        for end in ends:
            os.close(end)
        raise
