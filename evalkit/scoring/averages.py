"""Scores of all classes together, for many tables of counts at once, and how they react."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from evalkit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

AVERAGED = ("precision", "recall", "f1")
AVERAGE_RULES = {
    "scikit-learn": (
        "scikit-learn's default: a class with neither samples nor predictions does not count; "
        "an undefined precision or recall of any other class counts as 0"
    ),
    "all": (
        "every named class counts, whether it occurs or not; an undefined score counts as 0 "
        "(scikit-learn with labels=, zero_division=0)"
    ),
    "with-samples": (
        "only classes that have samples count; an undefined precision of one of them counts as 0 "
        "(macro recall is then the balanced accuracy)"
    ),
    "defined": (
        "every class counts for the scores that are defined for it "
        "(scikit-learn with labels=, zero_division=nan)"
    ),
}

Table = npt.NDArray[Any]  # shape (..., C), counts
Fractions = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Slopes:
    """Derivatives of a score by the hits, the support and the predictions, each of shape (C,)."""

    hits: Fractions
    support: Fractions
    predicted: Fractions

    def weighted(self, weights: Fractions) -> Slopes:
        """The same, every class times its weight, shape (C,)."""
        return Slopes(self.hits * weights, self.support * weights, self.predicted * weights)


def averages(hits: Table, support: Table, predicted: Table, *, rule: str) -> dict[str, Fractions]:
    """Scores of all classes together.

    Args:
        hits: Samples of every class that were given it, shape (..., C).
        support: Samples of every class, shape (..., C).
        predicted: Samples that were given every class, shape (..., C).
        rule: A key of `AVERAGE_RULES`.

    Returns:
        ``macro.precision``, ``macro.recall``, ``macro.f1``, the same of ``weighted``,
        ``balanced_accuracy``, ``mcc`` and ``kappa``, each of shape (...); fractions in [0, 1], the
        last two in [-1, 1], NaN where undefined.

    Raises:
        InputError: There is no such rule.

    Example:
        >>> found = averages(np.array([3, 0]), np.array([4, 0]), np.array([3, 1]), rule="all")
        >>> found["macro.precision"].item(), found["balanced_accuracy"].item()
        (0.5, 0.75)
    """
    found = {}
    for name, part, whole in _ratios(hits, support, predicted):
        values = _divided(part, whole)  # 0 where undefined
        macro = _macro_weights(rule, support, predicted, whole)
        by_support = support * (whole > 0) if rule == "defined" else support
        found[f"macro.{name}"] = _mean(values, macro)
        found[f"weighted.{name}"] = _mean(values, by_support)
        if name == "recall":
            found["balanced_accuracy"] = _mean(values, support > 0)
    found |= _agreement(hits, support, predicted)
    macro_first = sorted(found, key=lambda name: name.partition(".")[0] != "macro")
    return {name: found[name] for name in macro_first}


def slopes(hits: Table, support: Table, predicted: Table, *, rule: str) -> dict[str, Slopes]:
    """How the scores of `averages` change with the counts, for one table.

    Args:
        hits: Samples of every class that were given it, shape (C,).
        support: Samples of every class, shape (C,).
        predicted: Samples that were given every class, shape (C,).
        rule: A key of `AVERAGE_RULES`.

    Returns:
        The keys of `averages`. A sample more in the cell (i, j) changes a score by
        ``support[i] + predicted[j]``, and by ``hits[i]`` as well where i is j.

    Source:
        Takahashi et al., Applied Intelligence 52 (2022) 4961, for macro F1.
    """
    found = {}
    for name, part, whole in _ratios(hits, support, predicted):
        value = _divided(part, whole)
        of_class = _slopes_of_ratio(name, value, whole)
        counting = _macro_weights(rule, support, predicted, whole)
        found[f"macro.{name}"] = of_class.weighted(_divided(counting, counting.sum()))
        if name == "recall":
            found["balanced_accuracy"] = of_class.weighted(
                _divided(support > 0, (support > 0).sum())
            )
        counts = whole > 0 if rule == "defined" else np.ones(whole.shape, dtype=bool)
        total = (support * counts).sum()
        share = _divided(support * counts, total)
        fixed = of_class.weighted(share)  # and a sample more also changes the shares themselves
        by_share = counts * _divided(value - (share * value).sum(), total)
        found[f"weighted.{name}"] = Slopes(fixed.hits, fixed.support + by_share, fixed.predicted)
    return found | _slopes_of_agreement(hits, support, predicted)


def _ratios(hits: Table, support: Table, predicted: Table) -> Iterator[tuple[str, Table, Table]]:
    yield "precision", hits, predicted
    yield "recall", hits, support
    yield "f1", 2 * hits, support + predicted


def _slopes_of_ratio(name: str, value: Fractions, whole: Table) -> Slopes:
    """Of a class's own score, each shape (C,)."""
    by_hits = _divided(2.0 if name == "f1" else 1.0, whole)
    by_whole, nothing = -_divided(value, whole), np.zeros(value.shape)
    return Slopes(
        by_hits,
        by_whole if name != "precision" else nothing,
        by_whole if name != "recall" else nothing,
    )


