"""Samples that a table of predictions holds more than once, however long it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from evalkit.wording import counted

if TYPE_CHECKING:
    import numpy.typing as npt

KEYS = ("index", "path")  # the first of them that a table has names its samples
MOST = 50_000_000  # samples: 400 MB


class Repeats:
    """Looks for samples that come again. Feed it with `add`, then ask for the `warning`.

    Example:
        >>> repeats = Repeats()
        >>> repeats.add(pd.DataFrame({"path": ["a.png", "b.png", "a.png"]}))
        >>> repeats.warning().partition(":")[0]
        '1 of 3 rows is of a sample that the table has already, by path'
    """

    def __init__(self) -> None:
        self._key = ""
        self._hashes: list[npt.NDArray[np.uint64]] = []
        self._rows = 0

    def add(self, batch: pd.DataFrame) -> None:
        """Note the samples of a batch, if it names them."""
        if not self._rows:
            self._key = next((name for name in KEYS if name in batch), "")
        self._rows += len(batch)
        if self._key and self._rows <= MOST:
            hashes = pd.util.hash_pandas_object(batch[self._key], index=False)
            self._hashes.append(np.asarray(hashes, dtype=np.uint64))

    def warning(self) -> str:
        """Say how many rows are of samples that were there before, or "" where none are."""
        if not self._hashes or self._rows > MOST:
            return ""
        again = self._rows - len(pd.unique(np.concatenate(self._hashes)))
        if not again:
            return ""
        are = "is of a sample" if again == 1 else "are of samples"
        return (
            f"{again:,} of {counted(self._rows, 'row')} {are} that the table has already, by "
            f"{self._key}: counted as often, so that the intervals are too narrow; leave them out"
        )
