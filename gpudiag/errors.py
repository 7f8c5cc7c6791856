"""What the command line turns into one line and exit code 2."""

from __future__ import annotations

from collections.abc import Iterable


class InputError(ValueError):
    """Input that cannot be used; the message says what was expected, got, and what to do."""


def close_ones(wrong: str, right: Iterable[str]) -> str:
    """The part of a message that names what was probably meant; empty where nothing is close.

    Example:
        >>> close_ones("selct", ["select", "ignore"])
        ', close ones are select'
    """
    from difflib import get_close_matches

    close = get_close_matches(wrong, list(right), n=3)
    return f", close ones are {', '.join(close)}" if close else ""
