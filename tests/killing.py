"""Processes that are killed at random moments, until so many fell."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from pathlib import Path

import torch

WHOLE_S = 120  # a run that nothing happens to takes less, also on a busy machine


def begin(work):
    """Call *work* in a process of its own, forked where torch has been imported; return its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        torch.set_num_threads(1)
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - until the process ends
        work()
        code = 0
    except BaseException:  # noqa: BLE001 - whatever it is, the parent must see it
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(child, seconds):
    """Wait that long for a process; whether it ended, with 0, by itself."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            if status:
                raise SystemExit(f"the process ended with {status}")
            return True
        time.sleep(0.002)
    return False


def seconds_of(work):
    """How long *work* takes when nothing happens to it."""
    began = time.monotonic()
    if not ended(begin(work), WHOLE_S):
        raise SystemExit("the run that nothing happens to did not end")
    return time.monotonic() - began


def killed_until_whole(attempt, *, most, patience):
    """Begin attempts until one of them ends by itself.

    Args:
        attempt: A function that gives what the next process is to do.
        most: How many may be killed; the process after them is left alone.
        patience: A function that gives how many seconds each of them lives.

    Yields:
        The number of those that were killed, after each.
    """
    killed = 0
    while not ended(child := begin(attempt()), patience() if killed < most else WHOLE_S):
        os.kill(child, signal.SIGKILL)  # its workers notice and end by themselves
        os.waitpid(child, 0)
        killed += 1
        yield killed
