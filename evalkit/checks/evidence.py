"""When a difference on the same samples is no chance: paired counts, and the level they need."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evalkit.comparison.paired import mcnemar

# A false alarm costs trust in all other warnings: one run in a thousand at most, for each detector
# and all alternatives that it tries together (Bonferroni).
LEVEL = 0.001

Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Paired:
    """The same samples judged twice: as the run did, and in another way.

    Example:
        >>> Paired(gained=20, lost=1, samples=64).p_value < LEVEL
        True
    """

    gained: int  # right in the other way alone
    lost: int  # right as the run did alone
    samples: int

    @property
    def p_value(self) -> float:
        """McNemar's, two-sided; 1 where the other way is not ahead."""
        return mcnemar(self.gained, self.lost) if self.gained > self.lost else 1.0

    @property
    def gain(self) -> float:
        """Accuracy in the other way less accuracy as the run did it, in [-1, 1]."""
        return (self.gained - self.lost) / self.samples if self.samples else 0.0

    def is_better(self, *, alternatives: int, level: float = LEVEL) -> bool:
        """Whether the other way is better at *level*, when it is one of so many that were tried."""
        return self.p_value * alternatives <= level


def paired(before: Booleans, after: Booleans) -> Paired:
    """Count on which samples two ways differ.

    Args:
        before: Whether the run was right, shape (N,).
        after: Whether the other way was, shape (N,).

    Example:
        >>> paired(np.array([True, False, False]), np.array([False, True, True]))
        Paired(gained=2, lost=1, samples=3)
    """
    return Paired(
        gained=int((after & ~before).sum()),
        lost=int((before & ~after).sum()),
        samples=len(before),
    )


def least_gained(alternatives: int, level: float = LEVEL) -> int:
    """Return how many samples must be gained, none lost, before any of *alternatives* is better.

    A run with fewer mistakes than that in the sample leaves nothing to be found.

    Example:
        >>> least_gained(1), least_gained(12)
        (11, 15)
    """
    gained = 1
    while not Paired(gained=gained, lost=0, samples=gained).is_better(
        alternatives=alternatives, level=level
    ):
        gained += 1
    return gained
