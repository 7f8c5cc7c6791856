"""Which samples cannot be read, all of them, before hours are spent on the others."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from evalkit.distributed import gathered, rank
from evalkit.errors import InputError
from evalkit.images.audit import SHOWN, Unreadable
from evalkit.images.reading import UnreadableError
from evalkit.training.splits import Split, subset
from evalkit.wording import counted, some

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evalkit.data import Source

MOST_THREADS = 8  # more wait for each other


def find_unreadable(source: Source, positions: Sequence[int], mode: str) -> list[Unreadable]:
    """Decode samples and return those for which there is no image.

    Args:
        source: The samples.
        positions: Which of them.
        mode: "RGB" or "L", as `evalkit.images.reading.to_mode`.
    """

    def reason(position: int) -> str:
        try:
            source.load(position, mode)
        except UnreadableError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_THREADS)) as pool:
        reasons = list(pool.map(reason, positions))
    return [
        Unreadable(index=position, path=source.paths[position], reason=why)
        for position, why in zip(positions, reasons, strict=True)
        if why
    ]


def without_unreadable(
    split: Split,
    mode: str,
    kept: Mapping[str, Any] | None,
    *,
    skip: bool,
) -> tuple[Split, list[list[str]]]:
    """Leave out what cannot be read, where that is wanted.

    Args:
        split: The samples.
        mode: "RGB" or "L", as `evalkit.images.reading.to_mode`.
        kept: A checkpoint to go on from, whose training left out the same.
        skip: Whether to look for them; under torchrun rank 0 does it for all.

    Returns:
        The samples that are left, and part, path and reason of those that are not.

    Raises:
        InputError: None is left.
    """
    parts = {"train": split.train, "val": split.validation}
    if kept is not None:
        left_out = [list(one) for one in kept.get("left_out", [])]
    elif skip:
        mine = [
            [name, one.path, one.reason]
            for name, source in (parts.items() if rank() == 0 else ())
            for one in find_unreadable(source, range(len(source)), mode)
        ]
        left_out = gathered(mine)[0]
    else:
        left_out = []
    if not left_out:
        return split, []
    for name, source in parts.items():
        unreadable = {path for part, path, _reason in left_out if part == name}
        wanted = [at for at, path in enumerate(source.paths) if path not in unreadable]
        if not wanted:
            raise InputError(
                f"{name} must have an image that can be read, got none in {source.name}"
            )
        parts[name] = subset(source, wanted)
    return replace(split, train=parts["train"], validation=parts["val"]), left_out


def about_left_out(left_out: list[list[str]]) -> tuple[str, ...]:
    """Say in a line what was left out, if anything was."""
    if not left_out:
        return ()
    listed = some([f"{path} ({reason})" for _name, path, reason in left_out], SHOWN)
    return (f"{counted(len(left_out), 'image')} left out that cannot be read: {listed}",)
