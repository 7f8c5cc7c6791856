"""Read what a script in its own process said, up to the point where it ended, hung or crashed."""

from __future__ import annotations

import json
from typing import Any

from gpudiag.programs import Completed
from gpudiag.snapshot import Missing

RECORD = "\x1e"  # "record separator", as RFC 7464 uses it; a library's print may lack its newline
LONGEST_REASON = 500  # characters of a last line on standard error


def spoken(outcome: Completed | Missing) -> tuple[list[dict[str, Any]], str | None]:
    """The objects that a child printed, and how it failed (None: it ended well)."""
    if isinstance(outcome, Missing):
        return [], outcome.missing
    objects = []
    for line in _records(outcome.stdout):
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            continue  # a native library that prints; or a line cut off by a crash
        if isinstance(said, dict):
            objects.append(said)
    failure = outcome.failure
    if failure and outcome.stderr.strip():
        last = outcome.stderr.strip().splitlines()[-1]
        failure = f"{failure}: {last[:LONGEST_REASON]}"
    return objects, failure


def of_the_library(outcome: Completed | Missing) -> bool:
    """Whether a native library made a child fail: it hung, or a signal ended it.

    A child that could not be started (too many files or processes, too little memory), or that
    ended with an exit code (the loader, an exception), says nothing about the library.

    Example:
        >>> of_the_library(Missing("python3 cannot be run: Too many open files"))
        False
        >>> of_the_library(Completed(stdout="", stderr="", exit_code=-11, timeout_s=15))
        True
    """
    if isinstance(outcome, Missing):
        return False
    return outcome.exit_code is None or outcome.exit_code < 0


def _records(text: str) -> list[str]:
    """What the child said: what stands behind its sign, or every line where it gives none."""
    lines = text.split("\n")
    signed = [line.rpartition(RECORD)[2] for line in lines if RECORD in line]
    return signed or lines


def merged(objects: list[dict[str, Any]]) -> dict[str, Any]:
    """One dictionary; what was said later wins."""
    facts: dict[str, Any] = {}
    for said in objects:
        facts |= said
    return facts
