"""How lists, counts and shares read inside one line."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SHOWN = 5


def some(names: Sequence[object], shown: int = SHOWN) -> str:
    r"""Return the first names and how many more there are; what a terminal would obey is escaped.

    Example:
        >>> some(["conv1.weight", "bn1.weight", "fc.weight"], shown=2)
        'conv1.weight, bn1.weight and 1 more'
        >>> some(["fc.weight", "red\x1b[31m"])
        'fc.weight, red\\x1b[31m'
    """
    listed = ", ".join(printable(str(name)) for name in names[:shown])
    more = len(names) - shown
    return f"{listed} and {more} more" if more > 0 else listed


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun.

    Example:
        >>> counted(1, "class", "classes"), counted(3, "file")
        ('1 class', '3 files')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def share(fraction: float) -> str:
    """Return a fraction with four digits, rounded down: what is not all must not read as 1.

    Example:
        >>> share(0.99999), share(1.0), share(0.5)
        ('0.9999', '1', '0.5')
    """
    return f"{math.floor(fraction * 10_000 + 1e-9) / 10_000:g}"


def natural_order(names: Sequence[str]) -> list[str]:
    """Sort names as people do: numbers in them by value, letters without regard to case.

    Example:
        >>> natural_order(["img10", "img9", "Img1"])
        ['Img1', 'img9', 'img10']
    """

    def key(name: str) -> list[tuple[int, int, str]]:
        parts = re.split(r"(\d+)", name)
        return [(0, int(part), "") if part.isdecimal() else (1, 0, part.lower()) for part in parts]

    return sorted(names, key=key)


def printable(text: object, *, width: int | None = None) -> str:
    r"""Return text without control characters, which a terminal would obey, and cut to *width*.

    Example:
        >>> printable("a\x1b[2Jb"), printable("a long name", width=8)
        ('a\\x1b[2Jb', 'a long …')
    """
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
    if width is None or display_width(safe) <= width:
        return safe
    while display_width(safe) >= width:
        safe = safe[:-1]
    return f"{safe}…"


def display_width(text: str) -> int:
    """Return the columns of a terminal: Chinese characters take two, combining accents none.

    Example:
        >>> display_width("cat"), display_width("猫")
        (3, 2)
    """
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))
