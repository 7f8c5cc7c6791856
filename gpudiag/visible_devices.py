"""CUDA_VISIBLE_DEVICES, read as CUDA and torch read it, with every way in which it goes wrong."""

from __future__ import annotations

import re
from dataclasses import dataclass

OTHER_COMMAS = "\uff0c\u3001\u060c;"  # full-width, ideographic, Arabic comma; semicolon


@dataclass(frozen=True, kw_only=True)
class VisibleDevices:
    """The entries that CUDA keeps, in order, and what it does with the rest."""

    kept: tuple[int | str, ...]
    malformed: str | None = None  # why the list ends early or an entry is not what it seems
    repeated: str | None = None  # the entry that empties the whole list
    beyond: int | None = None  # the first index that no GPU has


def parse_visible_devices(value: str, *, device_count: int | None = None) -> VisibleDevices:
    """What CUDA makes of a value of CUDA_VISIBLE_DEVICES.

    Args:
        value: The variable's value: indices, or UUIDs that begin with ``GPU-`` or ``MIG-``.
        device_count: Number of GPUs in the machine; None where it is not known.

    Returns:
        The entries that remain. A repeated entry empties the list; the first negative or
        non-numeric one ends it, as does an index that no GPU has; digits followed by anything
        (``1gpu``) count as the number.

    Example:
        >>> parse_visible_devices("2,0", device_count=4).kept
        (2, 0)
        >>> parse_visible_devices("0,7,1", device_count=4)
        VisibleDevices(kept=(0,), malformed=None, repeated=None, beyond=7)
        >>> parse_visible_devices("0-2").malformed
        "'0-2' is read as 0: ranges are not supported"
    """
    if value.startswith(("GPU-", "MIG-")):
        return _uuids(value)
    kept: list[int] = []
    malformed = None
    for entry in value.split(","):
        text = entry.strip()
        found = re.match(r"[+-]?[0-9]+", text)
        number = int(found[0]) if found else -1
        if number in kept:
            return VisibleDevices(kept=(), malformed=malformed, repeated=text)
        if number < 0:
            return VisibleDevices(kept=tuple(kept), malformed=malformed or _ending(text, value))
        if found and found[0] != text:
            malformed = malformed or _suffix(text, number)
        if device_count is not None and number >= device_count:
            return VisibleDevices(kept=tuple(kept), malformed=malformed, beyond=number)
        kept.append(number)
    return VisibleDevices(kept=tuple(kept), malformed=malformed)


def named_again(visible: VisibleDevices) -> str | None:
    """An entry that another one, a shorter part of the same UUID, names already.

    Example:
        >>> named_again(parse_visible_devices("GPU-6018366c,GPU-6018366c-14b6"))
        'GPU-6018366c-14b6'
    """
    names = [entry for entry in visible.kept if isinstance(entry, str)]
    pairs = ((name, part) for name in names for part in names if part != name)
    return next((name for name, part in pairs if name.startswith(part)), None)


def _uuids(value: str) -> VisibleDevices:
    prefix = value[:4]
    kept: list[str] = []
    for entry in value.split(","):
        if entry in kept:
            return VisibleDevices(kept=(), repeated=entry)
        if not entry.startswith(prefix):
            reason = f"{entry!r} ends the list: {prefix} entries do not mix with others"
            return VisibleDevices(kept=tuple(kept), malformed=reason)
        kept.append(entry)
    return VisibleDevices(kept=tuple(kept))


def _ending(text: str, value: str) -> str | None:
    if text in {"", "-1"} and value.strip() == text:
        return None  # the documented way to hide every GPU
    if text == "-1":
        return "-1 ends the list"
    if not text:
        return "an empty entry ends the list"
    return f"{text!r} is not a number and ends the list"


def _suffix(text: str, number: int) -> str:
    if any(comma in text for comma in OTHER_COMMAS):
        return f"{text!r} is read as {number}: its comma is not the ASCII one"
    if re.fullmatch(r"\d+\s*-\s*\d+", text):
        return f"{text!r} is read as {number}: ranges are not supported"
    if re.fullmatch(r"[\d\s]+", text):
        return f"{text!r} is read as {number}: entries are separated by commas, not spaces"
    return f"{text!r} is read as {number}"
