"""A table of predictions as it is studied: counted batch by batch, then scored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evalkit.errors import InputError
from evalkit.predictions import KEPT
from evalkit.scoring.clusters import effective_counts
from evalkit.scoring.method import USUAL
from evalkit.scoring.probabilities import Probabilities
from evalkit.scoring.scores import per_class_scores
from evalkit.scoring.slices import Slices, slice_warning
from evalkit.scoring.sparse import DENSE_CLASSES
from evalkit.scoring.tally import Tally
from evalkit.summary import summarize
from evalkit.wording import some

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from evalkit.scoring.method import Method


class Study:
    """Counts of a table that comes in batches, and everything that follows from them.

    Args:
        method: How scores are averaged, and how their intervals are made.
        group_by: Columns whose values make slices.

    Example:
        >>> import pandas as pd
        >>> study = Study(group_by=["site"])
        >>> study.add(pd.DataFrame({"label": ["a"], "prediction": ["a"], "site": ["north"]}))
        >>> study.results(["a", "b"])["slices"]["value"].tolist()
        ['north']
    """

    def __init__(self, *, method: Method = USUAL, group_by: Sequence[str] = ()) -> None:
        self.method = method
        self.tally = Tally()
        self.probabilities = Probabilities()
        self._group_by = tuple(dict.fromkeys(group_by))
        self._slices = Slices(self._group_by)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are needed besides labels, predictions and probabilities."""
        group = self.method.group_column
        return tuple(dict.fromkeys((*self._group_by, *([group] if group is not None else []))))

    def add(self, batch: pd.DataFrame) -> None:
        """Count a batch of samples, see `evalkit.scoring.tally.Tally.add`.

        Raises:
            InputError: A column to group by is not there, or as for
                `evalkit.scoring.tally.Tally.add`.
        """
        columns = {name: _column(batch, name) for name in self.columns}
        group = None
        if self.method.group_column is not None:
            group = columns[self.method.group_column]
        self.tally.add(batch, group=group)
        self.probabilities.add(batch)
        if self._group_by:
            self._slices.add(batch, columns, group=group)

    def results(
        self, classes: Sequence[str], *, run: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """``confusion``, ``cells``, ``per_class``, ``summary`` and so on of an `Evaluation`.

        Raises:
            InputError: As for `evalkit.scoring.tally.Tally.cells`.
        """
        cells = self.tally.cells(classes)
        groups = self.tally.groups(cells)
        effective = (
            effective_counts(cells, groups, level=self.method.level) if groups is not None else None
        )
        summary = summarize(
            cells,
            self.tally,
            run,
            method=self.method,
            effective=effective,
            groups=groups,
            probable=self.probabilities.scores(classes, self.method.level),
        )
        if len(cells) > DENSE_CLASSES:
            summary["warnings"].append(
                f"more than {DENSE_CLASSES:,} classes: confusion_matrix.csv lists the cells that "
                "are not 0, and report.html shows some of the classes"
            )
        if doubt := self.probabilities.warning(classes):
            summary["warnings"].append(doubt)
        slices = None
        if self._group_by:
            slices = self._slices.table(classes, cells, self.method)
            summary["warnings"] += slice_warning(slices, self.method.level)
        return {
            "confusion": cells.to_long() if len(cells) > DENSE_CLASSES else cells.to_frame(),
            "cells": cells,
            "per_class": per_class_scores(
                cells,
                level=self.method.level,
                simultaneous=self.method.simultaneous,
                effective=effective,
            ),
            "summary": summary,
            "slices": slices,
            "ranking": self.probabilities.ranking(classes, self.method.level),
            "confidences": self.tally.confidences(),
            "label_errors": self.probabilities.label_errors(classes),
        }


def _column(batch: pd.DataFrame, name: str) -> pd.Series[Any]:
    if KEPT + name in batch:
        return batch[KEPT + name]
    if name not in batch:
        present = [str(column) for column in batch if not str(column).startswith(KEPT)]
        raise InputError(
            f"predictions must have the column {name!r} to group by it, got {some(present, 10)}"
        )
    return batch[name]
