"""How scores are averaged and how sure of them one is: the choices, with their usual values."""

from __future__ import annotations

from dataclasses import dataclass

from evalkit.errors import InputError
from evalkit.scoring.averages import AVERAGE_RULES
from evalkit.scoring.intervals import CONFIDENCE_LEVEL

REPLICATES = 1_000
FEWEST_REPLICATES = 100  # an end of a 95 % interval then rests on two or three replicates


@dataclass(frozen=True, kw_only=True)
class Method:
    """The choices behind the numbers of an evaluation; ``summary.json`` holds them.

    Attributes:
        average_rule: Which classes macro and weighted averages count, a key of
            `evalkit.scoring.averages.AVERAGE_RULES`.
        class_balanced: The test set was built with a fixed number of samples per class; otherwise
            the numbers of samples per class vary as everything else does.
        group_column: Column that names what was drawn independently, such as the patient or the
            video of a sample; None when every sample was.
        simultaneous: Widen the per-class intervals so that all of them together hold with the
            level.
        replicates: How often the counts are drawn anew.
        seed: Start of the random numbers.
        level: Nominal coverage of all intervals, between 0 and 1.

    Raises:
        InputError: A value is not among these, or two of them exclude each other.
    """

    average_rule: str = "scikit-learn"
    class_balanced: bool = False
    group_column: str | None = None
    simultaneous: bool = False
    replicates: int = REPLICATES
    seed: int = 0
    level: float = CONFIDENCE_LEVEL

    def __post_init__(self) -> None:
        if self.average_rule not in AVERAGE_RULES:
            raise InputError(
                f"average_rule must be one of {', '.join(AVERAGE_RULES)}, got {self.average_rule!r}"
            )
        if self.replicates < FEWEST_REPLICATES:
            raise InputError(
                f"replicates must be at least {FEWEST_REPLICATES}, got {self.replicates}"
            )
        if self.seed < 0:
            raise InputError(f"seed must be 0 or more, got {self.seed}")
        if not 0 < self.level < 1:
            raise InputError(f"level must be between 0 and 1, got {self.level}: 0.95 is usual")
        if self.class_balanced and self.group_column is not None:
            raise InputError(
                "class_balanced and group_column exclude each other, got both: whole groups "
                f"({self.group_column}) are drawn, so the samples per class cannot stay fixed"
            )


USUAL = Method()
