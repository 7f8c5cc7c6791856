"""What the parent is told, a line each as soon as it is known: it is kept even after a crash."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

NOT_OFFERED = ("not supported", "not_supported", "not implemented", "unsupported")

lines: list[dict[str, Any]] = []  # everything that was said, for the rank that speaks for all
label = ""  # of this process among others: "rank 3 "


class Unavailable(Exception):  # noqa: N818 - it is no error of the device
    """What a test needs is not there."""


def say(**facts: Any) -> None:
    """Tell the parent."""
    lines.append(facts)
    print(json.dumps(facts), flush=True)


def figure(test: str, device: Any, value: float, unit: str, **more: Any) -> None:
    """One measured number."""
    named = {"test": test, "device": f"{label}{device}", "value": value, "unit": unit}
    say(figure=named | more, time_s=time.monotonic())


def fault(test: str, device: Any, reason: str) -> None:
    """A result that is wrong."""
    say(fault={"test": test, "device": f"{label}{device}", "reason": reason})


def digest(test: str, device: Any, kind: str, sha256: str) -> None:
    """What a result's bits are, to be compared with those of every device of its kind."""
    say(digest={"test": test, "device": f"{label}{device}", "kind": kind, "sha256": sha256})


def sound(test: str, device: Any, result: Any) -> None:
    """Tell a result that holds NaN or infinity, or nothing but zeros."""
    if not bool(torch.isfinite(result).all()):
        fault(test, device, "the result holds NaN or infinity")
    elif not bool(result.any()):
        fault(test, device, "the result is all zeros")


def attempt(test: str, device: Any, measure: Callable[..., object], *arguments: Any) -> bool:
    """Run a test: what cannot be run here is skipped, any other failure is a fault."""
    say(testing={"test": test, "device": f"{label}{device}"}, time_s=time.monotonic())
    try:
        measure(device, *arguments)
    except Exception as error:
        first_line = next(iter(str(error).splitlines()), "")
        reason = f"{type(error).__name__}: {first_line}"
        if _cannot_be_run(error):
            say(skipped={"test": test, "device": f"{label}{device}", "reason": reason})
        else:
            fault(test, device, f"it failed: {reason}")
        return False
    return True


def _cannot_be_run(error: Exception) -> bool:
    if isinstance(error, (Unavailable, ImportError, NotImplementedError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in NOT_OFFERED)
