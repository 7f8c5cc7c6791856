"""Whose files are these? What evalkit wrote may be replaced, what anybody else wrote may not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from evalkit.errors import InputError
from evalkit.wording import some

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

# The file that every result comes with, and what it holds when evalkit wrote it.
MARKS = {
    "summary.json": {"samples", "accuracy", "not_available"},
    "comparison.json": {"models", "samples", "pairs"},
}


def refuse_strangers(folder: Path, names: Iterable[str]) -> None:
    """Refuse to replace files that evalkit did not write.

    Args:
        folder: Where the results will go; it need not exist.
        names: The files of one result, among them a key of `MARKS`: where that one is there and
            holds what evalkit writes, all of them are taken for those of a former result.

    Raises:
        InputError: Some of *names* are there and no former result is.
    """
    wanted = sorted(names)
    present = [name for name in wanted if (folder / name).exists()]
    if present and not any(
        _is_ours(folder / name, MARKS[name]) for name in wanted if name in MARKS
    ):
        raise InputError(
            f"out must not hold files of somebody else's that would be replaced, got {folder} with "
            f"{some(present)} and no results of evalkit: choose another folder, or move them away"
        )


def _is_ours(path: Path, keys: set[str]) -> bool:
    if not path.is_file():  # a pipe would be waited for
        return False
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):  # not to be read, or no JSON
        return False
    return isinstance(found, dict) and keys <= found.keys()
