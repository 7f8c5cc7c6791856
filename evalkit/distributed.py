"""The processes that torchrun started: which of them this is, and what all of them have found."""

from __future__ import annotations

from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")


def is_running() -> bool:
    """Whether this process is one of several that know each other.

    Example:
        >>> is_running()
        False
    """
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Number of this process among all, from 0.

    Example:
        >>> rank()
        0
    """
    return dist.get_rank() if is_running() else 0


def ranks() -> int:
    """How many processes there are.

    Example:
        >>> ranks()
        1
    """
    return dist.get_world_size() if is_running() else 1


def gathered(value: T) -> list[T]:
    """What every process gives here, in the order of ranks; all of them must call it.

    Example:
        >>> gathered("one alone")
        ['one alone']
    """
    if not is_running():
        return [value]
    found: list[T | None] = [None] * ranks()
    dist.all_gather_object(found, value)
    return found  # type: ignore[return-value]
