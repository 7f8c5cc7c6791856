"""Whether a score has stopped getting better."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from evalkit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(kw_only=True)
class EarlyStopping:
    """Counts the epochs since a score was best; higher is better.

    Attributes:
        patience: How many epochs in a row without a gain are borne, at least 1.
        least_gain: By how much a score must be above the best one to count, 0 or more.
        best: The best score so far.
        epochs_without_gain: Since then.

    Raises:
        InputError: A value is out of range.

    Example:
        >>> stopping = EarlyStopping(patience=2)
        >>> [stopping.is_over(accuracy) for accuracy in (0.5, 0.7, 0.7, 0.6)]
        [False, False, False, True]
        >>> stopping.best
        0.7
    """

    patience: int
    least_gain: float = 0.0
    best: float = -math.inf
    epochs_without_gain: int = 0

    def __post_init__(self) -> None:
        if self.patience < 1 or not self.least_gain >= 0:
            raise InputError(
                "patience must be at least 1 and least_gain 0 or more, got "
                f"{self.patience} and {self.least_gain}"
            )

    def is_over(self, score: float) -> bool:
        """Take the score of an epoch in; whether training may stop after it. NaN is no gain."""
        if score > self.best + self.least_gain:
            self.best, self.epochs_without_gain = score, 0
        else:
            self.epochs_without_gain += 1
        return self.epochs_without_gain >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken; the limits stay those given here."""
        self.best = float(state["best"])
        self.epochs_without_gain = int(state["epochs_without_gain"])
