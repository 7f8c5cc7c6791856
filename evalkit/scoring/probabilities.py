"""The probabilities of all classes, where a table has them: Brier, NLL and ranking."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from evalkit.scoring.intervals import CONFIDENCE_LEVEL, mean_interval
from evalkit.scoring.label_errors import LabelErrors, label_errors
from evalkit.scoring.ranking import ranking_table
from evalkit.wording import counted, some

if TYPE_CHECKING:
    from collections.abc import Sequence

PREFIX = "p_"  # of a column with the probability of the class that follows
LISTS = "probabilities"  # column of lists in class order
MOST_VALUES = 50_000_000  # kept in single precision: 200 MB
MOST_CONTRADICTED = 0.5  # share of samples; an average over views moves some
TIE_TOLERANCE = 1e-6  # single precision, and rounding in files
ROUNDED = 0.005  # of each class, where files have two digits
SUM_TOLERANCE = 1e-2  # half precision and rounding in files
ABSENT = f"it needs the probability of every class: columns {PREFIX}<class>, or lists in {LISTS}"

Fractions = npt.NDArray[np.float64]
Arranged = tuple[npt.NDArray[np.int64] | None, npt.NDArray[np.float32] | None, str]


class Probabilities:
    """Probabilities of all classes, collected batch by batch up to 50 million of them.

    Example:
        >>> found = Probabilities()
        >>> found.add(pd.DataFrame({"label": ["a", "b"], "p_a": [0.9, 0.4], "p_b": [0.1, 0.6]}))
        >>> round(found.scores(["a", "b"])[0]["brier"], 3)
        0.17
    """

    def __init__(self) -> None:
        self._labels: list[pd.Series[Any]] = []
        self._given: list[pd.Series[Any]] = []
        self._tables: list[npt.NDArray[np.float32]] = []
        self._names: list[str] | None = None  # of the columns; None for lists
        self._values = 0
        self._fault = ABSENT
        self._made: tuple[tuple[str, ...], Arranged] | None = None

    def add(self, batch: pd.DataFrame) -> None:
        """Collect a batch, if it has probabilities of all classes."""
        self._made = None
        names = [str(name) for name in batch.columns if str(name).startswith(PREFIX)]
        if LISTS in batch:
            table, names = _from_lists(batch[LISTS]), []
        elif names:
            columns = [pd.to_numeric(batch[name], errors="coerce") for name in names]
            table = np.stack([np.asarray(one, dtype=np.float32) for one in columns], axis=1)
        else:
            return
        if table is None or (self._tables and table.shape[1] != self._tables[0].shape[1]):
            self._give_up(f"the lists in {LISTS} must be of one length, got others")
        elif self._values + table.size > MOST_VALUES:
            self._give_up(
                f"the probabilities of all samples must be at most {MOST_VALUES:,} numbers, got "
                "more: score fewer samples"
            )
        elif self._values >= 0:
            self._names = names or None
            self._values += table.size
            self._tables.append(table)
            self._labels.append(batch["label"])
            if "prediction" in batch:
                self._given.append(batch["prediction"])

    def refuse_lists(self, fault: str) -> None:
        """Leave lists out, whose numbers have no names; columns that have some stay."""
        if self._tables and self._names is None:
            self._give_up(fault)

    def warning(self, classes: Sequence[str]) -> str:
        """Say why probabilities that are there were left out, or which predictions defy them."""
        _, table, fault = self._arranged(classes)
        if table is None:
            absent = fault.startswith(ABSENT)  # columns p_<something> may be anything
            return "" if absent else f"the probabilities of all classes were left out: {fault}"
        others = self._contradicted(classes, table)
        return (
            f"{others} of {counted(len(table), 'sample')} were given a class that is not the most "
            "probable one by the probabilities of all classes"
            if others
            else ""
        )

    def scores(
        self, classes: Sequence[str], level: float = CONFIDENCE_LEVEL
    ) -> tuple[dict[str, float], dict[str, str]]:
        """Brier score with its interval, NLL, AUROC and average precision, or why not.

        The last two are means over the classes that have them.
        """
        labels, table, fault = self._arranged(classes)
        wanted = ("brier", "auroc", "average_precision")
        if table is None or labels is None:
            return {}, dict.fromkeys(wanted, fault)
        right = np.arange(len(labels)), labels
        own = table[right].astype(np.float64)
        square = np.einsum("nc,nc->n", table, table, dtype=np.float64)
        ranking = ranking_table(labels, table, classes)
        losses = square - 2 * own + 1
        low, high = mean_interval(
            float(losses.sum()), float((losses**2).sum()), losses.size, level=level
        )
        found = {
            "brier": float(losses.mean()),
            **({} if np.isnan(low) else {"brier_low": low, "brier_high": min(high, 2.0)}),
            "auroc": float(ranking["auroc"].mean()),
            "average_precision": float(ranking["average_precision"].mean()),
        }
        if own.min() > 0:
            found["nll"] = float(-np.log(own).mean())
        reasons = {
            name: "undefined: no class has both samples and others"
            for name in wanted
            if np.isnan(found[name])
        }
        return found, reasons

    def ranking(self, classes: Sequence[str], level: float) -> pd.DataFrame | None:
        """The `evalkit.scoring.ranking.ranking_table`, or nothing where it is not known."""
        labels, table, _ = self._arranged(classes)
        if table is None or labels is None:
            return None
        return ranking_table(labels, table, classes, level=level)

    def label_errors(self, classes: Sequence[str]) -> LabelErrors | None:
        """The `evalkit.scoring.label_errors.LabelErrors`, or nothing where they are not known."""
        labels, table, _ = self._arranged(classes)
        return None if table is None or labels is None else label_errors(labels, table)

    def _give_up(self, fault: str) -> None:
        self._fault, self._values, self._made = fault, MOST_VALUES + 1, None
        self._tables.clear()
        self._labels.clear()
        self._given.clear()

    def _arranged(self, classes: Sequence[str]) -> Arranged:
        """Labels as positions and probabilities in class order, or what is wrong; made once."""
        wanted = tuple(classes)
        if self._made is None or self._made[0] != wanted:
            self._made = wanted, self._arrange(wanted)
        return self._made[1]

    def _arrange(self, classes: Sequence[str]) -> Arranged:
        if not self._tables:
            return None, None, self._fault
        table = np.concatenate(self._tables)
        if self._names is not None:
            absent = [name for name in classes if PREFIX + name not in self._names]
            if absent:
                return None, None, f"{ABSENT}; there is none of {some([*map(repr, absent)])}"
            table = table[:, [self._names.index(PREFIX + name) for name in classes]]
        elif table.shape[1] != len(classes):
            fault = f"{counted(len(classes), 'class', 'classes')}, got {table.shape[1]}"
            return None, None, f"the lists in {LISTS} must have one number for each of {fault}"
        fault = _fault(table)
        if fault:
            return None, None, fault
        others = self._contradicted(classes, table)
        if others > len(table) * MOST_CONTRADICTED and self._are_of_others(classes, table):
            fault = (
                f"they are not of these predictions: {others} of {len(table)} samples were given "
                "a class that is not their most probable one"
            )
            return None, None, fault
        names = pd.Index(pd.concat(self._labels).astype(str))
        labels = pd.Index(list(classes)).get_indexer(names).astype(np.int64)
        return labels, table, ""

    def _are_of_others(self, classes: Sequence[str], table: npt.NDArray[np.float32]) -> bool:
        """Whether samples are no more probably of the class that they were given than others are.

        A threshold that was moved gives a class to those that have more of it than the rest.
        """
        given = self._given_positions(classes)
        own = float(table[np.arange(len(table)), given].mean())
        shares = np.bincount(given, minlength=len(classes)) / len(given)
        return own <= float((shares * table.mean(axis=0)).sum())

    def _given_positions(self, classes: Sequence[str]) -> npt.NDArray[np.int64]:
        names = pd.Index(pd.concat(self._given).astype(str))
        return pd.Index(list(classes)).get_indexer(names).astype(np.int64)

    def _contradicted(self, classes: Sequence[str], table: npt.NDArray[np.float32]) -> int:
        if not self._given:
            return 0
        own = table[np.arange(len(table)), self._given_positions(classes)]
        return int((own < table.max(axis=1) - TIE_TOLERANCE).sum())


def _from_lists(values: pd.Series[Any]) -> npt.NDArray[np.float32] | None:
    lengths = values.map(len, na_action="ignore")
    if lengths.isna().any() or (lengths != lengths.iloc[0]).any():
        return None
    return np.stack([np.asarray(one, dtype=np.float32) for one in values])


def _fault(table: npt.NDArray[np.float32]) -> str:
    outside = int((~((table >= 0) & (table <= 1 + SUM_TOLERANCE)).all(axis=1)).sum())
    if outside:
        return (
            f"probabilities must be in [0, 1], got {outside} of {len(table)} samples with "
            "others or with missing ones"
        )
    tolerance = max(SUM_TOLERANCE, ROUNDED * table.shape[1]) + TIE_TOLERANCE
    off = int((np.abs(table.sum(axis=1) - 1) > tolerance).sum())
    if off:
        return (
            f"the probabilities of a sample must add up to 1, got {off} of {len(table)} samples "
            "whose do not"
        )
    return ""
