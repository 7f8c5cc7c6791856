"""What the command line turns into one line and exit code 2."""

from __future__ import annotations

from collections.abc import Iterable

SIMILARITY = 0.6  # as difflib's get_close_matches
MOST = 3


class InputError(ValueError):
    """Input that cannot be used; the message says what was expected, got, and what to do."""


def close_ones(wrong: str, right: Iterable[str]) -> str:
    """The part of a message that names what was probably meant; empty where nothing is close.

    Of equally close ones, those that begin alike come first.

    Example:
        >>> close_ones("selct", ["select", "ignore"])
        ', close ones are select'
        >>> close_ones("GD1O3", ["GD703", "GD103"])
        ', close ones are GD103, GD703'
    """
    from difflib import SequenceMatcher

    def likeness(one: str) -> float:
        return SequenceMatcher(None, wrong, one).ratio()

    def begins_alike(one: str) -> int:
        return next((n for n in range(len(one), 0, -1) if wrong.startswith(one[:n])), 0)

    close = [one for one in right if likeness(one) >= SIMILARITY]
    close.sort(key=lambda one: (-likeness(one), -begins_alike(one), one))
    names = ", ".join(close[:MOST])
    return f", close ones are {names}" if names else ""
