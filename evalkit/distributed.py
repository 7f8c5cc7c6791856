"""The processes that torchrun started: which of them this is, and what all of them have found."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from evalkit.errors import InputError
from evalkit.inference.hardware import choose_device

T = TypeVar("T")
# What torchrun says of how often it has started the processes.
ATTEMPT = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")
PATIENCE = timedelta(days=7)  # the last process may need that much longer; death is known at once


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


@dataclass(frozen=True, kw_only=True)
class Processes:
    """This process among those that work on one thing.

    Attributes:
        rank: Its number, from 0.
        size: How many they are.

    Example:
        >>> ALONE.gathered("found"), ALONE.agreed(lambda: 7), ALONE.is_first
        (['found'], 7, True)
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether it is the one that speaks for all."""
        return self.rank == 0

    def gathered(self, value: T) -> list[T]:
        """What every process gives here, in the order of ranks; all of them must call it.

        Raises:
            InputError: One of them died.
        """
        if self.size == 1:
            return [value]
        try:
            return gathered(value)
        except RuntimeError as error:
            # "[file:line] what happened. Advice." where gloo lost a connection
            what = " ".join(re.sub(r"^\[[^]]*\]", "", str(error)).partition(". ")[0].split())
            raise InputError(
                f"all {self.size} processes must reach the end, got '{what}' in that of rank "
                f"{self.rank}: one of them died; what is written stays valid, resume=True goes on "
                "with it, with any number of processes"
            ) from error

    def agreed(self, function: Callable[[], T]) -> T:
        """Call a function in every process; bad input in one of them ends it in all.

        Raises:
            InputError: The function raises it here, or in another process.
        """
        fault: InputError | None = None
        try:
            found = function()
        except InputError as error:
            fault = error
        faults = self.gathered(None if fault is None else str(fault))
        if fault is not None:
            raise fault
        for message in faults:
            if message is not None:
                raise InputError(message)
        return found


ALONE = Processes()


def processes() -> Processes:
    """This process among all that torchrun started and that know each other."""
    return Processes(rank=rank(), size=ranks())


@contextmanager
def introduced(device: str, *, patience: timedelta | None = None) -> Iterator[str]:
    """Let the processes that torchrun started know each other, for as long as a block runs.

    Args:
        device: As the user gave it; for "auto" and "cuda" the processes of a machine take its
            GPUs in turn.
        patience: How long one may wait for another; None for what torch thinks usual.

    Yields:
        The device of this process.

    Raises:
        InputError: There is no such device, one GPU was named for all processes, or they cannot
            reach each other.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or is_running():  # noqa: PLR2004
        yield device
        return
    chosen = choose_device(device)
    if chosen.type == "cuda":
        if ":" in device:
            raise InputError(
                f"device must be auto, cuda or cpu for several processes, got '{device}': each "
                "takes a GPU of its own"
            )
        local = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
        chosen = torch.device("cuda", local)
        torch.cuda.set_device(chosen)
    try:
        _meet("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo", patience)
    except RuntimeError as error:
        what = " ".join(str(error).split())
        raise InputError(
            f"the processes that torchrun started must reach each other, got '{what}': look at "
            "the line of the first one that ended, and at the network between the machines"
        ) from error
    try:
        yield str(chosen)
    finally:
        dist.destroy_process_group()


def _meet(backend: str, patience: timedelta | None) -> None:
    """Find the others through torchrun's store, under names of this attempt alone.

    torchrun keeps the store when it starts the processes anew, and with it the addresses of those
    that died (seen with torch 2.15, --standalone --max-restarts 2).
    """
    store, place, size = next(rendezvous("env://"))
    attempt = "/".join(os.environ.get(name, "0") for name in ATTEMPT)
    dist.init_process_group(
        backend,
        store=dist.PrefixStore(f"evalkit/{attempt}/{size}", store),  # type: ignore[attr-defined]
        rank=place,
        world_size=size,
        timeout=patience,
    )
