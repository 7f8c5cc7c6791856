"""Read what a script in its own process said, up to the point where it ended, hung or crashed."""

from __future__ import annotations

import json
from typing import Any

from gpudiag.host import Completed
from gpudiag.snapshot import Missing


def spoken(outcome: Completed | Missing) -> tuple[list[dict[str, Any]], str | None]:
    """The objects that a child printed, and how it failed (None: it ended well)."""
    if isinstance(outcome, Missing):
        return [], outcome.missing
    objects = []
    for line in outcome.stdout.splitlines():
        try:
            said = json.loads(line)
        except ValueError:
            continue  # a native library that prints; or a line cut off by a crash
        if isinstance(said, dict):
            objects.append(said)
    failure = outcome.failure
    if failure and outcome.stderr.strip():
        failure = f"{failure}: {outcome.stderr.strip().splitlines()[-1]}"
    return objects, failure


def merged(objects: list[dict[str, Any]]) -> dict[str, Any]:
    """One dictionary; what was said later wins."""
    facts: dict[str, Any] = {}
    for said in objects:
        facts |= said
    return facts
