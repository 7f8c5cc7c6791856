"""All checks that need the model: asked after a run, about a small sample of its images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from evalkit.checks.alternatives import KINDS
from evalkit.checks.batch_norm import BATCH_NORM, check_state
from evalkit.checks.duplicates import check_duplicates
from evalkit.checks.finding import Check, skipped
from evalkit.checks.labels import find_order
from evalkit.checks.numerics import check_precision, check_repeatability
from evalkit.checks.preprocessing import check_preparation
from evalkit.scoring.sparse import of_pairs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evalkit.checks.sample import Integers, Ran
    from evalkit.data import Source
    from evalkit.transforms import TransformSpec


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What is to be checked.

    Attributes:
        sample: Images to run again in all other ways; 0 for none; None for 16 mistakes of the run,
            and up to 1024 images for what mends these.
        verify: Samples to run again alone in fp32; 0 for none.
        train: The images of the training, to look for the run's among them; or None.
    """

    sample: int | None = None
    verify: int = 0
    train: Source | None = None


def examine(ran: Ran, spec: TransformSpec, choices: Choices) -> list[Check]:
    """Ask whether the images were prepared as for the training, and the model was at rest.

    Args:
        ran: The run.
        spec: How it prepared its images.
        choices: What is to be checked.

    Returns:
        In this order: channel-order, normalisation, preset, batch-norm, repeatability,
        batch-dependence, precision, train-test-duplicates; those that were not asked for are left
        out.
    """
    checks: list[Check] = []
    if choices.sample != 0:
        steady = check_repeatability(ran, spec)
        prepared = _of_preparation(ran, spec, choices, steady)
        *_, norm = prepared
        if norm.verdict == "warning":
            steady = [c.explained_by(norm) if c.verdict == "warning" else c for c in steady]
        checks = [*prepared, *steady]
    if choices.verify:
        checks.append(check_precision(ran, spec, samples=choices.verify))
    if choices.train is not None:
        checks.append(check_duplicates(ran, choices.train))
    return checks


def _of_preparation(
    ran: Ran, spec: TransformSpec, choices: Choices, steady: Sequence[Check]
) -> list[Check]:
    """Ask about the preparation where the same image gets the same answer again."""
    if any(check.verdict == "warning" for check in steady):
        state = check_state(ran.model)
        reason = "the model gives an image other scores in another batch, or the second time"
        return [
            *(skipped(kind, reason) for kind in KINDS),
            state if state is not None else skipped(BATCH_NORM, reason),
        ]
    return check_preparation(
        ran,
        spec,
        sample=choices.sample,
        meaning=_other_order(ran),
    )


def _other_order(ran: Ran) -> Integers | None:
    cells = of_pairs(ran.labels, ran.predictions, pd.Index(ran.classes))
    found = find_order(cells)
    return found.meaning if found is not None else None
