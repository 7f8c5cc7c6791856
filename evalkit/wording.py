"""How lists, counts and shares read inside one line."""

from __future__ import annotations

import math
import re
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
    listed = ", ".join(_printable(str(name)) for name in names[:shown])
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


def _printable(text: str) -> str:
    return text if text.isprintable() else text.encode("unicode_escape").decode()
