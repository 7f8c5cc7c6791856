"""From replicates of a score to its interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from evalkit.scoring.method import Method

NO_SPREAD = (
    "all replicates gave the same value, as they do for perfect predictions: drawing the counts "
    "anew cannot tell how far from it the truth is; the interval of accuracy can"
)
UNDEFINED = "it is undefined"
ROUNDING = 1e-12  # of the sums behind a score
NORMAL = NormalDist()

Integers = npt.NDArray[np.int64]
Fractions = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A score, its replicates, and what its variance is made of.

    Attributes:
        value: The score.
        replicates: Shape (B,); NaN where a replicate leaves it undefined.
        influence: What an independent part of the samples adds to it, a kind of part each,
            shape (P,); the squares of all parts add up to the variance.
        parts: How many parts there are of every kind, shape (P,).
    """

    value: float
    replicates: Fractions
    influence: Fractions
    parts: Integers

    def moment(self, power: int) -> float:
        """Sum over all parts of a power of their influence."""
        return float((self.parts * self.influence**power).sum())

    @property
    def defined(self) -> Fractions:
        """The replicates that define it."""
        return self.replicates[~np.isnan(self.replicates)]

    @property
    def bias(self) -> float:
        """How far the replicates are from the score on average."""
        return float(self.defined.mean()) - self.value


@dataclass(frozen=True, kw_only=True)
class Resampled:
    """Intervals of the scores of `evalkit.scoring.averages.averages`, under its names.

    Attributes:
        low: Lower ends; NaN where there is no interval.
        high: Upper ends.
        reasons: Why there is no interval, by name.
        undefined: In how many replicates a score was undefined, where in any.
        lost_classes: In how many replicates a class that occurs did not.
        method: How the intervals were made, in words.
    """

    low: dict[str, float]
    high: dict[str, float]
    reasons: dict[str, str]
    undefined: dict[str, int]
    lost_classes: int
    method: str


def intervals_of(
    estimates: Mapping[str, Estimate],
    interval: Callable[[Estimate, float], tuple[float, float]],
    *,
    method: Method,
    words: str,
    lost_classes: int = 0,
) -> Resampled:
    """Intervals of several scores, or why there is none, from their replicates."""
    low: dict[str, float] = {}
    high: dict[str, float] = {}
    reasons, undefined = {}, {}
    for name, estimate in estimates.items():
        missing = int(np.isnan(estimate.replicates).sum())
        if missing:
            undefined[name] = missing
        low[name] = high[name] = math.nan
        if math.isnan(estimate.value) or missing == estimate.replicates.size:
            reasons[name] = UNDEFINED
        elif np.ptp(estimate.defined) < ROUNDING:
            reasons[name] = NO_SPREAD
        else:
            ends = interval(estimate, method.level)
            least = -1.0 if name in {"mcc", "kappa"} or name.endswith("difference") else 0.0
            low[name] = max(min(ends[0], estimate.value), least)
            high[name] = min(max(ends[1], estimate.value), 1.0)
    return Resampled(
        low=low,
        high=high,
        reasons=reasons,
        undefined=undefined,
        lost_classes=lost_classes,
        method=words,
    )


def bca_interval(estimate: Estimate, level: float) -> tuple[float, float]:
    """Efron's BCa interval around the estimate less the bias of its replicates.

    The replicates less their bias have the estimate as their mean; their BCa percentiles, moved
    by the bias once more, are around the estimate less its own bias, which is about as large.
    """
    values = estimate.defined - estimate.bias
    below = (values < estimate.value).mean() + (values == estimate.value).mean() / 2
    edge = 1 / (2 * values.size)
    shift = NORMAL.inv_cdf(min(max(float(below), edge), 1 - edge))
    square = estimate.moment(2)
    acceleration = estimate.moment(3) / (6 * square**1.5) if square > 0 else 0.0
    ends = []
    for z in (NORMAL.inv_cdf((1 - level) / 2), NORMAL.inv_cdf((1 + level) / 2)):
        moved = shift + (shift + z) / (1 - acceleration * (shift + z))
        ends.append(NORMAL.cdf(moved))
    low, high = np.quantile(values, sorted(ends)) - estimate.bias
    return float(low), float(high)


def normal_interval(estimate: Estimate, level: float) -> tuple[float, float]:
    """Around the estimate less the bias of its replicates, with the delta method's error."""
    half = NORMAL.inv_cdf((1 + level) / 2) * math.sqrt(estimate.moment(2))
    return estimate.value - estimate.bias - half, estimate.value - estimate.bias + half
