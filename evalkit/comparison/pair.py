"""Two models on the same samples: who is better, by how much, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from evalkit.comparison.paired import equivalence, holm, mcnemar, paired_difference
from evalkit.scoring.averages import averages
from evalkit.scoring.bootstrap import Estimate, bca_interval, intervals_of, normal_interval
from evalkit.scoring.method import USUAL
from evalkit.scoring.resampling import (
    CELLS_TO_RESAMPLE,
    REPLICATES_FOR_BIAS,
    influence,
    scores_of_draws,
)
from evalkit.scoring.sparse import of_cells

if TYPE_CHECKING:
    import numpy.typing as npt

    from evalkit.comparison.join import Joined
    from evalkit.scoring.bootstrap import Resampled
    from evalkit.scoring.method import Method

FLIPS = ("right to wrong", "wrong to right", "wrong to other wrong")
CHUNK = 1 << 18


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """The second model against the first; differences are the second's score less the first's.

    Attributes:
        first: Name of one model.
        second: Name of the other.
        samples: How many both were given.
        flips: Samples by what became of them: ``both right``, ``right to wrong``,
            ``wrong to right``, ``wrong to other wrong``, ``same wrong``.
        p_value: McNemar's, of equal accuracy.
        equivalence_p_value: Of a difference of the margin or more; None without a margin.
        scores: One row per score with the columns ``first``, ``second``, ``difference``,
            ``difference_low`` and ``difference_high``.
        per_class: One row per class with samples: ``support``, ``recall_first``,
            ``recall_second``, ``difference`` with its interval, McNemar's ``p_value`` and
            ``p_value_holm``, corrected for the number of classes.
        changed: One row per sample that flipped: the key, ``label``, ``first``, ``second``,
            ``flip``.
        method: How the intervals of scores other than accuracy were made.
    """

    first: str
    second: str
    samples: int
    flips: dict[str, int]
    p_value: float
    equivalence_p_value: float | None
    scores: pd.DataFrame
    per_class: pd.DataFrame
    changed: pd.DataFrame
    method: str


def compare_pair(
    joined: Joined, first: int, second: int, *, method: Method = USUAL, margin: float | None = None
) -> Pair:
    """Compare two of the models of *joined*, given by their positions."""
    labels, a, b = joined.labels, joined.predictions[:, first], joined.predictions[:, second]
    kind = _kinds(labels, a, b)
    flips = {name: int((kind == name).sum()) for name in ("both right", *FLIPS, "same wrong")}
    gained, lost = flips["wrong to right"], flips["right to wrong"]
    scores, words = _scores(joined, a, b, method)
    flipped = np.isin(kind, FLIPS)
    names = np.asarray(joined.classes, dtype=object)
    return Pair(
        first=joined.names[first],
        second=joined.names[second],
        samples=len(labels),
        flips=flips,
        p_value=mcnemar(gained, lost),
        equivalence_p_value=(
            None if margin is None else equivalence(gained, lost, len(labels), margin=margin)
        ),
        scores=_with_accuracy(scores, labels, a, b, method.level),
        per_class=_per_class(joined, a, b, method.level),
        changed=pd.DataFrame(
            {
                joined.key: joined.samples[flipped],
                "label": names[labels[flipped]],
                "first": names[a[flipped]],
                "second": names[b[flipped]],
                "flip": kind[flipped],
            }
        ),
        method=words,
    )


def _kinds(
    labels: npt.NDArray[np.int64], a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]
) -> npt.NDArray[np.object_]:
    """What became of every sample from the first model to the second."""
    before, after = a == labels, b == labels
    names = np.array(["both right", *FLIPS, "same wrong"], dtype=object)
    code = np.select([before & after, before, after, a != b], [0, 1, 2, 3], default=4)
    return np.asarray(names[code])


def _with_accuracy(
    scores: pd.DataFrame,
    labels: npt.NDArray[np.int64],
    a: npt.NDArray[np.int64],
    b: npt.NDArray[np.int64],
    level: float,
) -> pd.DataFrame:
    before, after = a == labels, b == labels
    low, high = paired_difference(
        (after & ~before).sum(), (before & ~after).sum(), labels.size, level=level
    )
    row = [before.mean(), after.mean(), after.mean() - before.mean(), float(low), float(high)]
    accuracy = pd.DataFrame([row], index=["accuracy"], columns=scores.columns)
    return pd.concat([accuracy, scores]).rename_axis("score")


def _per_class(
    joined: Joined, a: npt.NDArray[np.int64], b: npt.NDArray[np.int64], level: float
) -> pd.DataFrame:
    """Recall of every class, of which both models were given the same samples."""
    size = len(joined.classes)
    before, after = a == joined.labels, b == joined.labels

    def count(chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        return np.bincount(joined.labels[chosen], minlength=size)

    support = np.bincount(joined.labels, minlength=size)
    gained, lost = count(after & ~before), count(before & ~after)
    low, high = paired_difference(gained, lost, support, level=level)
    p_values = [mcnemar(int(up), int(down)) for up, down in zip(gained, lost, strict=True)]
    with np.errstate(invalid="ignore"):
        first, second = count(before) / support, count(after) / support
    table = pd.DataFrame(
        {
            "support": support,
            "recall_first": first,
            "recall_second": second,
            "difference": second - first,
            "difference_low": low,
            "difference_high": high,
            "p_value": p_values,
        },
        index=pd.Index(joined.classes, name="class"),
    )
    table = table[table["support"] > 0]
    return table.assign(p_value_holm=holm(table["p_value"].to_numpy()))


def _scores(
    joined: Joined, a: npt.NDArray[np.int64], b: npt.NDArray[np.int64], method: Method
) -> tuple[pd.DataFrame, str]:
    """Averages, MCC and kappa of both, and intervals of their differences.

    The cells of (label, first, second) are drawn anew, so that both models keep their samples.
    """
    size = len(joined.classes)
    keys, counts = np.unique((joined.labels * size + a) * size + b, return_counts=True)
    pairs, given_b = np.divmod(keys, size)
    label, given_a = np.divmod(pairs, size)
    axis: pd.Index[Any] = pd.Index(joined.classes)
    cells = [of_cells(label, given, counts, axis) for given in (given_a, given_b)]
    places = [
        np.searchsorted(one.labels * size + one.predictions, label * size + given)
        for one, given in zip(cells, (given_a, given_b), strict=True)
    ]
    exact = counts.size <= CELLS_TO_RESAMPLE
    number = method.replicates if exact else REPLICATES_FOR_BIAS
    replicates = []
    for one, place in zip(cells, places, strict=True):  # the same seed: the same samples
        draws = _draw(counts, place, len(one.counts), method.seed, number)
        replicates.append(scores_of_draws(one, draws, rule=method.average_rule)[0])
    rows, estimates = {}, {}
    changes = [influence(one, rule=method.average_rule) for one in cells]
    values = [
        averages(one.hits, one.support, one.predicted, rule=method.average_rule) for one in cells
    ]
    for name in values[0]:
        first, second = (float(value[name]) for value in values)
        rows[name] = [first, second, second - first]
        change = changes[1][name][places[1]] - changes[0][name][places[0]]
        centred = change - (counts * change).sum() / counts.sum()
        estimates[f"{name} difference"] = Estimate(
            second - first, replicates[1][name] - replicates[0][name], centred, counts
        )
    words = (
        f"BCa percentiles of {number:,} replicates, moved by their bias, samples drawn with "
        "replacement for both models alike"
        if exact
        else f"delta method, bias from {number} replicates, samples drawn for both models alike"
    )
    interval = bca_interval if exact else normal_interval
    found = intervals_of(estimates, interval, method=method, words=words)
    return _table(rows, found), words


def _draw(
    counts: npt.NDArray[np.int64],
    place: npt.NDArray[np.int64],
    cells: int,
    seed: int,
    replicates: int,
) -> Iterator[npt.NDArray[np.int64]]:
    """Draw joint cells and add them up to the cells of one model."""
    rng = np.random.default_rng(seed)
    samples = counts.sum()
    rows = max(1, CHUNK // counts.size)
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(cells))
    for start in range(0, replicates, rows):
        drawn = rng.multinomial(samples, counts / samples, size=min(rows, replicates - start))
        yield np.add.reduceat(drawn[:, order], starts, axis=1)


def _table(rows: dict[str, list[float]], found: Resampled) -> pd.DataFrame:
    columns = ["first", "second", "difference"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    return table.assign(
        difference_low=[found.low[f"{name} difference"] for name in rows],
        difference_high=[found.high[f"{name} difference"] for name in rows],
    )
