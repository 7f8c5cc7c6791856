"""How sure a fraction is: confidence intervals from counts, vectorised over classes."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from evalkit.errors import InputError

CONFIDENCE_LEVEL = 0.95

Bounds = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


def wilson(
    successes: npt.ArrayLike, trials: npt.ArrayLike, *, level: float = CONFIDENCE_LEVEL
) -> Bounds:
    """Wilson's score interval of a fraction.

    It keeps close to its nominal coverage for few trials and for fractions near 0 and 1, where
    the textbook interval collapses to a point.

    Args:
        successes: Counts, any shape; at most as many as *trials*.
        trials: Counts, of a shape that broadcasts with *successes*.
        level: Nominal coverage, between 0 and 1.

    Returns:
        Lower and upper bounds, fractions in [0, 1]; NaN where there are no trials.

    Raises:
        InputError: A count is negative, there are more successes than trials, or *level* is not
            between 0 and 1.

    Source:
        Wilson, JASA 22 (1927) 209; Brown, Cai & DasGupta, Statistical Science 16 (2001) 101.

    Example:
        >>> low, high = wilson([2, 90], [2, 100])
        >>> low.round(3), high.round(3)
        (array([0.342, 0.826]), array([1.   , 0.945]))
    """
    k, n = np.broadcast_arrays(np.asarray(successes), np.asarray(trials))
    if ((k < 0) | (k > n)).any():
        first = int(np.flatnonzero((k < 0) | (k > n))[0])
        raise InputError(
            "successes must be between 0 and trials, "
            f"got {k.flat[first]} successes in {n.flat[first]} trials"
        )
    if not 0 < level < 1:
        raise InputError(f"level must be between 0 and 1, got {level}: 0.95 is usual")

    z2 = NormalDist().inv_cdf((1 + level) / 2) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        center = (k + z2 / 2) / (n + z2)
        half = np.sqrt(z2 * (k * (1 - k / n) + z2 / 4)) / (n + z2)  # NaN where n == 0
    low = np.where(k == 0, 0.0, center - half)  # exact at the ends, whatever the rounding
    high = np.where(k == n, 1.0, center + half)
    return np.where(n == 0, np.nan, low), np.where(n == 0, np.nan, high)


def simultaneous_level(level: float, intervals: int) -> float:
    """Level at which each of several intervals holds, so that all of them hold with *level*.

    Šidák's product rule, which is exact for independent intervals and errs to the safe side for
    the kinds of dependence that scores of classes have.

    Source:
        Šidák, JASA 62 (1967) 626.

    Example:
        >>> round(simultaneous_level(0.95, 1000), 6)
        0.999949
    """
    return float(level ** (1 / max(intervals, 1)))


def effective_wilson(
    fraction: npt.ArrayLike, trials: npt.ArrayLike, *, level: float = CONFIDENCE_LEVEL
) -> Bounds:
    """Wilson's interval of a fraction that is worth a broken number of independent trials.

    Args:
        fraction: In [0, 1], any shape; NaN gives NaN.
        trials: Worth of the samples, see `evalkit.scoring.clusters.effective_trials`.
        level: Nominal coverage, between 0 and 1.

    Source:
        Rao & Scott, Biometrics 48 (1992) 577.

    Example:
        >>> low, high = effective_wilson([0.9], [33.3])
        >>> low.round(3), high.round(3)
        (array([0.754]), array([0.964]))
    """
    part, whole = np.nan_to_num(fraction), np.nan_to_num(np.asarray(trials, dtype=np.float64))
    low, high = wilson(part * whole, whole, level=level)
    undefined = np.isnan(fraction)
    return np.where(undefined, np.nan, low), np.where(undefined, np.nan, high)


def f1_interval(
    hits: npt.ArrayLike,
    support: npt.ArrayLike,
    predicted: npt.ArrayLike,
    *,
    level: float = CONFIDENCE_LEVEL,
    effective: npt.ArrayLike | None = None,
) -> Bounds:
    """Interval of a class's F1: Wilson's, on the Jaccard index, carried over.

    Given the samples that carry the class on either side, U = support + predicted - hits, the hits
    are binomial with the Jaccard index J as their probability, and F1 = 2 J / (1 + J).

    Args:
        hits: Samples of the class that were given the class, shape (C,).
        support: Samples of the class, shape (C,).
        predicted: Samples that were given the class, shape (C,).
        level: Nominal coverage, between 0 and 1.
        effective: How many independent samples U is worth, shape (C,); otherwise all of U.

    Returns:
        Lower and upper bounds, fractions in [0, 1]; NaN for a class on neither side.

    Source:
        Lam, Gopal & Qian, arXiv 2309.14621 ("Wilson indirect").

    Example:
        >>> low, high = f1_interval([45], [50], [50])
        >>> low.round(3), high.round(3)
        (array([0.821]), array([0.946]))
    """
    union = np.asarray(support) + np.asarray(predicted) - np.asarray(hits)
    if effective is None:
        low, high = wilson(hits, union, level=level)
    else:
        with np.errstate(invalid="ignore"):
            low, high = effective_wilson(np.asarray(hits) / union, effective, level=level)
    return 2 * low / (1 + low), 2 * high / (1 + high)


def difference_interval(
    successes: float,
    trials: float,
    other_successes: float,
    other_trials: float,
    *,
    level: float = CONFIDENCE_LEVEL,
) -> tuple[float, float]:
    """Interval of the difference of two independent fractions, the first less the other.

    Args:
        successes: Of the first; may be broken, as may the others.
        trials: Of the first.
        other_successes: Of the other.
        other_trials: Of the other.
        level: Nominal coverage, between 0 and 1.

    Returns:
        Lower and upper bound in [-1, 1]; NaN where one of the two has no trials.

    Source:
        Newcombe, Statistics in Medicine 17 (1998) 873, method 10.

    Example:
        >>> low, high = difference_interval(56, 70, 48, 80)
        >>> round(low, 4), round(high, 4)
        (0.0524, 0.3339)
    """
    if not trials or not other_trials:
        return float("nan"), float("nan")
    first, other = successes / trials, other_successes / other_trials
    low, high = (float(side) for side in effective_wilson(first, trials, level=level))
    other_low, other_high = (
        float(side) for side in effective_wilson(other, other_trials, level=level)
    )
    difference = first - other
    return (
        difference - float(np.hypot(first - low, other_high - other)),
        difference + float(np.hypot(high - first, other - other_low)),
    )


def mean_interval(
    total: float, squares: float, samples: int, *, level: float = CONFIDENCE_LEVEL
) -> tuple[float, float]:
    """Interval of the mean of losses, which are positive and skewed: on the logarithmic scale.

    Args:
        total: Sum of the losses.
        squares: Sum of their squares.
        samples: How many there are.
        level: Nominal coverage, between 0 and 1.

    Returns:
        Lower and upper bound; NaN for fewer than two samples, and for losses that are all 0.

    Example:
        >>> low, high = mean_interval(40.0, 30.0, 100)
        >>> round(low, 3), round(high, 3)
        (0.333, 0.481)
    """
    if samples < 2 or total <= 0:  # noqa: PLR2004 - one has no spread
        return float("nan"), float("nan")
    mean = total / samples
    variance = max(squares - samples * mean**2, 0.0) / (samples - 1)
    error = float(np.sqrt(variance / samples)) / mean
    factor = float(np.exp(NormalDist().inv_cdf((1 + level) / 2) * error))
    return mean / factor, mean * factor
