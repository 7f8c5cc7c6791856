"""Tests and intervals for models that were given the same samples: pure functions of counts."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from evalkit.errors import InputError
from evalkit.scoring.intervals import CONFIDENCE_LEVEL

if TYPE_CHECKING:
    from collections.abc import Sequence

EXACT_BELOW = 25  # discordant pairs: from there on the mid-p test keeps its level as well
HALVINGS = 60  # of [-1, 1]: ends are then exact to the last bit
NORMAL = NormalDist()

Fractions = npt.NDArray[np.float64]


def mcnemar(gained: int, lost: int) -> float:
    """p-value of the hypothesis that two models are right equally often.

    The exact binomial test below 25 discordant pairs, the mid-p test from there on: exact tests of
    many pairs are too careful, the chi-square test of few is too bold.

    Args:
        gained: Samples that only the second model got right.
        lost: Samples that only the first model got right.

    Returns:
        Two-sided p-value; 1 when no sample is discordant.

    Source:
        McNemar, Psychometrika 12 (1947) 153; Fagerland, Lydersen & Laake, BMC Medical Research
        Methodology 13 (2013) 91, for mid-p.

    Example:
        >>> round(mcnemar(1, 9), 6)
        0.021484
    """
    if min(gained, lost) < 0:
        raise InputError(f"counts must be 0 or more, got {gained} gained and {lost} lost")
    discordant, fewer = gained + lost, min(gained, lost)
    if not discordant:
        return 1.0
    ratios = (discordant - np.arange(fewer)) / np.arange(1, fewer + 1)
    logarithms = np.concatenate([[0.0], np.cumsum(np.log(ratios))]) - discordant * math.log(2)
    probabilities = np.exp(logarithms)  # of 0, 1, ..., fewer
    twice = 2 * float(probabilities.sum())
    if discordant >= EXACT_BELOW:
        twice -= float(probabilities[-1])
    return min(twice, 1.0)


def paired_difference(
    gained: npt.ArrayLike,
    lost: npt.ArrayLike,
    samples: npt.ArrayLike,
    *,
    level: float = CONFIDENCE_LEVEL,
) -> tuple[Fractions, Fractions]:
    """Tango's score interval of the difference in accuracy, the second model less the first.

    Args:
        gained: Samples that only the second model got right, any shape.
        lost: Samples that only the first model got right, of the same shape.
        samples: All samples, of the same shape.
        level: Nominal coverage, between 0 and 1.

    Returns:
        Lower and upper bounds in [-1, 1]; NaN without samples. Not a point where the models agree
        on all samples.

    Source:
        Tango, Statistics in Medicine 17 (1998) 891.

    Example:
        >>> low, high = paired_difference([14], [6], [200])
        >>> low.round(4), high.round(4)
        (array([-0.0042]), array([0.0885]))
    """
    up, down, number = (
        np.asarray(part, dtype=np.float64) for part in np.broadcast_arrays(gained, lost, samples)
    )
    if ((up < 0) | (down < 0) | (up + down > number)).any():
        raise InputError("gained and lost must be counts of at most all samples together")
    z = NORMAL.inv_cdf((1 + level) / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        middle = (up - down) / number
    ends = []
    for side, wanted in ((-1.0, z), (1.0, -z)):
        inner, outer = middle.copy(), np.full(middle.shape, side)
        for _ in range(HALVINGS):
            half = (inner + outer) / 2
            inside = np.abs(_score(half, up, down, number)) <= abs(wanted)
            inner, outer = np.where(inside, half, inner), np.where(inside, outer, half)
        ends.append(np.where(number > 0, inner, np.nan))
    return ends[0], ends[1]


def equivalence(gained: int, lost: int, samples: int, *, margin: float) -> float:
    """p-value of the hypothesis that accuracies differ by *margin* or more: two one-sided tests.

    Args:
        gained: Samples that only the second model got right.
        lost: Samples that only the first model got right.
        samples: All samples.
        margin: The smallest difference in accuracy that matters, a fraction above 0.

    Returns:
        The larger of the two one-sided p-values; small means practically equal.

    Raises:
        InputError: *margin* is not between 0 and 1.

    Source:
        Schuirmann (1987) for the two tests, Tango (1998) for the statistic, Liu et al., Statistics
        in Medicine 21 (2002) 231, for both together.

    Example:
        >>> round(equivalence(10, 12, 2000, margin=0.01), 4)
        0.0008
    """
    if not 0 < margin < 1:
        raise InputError(
            f"margin must be a fraction between 0 and 1, got {margin}: 0.01 is one point"
        )
    if not samples:
        return math.nan
    counts = (np.array(float(part)) for part in (gained, lost, samples))
    up, down, number = counts
    above = float(_score(np.array(-margin), up, down, number))
    below = float(_score(np.array(margin), up, down, number))
    return max(NORMAL.cdf(-above), NORMAL.cdf(below))


def cochran_q(right: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Whether any of several models is right more often than another.

    Args:
        right: Whether each of K models was right, shape (N, K).

    Returns:
        Cochran's Q and its p-value (chi-square, K - 1 degrees of freedom); 0 and 1 where all
        models agree on all samples.

    Source:
        Cochran, Biometrika 37 (1950) 256.

    Example:
        >>> cochran_q(np.array([[True, False, False]] * 6 + [[True, True, True]] * 4))[0]
        12.0
    """
    models = right.shape[1]
    per_model, per_sample = right.sum(axis=0).astype(float), right.sum(axis=1).astype(float)
    room = float((per_sample * (models - per_sample)).sum())
    if not room:
        return 0.0, 1.0
    spread = float(((per_model - per_model.mean()) ** 2).sum())
    statistic = models * (models - 1) * spread / room
    return statistic, _chi_square_above(statistic, models - 1)


def holm(p_values: Sequence[float] | Fractions) -> Fractions:
    """p-values corrected for their number, after Holm; NaN stays and does not count.

    Source:
        Holm, Scandinavian Journal of Statistics 6 (1979) 65.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        array([0.03, 0.06, 0.06])
    """
    given = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(given.shape, np.nan)
    known = np.flatnonzero(~np.isnan(given))
    order = known[np.argsort(given[known], kind="stable")]
    steps = given[order] * np.arange(order.size, 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected


def _score(
    difference: Fractions, gained: Fractions, lost: Fractions, samples: Fractions
) -> Fractions:
    """Tango's statistic: how many standard errors the counts are above a true *difference*."""
    b = (2 * samples - gained + lost) * difference - gained - lost
    c = -lost * difference * (1 - difference)
    root = np.sqrt(np.maximum(b * b - 8 * samples * c, 0))
    with np.errstate(invalid="ignore", divide="ignore"):
        lost_share = np.maximum((root - b) / (4 * samples), 0)
        variance = samples * (2 * lost_share + difference * (1 - difference))
        distance = gained - lost - samples * difference
        z = distance / np.sqrt(np.maximum(variance, 0))
    return np.where(distance == 0, 0.0, np.where(variance <= 0, np.copysign(np.inf, distance), z))


def _chi_square_above(value: float, freedom: int) -> float:
    """Probability of a larger chi-square: a finite sum for whole degrees of freedom."""
    half = value / 2
    if freedom % 2:
        term, total = math.sqrt(half / math.pi) * 2 * math.exp(-half), math.erfc(math.sqrt(half))
        start = 3
    else:
        term, total, start = math.exp(-half), 0.0, 2
    for step in range(start, freedom + 1, 2):
        total += term
        term *= value / step
    return total