def _macro_weights(rule: str, support: Table, predicted: Table, whole: Table) -> Table:
    """Which classes count, shape (..., C)."""
    if rule == "scikit-learn":
        return (support + predicted) > 0
    if rule == "all":
        return np.ones(whole.shape, dtype=bool)
    if rule == "with-samples":
        return support > 0
    if rule == "defined":
        return whole > 0
    raise InputError(f"average_rule must be one of {', '.join(AVERAGE_RULES)}, got {rule!r}")


def _divided(part: Any, whole: Any) -> Fractions:
    """The quotient, 0 where there is nothing to divide by."""
    part, whole = np.broadcast_arrays(part, whole)
    result = np.zeros(part.shape)
    np.divide(part, whole, out=result, where=whole != 0)
    return result


def _mean(values: Fractions, weights: Table) -> Fractions:
    """Weighted mean over the last axis; NaN without any weight."""
    total = weights.sum(axis=-1, dtype=np.float64)
    if weights.dtype == np.bool_:
        summed = np.where(weights, values, 0.0).sum(axis=-1)
    else:
        summed = np.einsum("...c,...c->...", values, weights.astype(np.float64))
    return np.where(total > 0, _divided(summed, total), np.nan)


def _sums(hits: Table, support: Table, predicted: Table) -> tuple[Fractions, ...]:
    """N, N * hits - by chance, N^2 - by chance, and the spreads of both margins."""
    true, given = support.astype(np.float64), predicted.astype(np.float64)
    samples = true.sum(axis=-1)
    square = samples**2
    by_chance = np.einsum("...c,...c->...", true, given)
    covariance = samples * hits.sum(axis=-1) - by_chance
    spread_true = square - np.einsum("...c,...c->...", true, true)
    spread_given = square - np.einsum("...c,...c->...", given, given)
    return samples, covariance, square - by_chance, spread_true, spread_given


def _agreement(hits: Table, support: Table, predicted: Table) -> dict[str, Fractions]:
    _, covariance, room, spread_true, spread_given = _sums(hits, support, predicted)
    scale = np.sqrt(spread_true) * np.sqrt(spread_given)
    return {
        "mcc": np.where(scale > 0, _divided(covariance, scale), np.nan),
        "kappa": np.where(room > 0, _divided(covariance, room), np.nan),
    }


def _slopes_of_agreement(hits: Table, support: Table, predicted: Table) -> dict[str, Slopes]:
    """N counts as a function of the support: a sample more is one more there."""
    sums = [float(value) for value in _sums(hits, support, predicted)]
    samples, covariance, room, spread_true, spread_given = sums
    scale = (spread_true * spread_given) ** 0.5
    log_scale = (  # logarithmic slopes by support and by predicted
        _divided(samples - support, spread_true) + _divided(samples, spread_given),
        -_divided(predicted, spread_given),
    )
    log_room = (_divided(2 * samples - predicted, room), -_divided(support, room))
    found = {}
    for name, whole, (by_support, by_predicted) in (
        ("mcc", scale, log_scale),
        ("kappa", room, log_room),
    ):
        value = _divided(covariance, whole)
        found[name] = Slopes(
            _divided(np.full(hits.shape, samples), whole),
            _divided(hits.sum() - predicted, whole) - value * by_support,
            _divided(-support, whole) - value * by_predicted,
        )
    return found
