"""What the counts say of a table and what its run asked the model, in one list."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from evalkit.checks.finding import RIVAL, Check
from evalkit.checks.labels import check_label_order

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evalkit.scoring.sparse import SparseConfusion


def joined_checks(
    cells: SparseConfusion, of_run: Sequence[Mapping[str, Any]]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Ask the counts, and see whether the run's own checks explain what they say.

    A model that is shown wrong pixels can be so wrong that its labels look permuted. If it does
    better with other pixels under the order as it is than with another order, the pixels are to
    blame. If it does as well, both are named.

    Args:
        cells: Counts of true and given classes.
        of_run: The checks of the run, as `Check.as_dict` gives them; none for a table.

    Returns:
        All checks as plain values, and the warnings of those that the run did not know.
    """
    label = check_label_order(cells)
    for other in of_run:
        if (
            label.verdict == other["verdict"] == "warning"
            and other.get("as_labelled")
            and other["accuracy_other"] > label.figures["accuracy_other"]
        ):
            label = label.explained_by(Check(id=other["id"], verdict="warning", evidence=""))
        elif label.verdict == "warning" and other.get(RIVAL):
            label = replace(
                label,
                evidence=(
                    f"{label.evidence}; {other['other']} would explain it as well: on "
                    f"{other['samples']} images, accuracy is {other['accuracy_other']:.3f} then"
                ),
            )
    new = [label.evidence] if label.verdict == "warning" else []
    return [label.as_dict(), *(dict(other) for other in of_run)], new
