"""Which samples cannot be read, all of them, before hours are spent on the others."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from evalkit.batches import Unreadable
from evalkit.images import UnreadableError
from evalkit.wording import counted, some

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evalkit.data import Source

LISTED = 20
MOST_THREADS = 8  # more wait for each other


def find_unreadable(source: Source, positions: Sequence[int], mode: str) -> list[Unreadable]:
    """Decode samples and return those for which there is no image.

    Args:
        source: The samples.
        positions: Which of them.
        mode: "RGB" or "L", as `evalkit.images.to_mode`.
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


def about_unreadable(found: Sequence[Unreadable], samples: int, name: str) -> str:
    """Say in a line which images cannot be read."""
    listed = some([f"{one.path} ({one.reason})" for one in found], LISTED)
    return (
        f"data must have images that can be read, got {len(found)} of {counted(samples, 'image')} "
        f"in {name} that cannot: {listed}: mend them, or leave them out with on-unreadable skip"
    )
