"""The same scores for parts of the samples: where is the model worse than elsewhere?"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from evalkit.errors import InputError
from evalkit.scoring.averages import AVERAGED
from evalkit.scoring.calibration import calibration_interval
from evalkit.scoring.clusters import effective_counts
from evalkit.scoring.intervals import (
    difference_interval,
    effective_wilson,
    simultaneous_level,
    wilson,
)
from evalkit.scoring.resampling import resampled_intervals
from evalkit.scoring.scores import overall_scores
from evalkit.scoring.tally import Tally
from evalkit.wording import counted, some

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from evalkit.scoring.method import Method
    from evalkit.scoring.sparse import SparseConfusion

MOST_SLICES = 1_000  # of a column; each takes up to 0.4 MB and the time of its replicates
MISSING = "(missing)"
FIGURES = ("nll", "ece", "top5")


class Slices:
    """Counts for every value of some columns. Feed it with `add`, then ask for the `table`."""

    def __init__(self, columns: Iterable[str]) -> None:
        self._tallies: dict[str, dict[str, Tally]] = {column: {} for column in columns}

    def add(
        self,
        batch: pd.DataFrame,
        values: Mapping[str, pd.Series[Any]],
        *,
        group: pd.Series[Any] | None = None,
    ) -> None:
        """Count a batch of samples.

        Args:
            batch: As for `evalkit.scoring.tally.Tally.add`.
            values: For every column the value of every sample; missing ones are a slice as well.
            group: As for `evalkit.scoring.tally.Tally.add`.

        Raises:
            InputError: A column has more than 1,000 different values.
        """
        for column, tallies in self._tallies.items():
            codes, found = pd.factorize(values[column], use_na_sentinel=True)
            names = [*map(str, np.asarray(found, dtype=object).tolist()), MISSING]
            order = np.argsort(codes, kind="stable")
            for rows in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
                if not rows.size:
                    continue
                name = names[codes[rows[0]]]
                tally = tallies.setdefault(name, Tally())
                if len(tallies) > MOST_SLICES:
                    raise InputError(
                        f"a column to group by must have at most {MOST_SLICES:,} different values, "
                        f"got more in {column!r} ({some([*map(repr, tallies)])}): choose another, "
                        "or make ranges of it"
                    )
                tally.add(batch.take(rows), group=None if group is None else group.take(rows))

    def table(self, classes: Sequence[str], whole: SparseConfusion, method: Method) -> pd.DataFrame:
        """Scores of every slice, the clearly worst first.

        Args:
            classes: Names of the C classes.
            whole: Counts of all samples.
            method: How scores are averaged, and how their intervals are made.

        Returns:
            One row per slice, ascending by the upper end of its accuracy, which does not blame a
            slice for having few samples. Columns: ``column``, ``value``, ``samples``; ``accuracy``,
            ``balanced_accuracy``, ``mcc``, ``kappa``, and precision, recall and f1 of ``macro_``
            and ``weighted_``, ``nll``, ``ece`` and ``top5`` where the columns for them are there,
            each followed by its ``_low`` and ``_high``; ``difference`` of the accuracy to that
            of all other samples, with an interval that holds for all slices together; and
            ``worse``, whether that is below 0. NaN where undefined.
        """
        number = sum(len(tallies) for tallies in self._tallies.values())
        corrected = replace(method, level=simultaneous_level(method.level, number))
        rows = [
            {
                "column": column,
                "value": value,
                **_scores(tally, classes, method),
                **_against_the_rest(tally, classes, whole, corrected),
            }
            for column, tallies in self._tallies.items()
            for value, tally in tallies.items()
        ]
        table = pd.DataFrame(rows)
        return table.sort_values(["accuracy_high", "accuracy"], kind="stable", ignore_index=True)


def slice_warning(table: pd.DataFrame, level: float) -> list[str]:
    """One line when slices are clearly worse than the rest, else none."""
    worse = table[table["worse"]]
    if worse.empty:
        return []
    worst = worse.sort_values("difference_high").iloc[0]
    more = len(worse) - 1
    others = f"; so {'is' if more == 1 else 'are'} {counted(more, 'other slice')}" if more else ""
    return [
        f"clearly worse than elsewhere where {worst['column']} is {worst['value']}: accuracy "
        f"{worst['accuracy']:.3f} of {counted(int(worst['samples']), 'sample')}, difference "
        f"{worst['difference']:+.3f} [{worst['difference_low']:+.3f}, "
        f"{worst['difference_high']:+.3f}] ({level:.0%} for all {counted(len(table), 'slice')} "
        f"together){others}"
    ]


def _scores(tally: Tally, classes: Sequence[str], method: Method) -> dict[str, Any]:
    cells = tally.cells(classes)
    groups = tally.groups(cells)
    overall = overall_scores(cells, average_rule=method.average_rule, level=method.level)
    resampled = resampled_intervals(cells, method=method, groups=groups)
    ends = {"accuracy": (overall["accuracy_low"], overall["accuracy_high"])}
    if groups is not None:
        worth = effective_counts(cells, groups, level=method.level)["accuracy"]
        bounds = effective_wilson([overall["accuracy"]], worth, level=method.level)
        ends["accuracy"] = (float(bounds[0][0]), float(bounds[1][0]))
    values = {name: overall[name] for name in ("accuracy", "balanced_accuracy", "mcc", "kappa")}
    for kind in ("macro", "weighted"):
        values |= {f"{kind}.{name}": overall[kind][name] for name in AVERAGED}
    found: dict[str, Any] = {"samples": overall["samples"]}
    for name, value in values.items():
        low, high = ends.get(name) or (resampled.low[name], resampled.high[name])
        key = name.replace(".", "_")
        found |= {key: value, f"{key}_low": low, f"{key}_high": high}
    return found | _figures(tally, method, in_groups=groups is not None)


def _figures(tally: Tally, method: Method, *, in_groups: bool) -> dict[str, float]:
    """What needs more than counts of classes; by group only its values are known."""
    figures, _ = tally.figures()
    ends: dict[str, tuple[float, float]] = {}
    if "nll" in figures and not in_groups:
        ends["nll"] = tally.log_loss_interval(method.level)
    cells = tally.confidences()
    if "ece" in figures and cells is not None and not in_groups:
        ends["ece"] = calibration_interval(
            cells, replicates=method.replicates, seed=method.seed, level=method.level
        )
    if "top5" in figures and not in_groups:
        hits = round(figures["top5"] * tally.samples)
        bounds = wilson(hits, tally.samples, level=method.level)
        ends["top5"] = float(bounds[0]), float(bounds[1])
    found: dict[str, float] = {}
    for name in FIGURES:
        low, high = ends.get(name, (math.nan, math.nan))
        found |= {name: figures.get(name, math.nan), f"{name}_low": low, f"{name}_high": high}
    return found


def _against_the_rest(
    tally: Tally, classes: Sequence[str], whole: SparseConfusion, method: Method
) -> dict[str, Any]:
    """The difference in accuracy to all samples outside the slice."""
    cells = tally.cells(classes)
    groups = tally.groups(cells)
    right, samples = int(cells.hits.sum()), cells.samples
    others, others_right = whole.samples - samples, int(whole.hits.sum()) - right
    worth = 1.0  # of a sample, where samples come in groups
    if groups is not None:
        counts = effective_counts(cells, groups, level=method.level)
        worth = float(counts["accuracy"][0]) / samples
    low, high = difference_interval(
        right * worth, samples * worth, others_right * worth, others * worth, level=method.level
    )
    difference = right / samples - others_right / others if others else math.nan
    return {
        "difference": difference,
        "difference_low": low,
        "difference_high": high,
        "worse": bool(high < 0),
    }
