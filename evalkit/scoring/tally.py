"""Counts and running sums of samples that come in batches, so that no table is too large."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from evalkit.errors import InputError
from evalkit.scoring.calibration import confidence_cells, expected_calibration_error
from evalkit.scoring.confusion import class_index
from evalkit.scoring.intervals import mean_interval
from evalkit.scoring.resampling import Groups
from evalkit.scoring.sparse import DENSE_CLASSES, SparseConfusion, of_cells
from evalkit.wording import counted, some

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

MAX_CLASSES = 1_000_000  # more different values are no classes but, say, file names
ROUNDING = 1e-6  # a softmax in float32 may end a little above 1
PENDING_BATCHES = 16  # counts of so many batches are kept apart before they are added up


class Tally:
    """What a table of predictions adds up to. Feed it with `add`, then ask.

    Classes are their names as text: the integer 7 and the text "7" are the same class.

    Example:
        >>> tally = Tally()
        >>> tally.add(pd.DataFrame({"label": ["cat", "dog"], "prediction": ["cat", "cat"]}))
        >>> tally.confusion(["cat", "dog"])
        predicted  cat  dog
        true
        cat          1    0
        dog          1    0
    """

    def __init__(self) -> None:
        self.samples = 0
        self._positions: dict[str, int] = {}  # class name -> order of appearance
        self._pairs: list[pd.Series[int]] = []  # key of label and prediction -> samples
        self._group_positions: dict[str, int] = {}  # group -> order of appearance
        self._grouped: list[pd.Series[int]] = []  # key and group -> samples
        self._missing = {"label": 0, "prediction": 0, "group": 0}
        self._first_missing = dict(self._missing)  # row, counted from 1
        self._cells: npt.NDArray[np.float64] = np.zeros((3, 0))
        self._invalid: dict[str, int] = {}  # column -> values that are no probability
        self._log_loss = 0.0
        self._log_loss_squares = 0.0
        self._impossible = 0  # samples whose true class was given probability 0
        self._top5_hits = 0
        self._columns: set[str] = set()

    def add(self, batch: pd.DataFrame, *, group: pd.Series[Any] | None = None) -> None:
        """Count a batch of samples.

        Args:
            batch: Columns ``label`` and ``prediction``; where they exist, ``confidence``,
                ``label_probability`` and ``top5`` (lists of class names) are used as well.
            group: What every sample belongs to, such as a patient; for all batches or for none.

        Raises:
            InputError: A class column holds something other than names or integers, or too many
                different values to be classes.
        """
        labels = self._encode(batch, "label")
        predictions = self._encode(batch, "prediction")
        known = (labels >= 0) & (predictions >= 0)
        keys = (labels[known] << 32) | predictions[known]
        self._pairs.append(pd.Series(keys).value_counts(sort=False))
        if len(self._pairs) > PENDING_BATCHES:
            self._pairs = [_summed(self._pairs)]
        if group is not None:
            self._add_groups(group, labels << 32 | predictions, known)
        self._columns |= set(batch.columns) - {"top5"}
        if "confidence" in batch:
            confidence, valid = self._probability(batch, "confidence")
            right = labels == predictions
            cells = confidence_cells(confidence[valid], right[valid])
            self._cells = self._cells + cells if self._cells.size else cells
        if "label_probability" in batch:
            probability, valid = self._probability(batch, "label_probability")
            self._impossible += int((probability == 0).sum())
            losses = -np.log(probability[valid & (probability > 0)])
            self._log_loss += float(losses.sum())
            self._log_loss_squares += float((losses**2).sum())
        if "top5" in batch and batch["top5"].map(pd.api.types.is_list_like).all():
            self._columns.add("top5")
            pairs = zip(batch["label"], batch["top5"], strict=True)
            self._top5_hits += sum(str(label) in map(str, best[:5]) for label, best in pairs)
        self.samples += len(batch)

    def classes(self) -> list[str]:
        """Every class that occurred: by number where all are integers, else by name."""
        names = self._positions
        if all(name.removeprefix("-").isdecimal() for name in names):
            return sorted(names, key=int)
        return sorted(names)

    def confusion(self, classes: Sequence[str]) -> pd.DataFrame | SparseConfusion:
        """Count matrix over *classes*: a frame up to 10,000 of them, else only what is not 0.

        Raises:
            InputError: As for `cells`.
        """
        cells = self.cells(classes)
        return cells if len(cells) > DENSE_CLASSES else cells.to_frame()

    def cells(self, classes: Sequence[str]) -> SparseConfusion:
        """The non-zero cells of the count matrix over *classes*.

        Raises:
            InputError: Values were missing or not among *classes*; all of these are counted.
        """
        self._refuse_missing()
        axis: pd.Index[Any] = class_index(classes)
        summed = _summed(self._pairs)
        labels, predictions = self._places(summed.index, axis)
        samples = np.asarray(summed, dtype=np.int64)
        self._refuse_strangers(samples, labels, predictions, axis)
        return of_cells(labels, predictions, samples, axis)

    def groups(self, cells: SparseConfusion) -> Groups | None:
        """The samples of every cell by group, or nothing where no groups were given."""
        if not self._grouped:
            return None
        summed = _summed(self._grouped)
        labels, predictions = self._places(summed.index.get_level_values(0), cells.classes)
        size = len(cells)
        keys = cells.labels * size + cells.predictions  # ascending
        cell = np.searchsorted(keys, labels * size + predictions)
        order = np.argsort(cell, kind="stable")
        group = summed.index.get_level_values(1).to_numpy(dtype=np.int64)
        samples = np.asarray(summed, dtype=np.int64)
        return Groups(group[order], cell[order], samples[order], len(self._group_positions))

    def figures(self) -> tuple[dict[str, float], dict[str, str]]:
        """``ece``, ``nll`` and ``top5`` where the columns allow, and why the others are missing."""
        found: dict[str, float] = {}
        reasons: dict[str, str] = {}
        for name, column in {
            "ece": "confidence",
            "nll": "label_probability",
            "top5": "top5",
        }.items():
            if column not in self._columns:
                kind = "lists of class names" if column == "top5" else "probabilities"
                reasons[name] = f"the predictions have no column {column} of {kind}"
            elif self._invalid.get(column):
                reasons[name] = self.invalid(column)
            elif name == "ece":
                found[name] = expected_calibration_error(self._cells)
            elif name == "top5":
                found[name] = self._top5_hits / self.samples
            elif self._impossible:
                reasons[name] = (
                    f"it is infinite: {self._impossible} of {self.samples} samples gave "
                    "their true class the probability 0"
                )
            else:
                found[name] = self._log_loss / self.samples
        return found, reasons

    def log_loss_interval(self, level: float) -> tuple[float, float]:
        """Of the ``nll`` in `figures`, where that is known."""
        return mean_interval(self._log_loss, self._log_loss_squares, self.samples, level=level)

    def confidences(self) -> npt.NDArray[np.float64] | None:
        """Samples by `evalkit.scoring.calibration.confidence_cells`; nothing if unknown."""
        if "confidence" not in self._columns or self._invalid.get("confidence"):
            return None
        return self._cells

    def invalid(self, column: str) -> str:
        """What is wrong with a column of probabilities, or nothing."""
        count = self._invalid.get(column, 0)
        return (
            f"column {column} must hold probabilities in [0, 1], got {count} of {self.samples} "
            "values that are missing, not numbers or outside"
            if count
            else ""
        )

    def _encode(self, batch: pd.DataFrame, column: str) -> npt.NDArray[np.int64]:
        """Classes as positions in order of appearance, -1 where missing."""
        values = batch[column]
        codes, found = pd.factorize(values)
        names_found = np.asarray(found, dtype=object).tolist()
        kind = pd.api.types.infer_dtype(names_found, skipna=False)
        if kind not in {"string", "integer", "boolean", "empty"}:
            raise InputError(
                f"column {column} must hold class names or integers, got {values.dtype} "
                f"({some([*map(repr, names_found)])}): choose another column or convert it"
            )
        missing = codes < 0
        self._count_missing(column, missing)
        names = self._positions
        positions = [names.setdefault(str(name), len(names)) for name in names_found]
        if len(names) > MAX_CLASSES:
            raise InputError(
                f"column {column} must hold classes, got more than {MAX_CLASSES} different "
                f"values ({some([*map(repr, names)])}): choose another column"
            )
        return np.array([*positions, -1], dtype=np.int64)[codes]

    def _probability(
        self, batch: pd.DataFrame, column: str
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        values: Any = pd.to_numeric(batch[column], errors="coerce")
        probability = values.to_numpy(dtype=np.float64, na_value=np.nan)
        valid = (probability >= 0) & (probability <= 1 + ROUNDING)
        self._invalid[column] = self._invalid.get(column, 0) + int((~valid).sum())
        return np.minimum(probability, 1.0), valid

    def _add_groups(
        self, group: pd.Series[Any], keys: npt.NDArray[np.int64], known: npt.NDArray[np.bool_]
    ) -> None:
        codes, found = pd.factorize(group)
        self._count_missing("group", codes < 0)
        names = self._group_positions
        positions = [names.setdefault(str(name), len(names)) for name in np.asarray(found)]
        groups = np.array([*positions, -1], dtype=np.int64)[codes]
        pairs = pd.DataFrame({"key": keys[known], "group": groups[known]})
        self._grouped.append(pairs.groupby(["key", "group"], sort=False).size())
        if len(self._grouped) > PENDING_BATCHES:
            self._grouped = [_summed(self._grouped)]

    def _count_missing(self, column: str, missing: npt.NDArray[np.bool_]) -> None:
        if missing.any() and not self._missing[column]:
            self._first_missing[column] = self.samples + int(missing.argmax()) + 1
        self._missing[column] += int(missing.sum())

    def _places(
        self, keys: pd.Index[Any], axis: pd.Index[Any]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Positions in *axis* of labels and predictions, -1 for what is not there."""
        place = np.append(axis.get_indexer(pd.Index(list(self._positions))), -1).astype(np.int64)
        pairs = keys.to_numpy(dtype=np.int64)
        return place[pairs >> 32], place[pairs & (2**32 - 1)]

    def _refuse_missing(self) -> None:
        faults = [
            f"{count} missing in {'the groups' if column == 'group' else f'column {column}'}, "
            f"the first in row {self._first_missing[column]}"
            for column, count in self._missing.items()
            if count
        ]
        if faults:
            grouped = bool(self._grouped)
            wanted = "a label, a prediction and a group" if grouped else "a label and a prediction"
            raise InputError(
                f"every sample must have {wanted}, got {' and '.join(faults)}, "
                f"of {counted(self.samples, 'row')}: fill them in or drop these rows"
            )

    def _refuse_strangers(
        self,
        samples: npt.NDArray[Any],
        labels: npt.NDArray[Any],
        predictions: npt.NDArray[Any],
        axis: pd.Index[Any],
    ) -> None:
        known = set(axis)
        strangers = [name for name in self._positions if name not in known]
        if not strangers:
            return
        is_padded = any(str(name).strip() in known for name in strangers)
        advice = (
            "remove the blanks around them"
            if is_padded
            else "add them to the classes or correct them"
        )
        in_labels, in_predictions = samples[labels < 0].sum(), samples[predictions < 0].sum()
        raise InputError(
            f"labels and predictions must be among the {counted(len(axis), 'class', 'classes')} "
            f"({some([*map(repr, axis)])}), got {counted(len(strangers), 'other name')} "
            f"({some([*map(repr, strangers)])}) in {counted(in_labels, 'label')} and "
            f"{counted(in_predictions, 'prediction')}: {advice}"
        )


def _summed(parts: list[pd.Series[int]]) -> pd.Series[int]:
    """The samples of every key in several parts."""
    if not parts:
        return pd.Series(dtype=np.int64, index=pd.Index([], dtype=np.int64))
    if len(parts) == 1:
        return parts[0]
    whole = pd.concat(parts)
    return whole.groupby(level=list(range(whole.index.nlevels)), sort=False).sum()
