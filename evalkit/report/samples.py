"""The samples worth looking at, of a table of any length, in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from evalkit.scoring.calibration import CELLS, confidence_cells

if TYPE_CHECKING:
    import numpy.typing as npt

PER_CELL = 24  # what a click on a cell of the matrix can show
KEPT = 200_000  # rows held while batches come
SEVERITY_STEPS = 1 << 20
TEXT = ("index", "path")
NUMBERS = ("confidence", "label_probability")


class Samples:
    """Keeps the most telling samples of every cell of the confusion matrix. Feed it with `add`.

    Of mistakes these are the most confident ones, of right answers the least confident.

    Attributes:
        cells: Counts by confidence, see `evalkit.scoring.calibration.confidence_cells`; None where
            the table has no confidence, or one that is not a probability.

    Example:
        >>> samples = Samples()
        >>> samples.add(pd.DataFrame({"label": ["a", "a"], "prediction": ["a", "b"]}))
        >>> samples.rows()[["label", "prediction"]].to_dict("list")
        {'label': ['a', 'a'], 'prediction': ['a', 'b']}
    """

    def __init__(self) -> None:
        self.cells: npt.NDArray[np.float64] | None = None
        self._confidence_is_missing = False
        self._names: dict[str, int] = {}  # class -> code, in order of appearance
        self._kept: pd.DataFrame | None = None
        self._added = 0
        self._full: npt.NDArray[np.float64] = np.zeros(0)  # see _full_at, by code
        self._sums: npt.NDArray[np.float64] = np.zeros((2, 0))  # label probability, its samples

    def add(self, batch: pd.DataFrame) -> None:
        """Look at a batch of samples.

        Args:
            batch: Columns ``label`` and ``prediction``; where they exist, ``confidence``,
                ``label_probability``, ``path`` and ``index`` are used as well.
        """
        codes = {name: self._encode(batch[name]) for name in ("label", "prediction")}
        known = (codes["label"] >= 0) & (codes["prediction"] >= 0)
        numbers = {name: _probability(batch[name]) for name in NUMBERS if name in batch}
        wrong = codes["label"] != codes["prediction"]
        self._count_confidence(numbers.get("confidence"), ~wrong)
        self._sum_label_probability(numbers.get("label_probability"), codes["label"])
        severity = _severity(numbers, wrong)
        known &= wrong | (severity > self._full_at(codes["label"]))
        chosen = _worst_of_each_cell(codes, severity, np.flatnonzero(known))
        picked = pd.DataFrame(
            {
                **{name: code[chosen] for name, code in codes.items()},
                **{name: values[chosen] for name, values in numbers.items()},
                **{name: batch[name].to_numpy()[chosen] for name in TEXT if name in batch},
                "severity": severity[chosen],
                "row": chosen + self._added,
            }
        )
        if "index" not in batch:
            picked["index"] = picked["row"]
        self._added += len(batch)
        self._kept = picked if self._kept is None else self._pruned(picked)
        self._note_full_cells()

    def rows(self) -> pd.DataFrame:
        """The samples kept: ``label`` and ``prediction`` as names, and what else is known.

        ``row`` is the position among all samples that were added; ``severity`` grows with how much
        a sample deserves a look, within its cell of the matrix.
        """
        if self._kept is None:
            return pd.DataFrame(columns=["label", "prediction", "index", "row", "severity"])
        names = np.array(list(self._names), dtype=object)
        rows = self._kept.reset_index(drop=True)
        return rows.assign(label=names[rows["label"]], prediction=names[rows["prediction"]])

    def self_confidence(self) -> dict[str, float]:
        """Mean probability that samples of a class are given for it, by class.

        Classes without samples, or without probabilities, are not there.
        """
        total, count = self._sums
        return {
            name: float(total[code] / count[code])
            for name, code in self._names.items()
            if code < count.size and count[code]
        }

    def _encode(self, values: pd.Series[Any]) -> npt.NDArray[np.int64]:
        codes, found = pd.factorize(values)
        names = self._names
        positions = [names.setdefault(str(name), len(names)) for name in found]
        return np.array([*positions, -1], dtype=np.int64)[codes]

    def _count_confidence(
        self, confidence: npt.NDArray[np.float64] | None, right: npt.NDArray[np.bool_]
    ) -> None:
        if confidence is None or np.isnan(confidence).any():
            self._confidence_is_missing = True
        if self._confidence_is_missing or confidence is None:
            self.cells = None
            return
        if self.cells is None:
            self.cells = np.zeros((3, CELLS))
        self.cells += confidence_cells(confidence, right)

    def _sum_label_probability(
        self, probability: npt.NDArray[np.float64] | None, labels: npt.NDArray[np.int64]
    ) -> None:
        if probability is None:
            return
        known = (labels >= 0) & ~np.isnan(probability)
        sums = np.zeros((2, len(self._names)))
        sums[:, : self._sums.shape[1]] = self._sums
        size = len(self._names)
        sums[0] += np.bincount(labels[known], weights=probability[known], minlength=size)
        sums[1] += np.bincount(labels[known], minlength=size)
        self._sums = sums

    def _full_at(self, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """The severity that a right answer must exceed to be kept: most never do."""
        full = np.full(len(self._names) + 1, -np.inf)  # the last one is for missing labels, -1
        full[: len(self._full)] = self._full
        found: npt.NDArray[np.float64] = full[labels]
        return found

    def _note_full_cells(self) -> None:
        kept = self._kept
        if kept is None:
            return
        right = kept[kept["label"] == kept["prediction"]].groupby("label")["severity"]
        least = right.min()[right.size() >= PER_CELL]
        self._full = np.full(len(self._names), -np.inf)
        self._full[least.index.to_numpy(dtype=np.int64)] = least

    def _pruned(self, picked: pd.DataFrame) -> pd.DataFrame:
        """What was kept and what is new, cut down to the worst of each cell, and to `KEPT`."""
        both = pd.concat([self._kept, picked], ignore_index=True)
        codes = {name: both[name].to_numpy() for name in ("label", "prediction")}
        severity = both["severity"].to_numpy()
        chosen = _worst_of_each_cell(codes, severity, np.arange(len(both)))
        if len(chosen) > KEPT:
            chosen = np.sort(chosen[np.argsort(-severity[chosen], kind="stable")[:KEPT]])
        return both.iloc[chosen]


def _probability(values: pd.Series[Any]) -> npt.NDArray[np.float64]:
    """As numbers in [0, 1]; NaN for what is none."""
    numbers: Any = pd.to_numeric(values, errors="coerce")
    found = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
    valid = (found >= 0) & (found <= 1 + 1e-6)  # a softmax in float32 may end a little above 1
    return np.where(valid, np.minimum(found, 1.0), np.nan)


def _severity(
    numbers: dict[str, npt.NDArray[np.float64]], wrong: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """How much more a mistake was believed than the truth; how little a right answer was."""
    confidence = np.nan_to_num(numbers.get("confidence", np.zeros(len(wrong))))
    of_label = np.nan_to_num(numbers.get("label_probability", np.zeros(len(wrong))))
    return np.where(wrong, confidence - of_label, -confidence)


def _worst_of_each_cell(
    codes: dict[str, npt.NDArray[np.int64]],
    severity: npt.NDArray[np.float64],
    rows: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Of *rows* at most `PER_CELL` for every pair of label and prediction, in their order."""
    # One key per row, the cell above and the severity, in 20 bits, below: one sort instead of two.
    cells = (
        codes["label"][rows] * (1 + codes["prediction"].max(initial=0)) + codes["prediction"][rows]
    )
    fine = ((1 - severity[rows]) / 2 * SEVERITY_STEPS).astype(np.int64)
    order = np.argsort(cells * (SEVERITY_STEPS + 1) + fine)
    sorted_cells = cells[order]
    starts = np.r_[True, sorted_cells[1:] != sorted_cells[:-1]][: len(order)]
    first = np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))
    chosen: npt.NDArray[np.int64] = np.sort(rows[order[np.arange(len(order)) - first < PER_CELL]])
    return chosen
