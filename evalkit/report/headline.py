"""The figures that a report shows first, in their order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evalkit.scoring.intervals import CONFIDENCE_LEVEL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evalkit.evaluation import Evaluation

PLAIN = (
    ("balanced_accuracy", "balanced accuracy", "mean recall of the classes that have samples"),
    ("mcc", "MCC", "Matthews' correlation of labels and predictions, 0 is chance"),
    ("kappa", "Cohen's kappa", "agreement beyond chance, 0 is chance"),
    ("nll", "NLL", "mean negative log-probability of the true class; lower is better"),
    ("brier", "Brier", "squared error of the probabilities, summed over classes; lower is better"),
    ("ece", "ECE", "mean distance of confidence from accuracy; lower is better"),
)
LOWER_IS_BETTER = {"NLL", "Brier", "ECE"}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number with its interval where one is known, and what it means."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    meaning: str = ""

    @property
    def has_bar(self) -> bool:
        """Whether it is on the scale of the others: an interval, of a score that ends at 1."""
        known = self.low is not None and self.high is not None
        return known and self.name not in LOWER_IS_BETTER


def level_of(evaluation: Evaluation) -> float:
    """Nominal coverage of the intervals of an evaluation."""
    resampling = evaluation.summary.get("resampling") or {}
    return float(resampling.get("level", CONFIDENCE_LEVEL))


def figures(summary: Mapping[str, Any]) -> list[Figure]:
    """Accuracy first, then whatever else *summary* holds; what nobody knows is left out.

    Example:
        >>> found = figures({"accuracy": 0.9, "accuracy_low": 0.8, "accuracy_high": 0.95})
        >>> found[0].name, found[0].high
        ('accuracy', 0.95)
    """
    found = [_figure(summary, "accuracy", "accuracy", "share of samples that got their class")]
    found += [
        Figure(
            name=f"top-{k} accuracy",
            value=value,
            low=summary.get("top_k_low", {}).get(k),
            high=summary.get("top_k_high", {}).get(k),
            meaning=f"true class among the {k} most probable",
        )
        for k, value in summary.get("top_k", {}).items()
        if k != "1"
    ]
    for kind in ("macro", "weighted"):
        how = "mean over classes" if kind == "macro" else "mean over classes, by samples"
        found.append(_figure(summary.get(kind, {}), "f1", f"{kind} F1", how))
    found += [_figure(summary, *plain) for plain in PLAIN]
    return [figure for figure in found if figure.value is not None]


def calibration_error(summary: Mapping[str, Any]) -> Figure | None:
    """The expected calibration error with its interval, where it is known."""
    return next((figure for figure in figures(summary) if figure.name == "ECE"), None)


def scale_from(found: Sequence[Figure]) -> float:
    """Where the bars of intervals begin: a tenth at or below the lowest of them, at most 0.9.

    Example:
        >>> scale_from([Figure(name="accuracy", value=0.98, low=0.96, high=0.99)])
        0.9
    """
    shown = [figure.low for figure in found if figure.low is not None and figure.has_bar]
    lowest = min(shown, default=0.0)
    return min(math.floor(10 * lowest) / 10, 0.9)


def _figure(values: Mapping[str, Any], key: str, name: str, meaning: str) -> Figure:
    return Figure(
        name=name,
        value=values.get(key),
        low=values.get(f"{key}_low"),
        high=values.get(f"{key}_high"),
        meaning=meaning,
    )
