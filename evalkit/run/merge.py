"""Shards -> the table of predictions and everything that is counted of it, a part at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from evalkit.errors import InputError
from evalkit.images.batches import Audit
from evalkit.inference.outputs import Integers, Rows
from evalkit.report.samples import Samples
from evalkit.run.shard import Shard, join
from evalkit.scoring.study import Study

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evalkit.run.cut import Cut
    from evalkit.run.plan import Plan
    from evalkit.scoring.method import Method

TOGETHER = 16_384  # samples in one part of the table, and in one row group of its file
MOST_EXAMINED = 100_000  # samples that are held for the checks: more tell them nothing new


@dataclass(kw_only=True, eq=False)
class Merged:
    """What all shards come to.

    Attributes:
        study: The samples counted.
        samples: Those that the report shows.
        audit: What was noticed while they were read.
        scored: How many samples there are.
        not_finite: How many have NaN or infinity among their scores, or minus infinity for all.
        masked: How many others have minus infinity among them.
        without_probability: How many have NaN among their scores, or infinity so that no class
            has a probability.
        tied: How many have a second class with the score of the best one.
        gave_probabilities: Whether the model ends in a softmax of its own.
        within_one: Whether all scores lie in [0, 1].
        loss: Sum over the samples.
        brier: Sum over the samples.
        examined: Positions, labels and predictions of evenly spread samples, shape (M, 3).
    """

    study: Study
    samples: Samples = field(default_factory=Samples)
    audit: Audit = field(default_factory=Audit)
    scored: int = 0
    not_finite: int = 0
    masked: int = 0
    without_probability: int = 0
    tied: int = 0
    gave_probabilities: bool = True
    within_one: bool = True
    loss: float = 0.0
    brier: float = 0.0
    examined: list[Integers] = field(default_factory=list)


def merge(
    plan: Plan,
    cut: Cut,
    shards: Iterable[Shard],
    *,
    gave_probabilities: bool,
    keep: Callable[[pd.DataFrame], None],
    method: Method,
    group_by: Sequence[str],
) -> Merged:
    """Count all shards, and prove that each sample was counted once.

    Args:
        plan: What was evaluated.
        cut: How its samples were cut.
        shards: All of them, in order.
        gave_probabilities: Whether all scores could be probabilities, and so are some.
        keep: Called with every part of the table of predictions, in order.
        method: How scores are averaged, and how their intervals are made.
        group_by: Columns whose values make slices.

    Raises:
        InputError: A shard is damaged, or a sample was not counted once.
    """
    merged = Merged(
        study=Study(method=method, group_by=group_by), gave_probabilities=gave_probabilities
    )
    stride = -(-cut.samples // MOST_EXAMINED)
    for indices, rows in _together(_proven(cut, shards, merged.audit)):
        chosen = rows.as_probabilities if gave_probabilities else rows.as_logits
        part = _frame(plan, indices, rows, chosen, gave_probabilities=gave_probabilities)
        keep(part)
        merged.study.add(part)
        merged.samples.add(part)
        merged.scored += len(rows)
        merged.not_finite += int((~rows.finite).sum())
        merged.masked += int(rows.masked.sum())
        merged.without_probability += int(np.isnan(chosen[:, 0]).sum())
        merged.tied += int((rows.tied & rows.finite).sum())
        merged.within_one &= bool(rows.within_one.all())
        merged.loss += float(chosen[:, 2].sum())
        merged.brier += float(chosen[:, 3].sum())
        spread = indices % stride == 0
        merged.examined.append(
            np.stack([indices, rows.labels, rows.top[:, 0]], axis=1)[spread].astype(np.int64)
        )
    return merged


def _proven(cut: Cut, shards: Iterable[Shard], audit: Audit) -> Iterator[Shard]:
    """Pass shards on once it is clear that they are all there are and each is whole."""
    expected = iter(cut.shards)
    counted = 0
    for shard in shards:
        if shard.number != next(expected, None):
            raise InputError(f"every shard must be counted once, got {shard.number} out of turn")
        shard.refuse_unless_whole(cut)
        audit.add(shard.audit)
        counted += len(cut.positions(shard.number))
        yield shard
    if counted != cut.samples:
        raise InputError(
            f"every sample must be counted once, got {counted} of {cut.samples}: go on with "
            "resume=True"
        )


def _together(shards: Iterable[Shard]) -> Iterator[tuple[Integers, Rows]]:
    """Put shards together until they are worth a part of the table."""
    waiting: list[Shard] = []
    for shard in shards:
        waiting.append(shard)
        values = sum(0 if one.rows is None else _values(one.rows) for one in waiting)
        if sum(len(one.indices) for one in waiting) >= TOGETHER or values >= TOGETHER * 64:
            yield from _joined(waiting)
            waiting = []
    yield from _joined(waiting)


def _values(rows: Rows) -> int:
    return 0 if rows.scores is None else rows.scores.size


def _joined(shards: Sequence[Shard]) -> Iterator[tuple[Integers, Rows]]:
    if shards:
        indices, rows = join(shards)
        if rows is not None:
            yield indices, rows


def _frame(
    plan: Plan,
    indices: Integers,
    rows: Rows,
    chosen: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    *,
    gave_probabilities: bool,
) -> pd.DataFrame:
    """A part of the table of predictions, see `evalkit.predictions.COLUMNS`."""
    categories = pd.Index(plan.classes)
    names = np.array(plan.classes, dtype=object)
    paths = plan.source.paths
    frame = pd.DataFrame(
        {
            "index": indices,
            "path": [paths[position] for position in indices.tolist()],
            "label": pd.Categorical.from_codes(rows.labels, categories=categories),
            "prediction": pd.Categorical.from_codes(rows.top[:, 0], categories=categories),
            "confidence": chosen[:, 0],
            "label_probability": chosen[:, 1],
            "loss": chosen[:, 2],
            "top5": names[rows.top].tolist(),
        }
    )
    if rows.scores is not None:
        frame["probabilities"] = list(_probabilities(rows.scores, given=gave_probabilities))
    columns = plan.source.columns
    if columns is None or columns.empty:
        return frame
    return pd.concat([frame, columns.iloc[indices].reset_index(drop=True)], axis=1)


def _probabilities(
    scores: np.ndarray[tuple[int, ...], np.dtype[np.float32]], *, given: bool
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Of all classes, shape (B, C); what is no number among the scores stays none."""
    if given:
        return scores.clip(0, 1)
    wide = scores.astype(np.float64)
    with np.errstate(invalid="ignore"):
        wide -= wide.max(axis=1, keepdims=True)
        wide = np.exp(wide, out=wide)
        wide /= wide.sum(axis=1, keepdims=True)
    return wide.astype(np.float32)


def mean(total: float, count: int) -> float:
    """A sum over so many samples as their mean; NaN for none."""
    return total / count if count else math.nan
