"""All checks of one run of `evalkit.evaluate`, for its summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from evalkit.checks.class_names import check_class_names
from evalkit.checks.examine import examine
from evalkit.checks.sample import Ran

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evalkit.checks.finding import Check
    from evalkit.checks.sample import Integers
    from evalkit.run.plan import Plan


def checks_of_run(plan: Plan, examined: Sequence[Integers]) -> list[Check]:
    """Ask everything that the run allows; in one process, after the others have finished.

    Args:
        plan: What was evaluated, and how, and what is to be checked.
        examined: Positions, labels and predictions of samples of the run, each of shape (M, 3).

    Returns:
        "class-names", and what `evalkit.checks.examine.examine` returns.
    """
    positions, labels, predictions = np.concatenate(examined).T
    ran = Ran(
        model=plan.model,
        source=plan.source,
        classes=plan.classes,
        positions=positions,
        labels=labels,
        predictions=predictions,
        device=plan.computation.device,
        precision=plan.computation.precision,
        batch_size=plan.batch_size,
        workers=plan.workers,
    )
    named = check_class_names(plan.classes, plan.stored_classes)
    return [named, *examine(ran, plan.transform, plan.choices)]
