"""Samples that a table of predictions holds more than once, however long it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from evalkit.wording import counted

if TYPE_CHECKING:
    import numpy.typing as npt

KEYS = ("index", "path")
# What hardly any two samples share; without it, only index and path together name a sample: an
# index may begin again, and a film or a folder have many samples of one path.
FIGURES = ("confidence", "label_probability")
WHAT_IS_SAID = ("label", "prediction", *FIGURES)
MOST = 10_000_000  # samples, 16 bytes each at the end; of a longer table nothing is said


class Repeats:
    """Looks for rows that come again: of the same sample, and saying the same.

    Feed it with `add`, then ask for the `warning`.

    Example:
        >>> repeats = Repeats()
        >>> rows = {"path": ["a.png", "b.png", "a.png"], "confidence": [0.7, 0.8, 0.7]}
        >>> repeats.add(pd.DataFrame({"label": "cat", "prediction": "cat", **rows}))
        >>> repeats.warning().partition(":")[0]
        '1 of 3 rows is of a sample that the table has already, by path'
    """

    def __init__(self) -> None:
        self._keys: list[str] = []
        self._hashes: list[npt.NDArray[np.uint64]] = []
        self._rows = 0

    def add(self, batch: pd.DataFrame) -> None:
        """Note the samples of a batch, if it names them."""
        if not self._rows:
            keys = [name for name in KEYS if name in batch]
            telling = len(keys) == len(KEYS) or any(name in batch for name in FIGURES)
            self._keys = keys if telling else []
        self._rows += len(batch)
        if self._rows > MOST:
            self._hashes.clear()
        elif self._keys:
            named = batch[batch[self._keys].notna().all(axis=1)]
            said = named[[*self._keys, *(name for name in WHAT_IS_SAID if name in batch)]]
            try:
                hashes = pd.util.hash_pandas_object(said, index=False)
            except TypeError:  # a path may be anything in Parquet, as a list
                self._keys = []
                self._hashes.clear()
                return
            self._hashes.append(np.asarray(hashes, dtype=np.uint64))

    def warning(self) -> str:
        """Say how many rows are of samples that were there before, or "" where none are."""
        if not self._hashes:
            return ""
        hashes = np.concatenate(self._hashes)
        hashes.sort()
        again = int((hashes[1:] == hashes[:-1]).sum())
        if not again:
            return ""
        are = "is of a sample" if again == 1 else "are of samples"
        return (
            f"{again:,} of {counted(self._rows, 'row')} {are} that the table has already, by "
            f"{' and '.join(self._keys)}: counted as often, so that the intervals are too narrow; "
            "leave them out"
        )
