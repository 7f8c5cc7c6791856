"""Whether the names of the model's outputs are those of the checkpoint, in the same order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evalkit.checks.finding import Check, skipped
from evalkit.wording import counted, some

if TYPE_CHECKING:
    from collections.abc import Sequence

CLASS_NAMES = "class-names"
SHOWN_NAMES = 3


def check_class_names(names: Sequence[str], stored: Sequence[str] | None) -> Check:
    """Compare the names that were used with those in the checkpoint.

    Args:
        names: Of the model's outputs, in the order of the run.
        stored: Those in the checkpoint, in its order; None where it names none.

    Example:
        >>> check_class_names(["cat", "dog"], ["dog", "cat"]).verdict
        'warning'
    """
    if stored is None:
        return skipped(CLASS_NAMES, "the checkpoint does not name its classes")
    kept = [str(name) for name in stored]
    figures = {"classes": len(names), "stored_classes": len(kept)}
    if list(names) == kept:
        return Check(
            id=CLASS_NAMES,
            verdict="passed",
            evidence="the outputs have the names of the checkpoint, in its order",
            figures=figures,
        )
    common = set(names) & set(kept)
    places = {name: position for position, name in enumerate(kept)}
    elsewhere = [
        f"{name} is output {position} and was {places[name]}"
        for position, name in enumerate(names)
        if name in common and places[name] != position
    ]
    if not elsewhere:
        return Check(
            id=CLASS_NAMES,
            verdict="passed",
            evidence=(
                f"{counted(len(names) - len(common), 'output')} have other names than in the "
                "checkpoint, and none of its names is at another place"
            ),
            figures=figures,
        )
    return Check(
        id=CLASS_NAMES,
        verdict="warning",
        evidence=(
            "the classes that were given are not in the order of the checkpoint: "
            f"{some(elsewhere, shown=SHOWN_NAMES)}: leave them out to take those of the checkpoint"
        ),
        figures={**figures, "elsewhere": len(elsewhere)},
    )
