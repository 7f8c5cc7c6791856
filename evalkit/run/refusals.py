"""Why a run has no result, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evalkit.errors import InputError
from evalkit.images.audit import unreadable_error

if TYPE_CHECKING:
    from evalkit.images.batches import Audit
    from evalkit.run.plan import Plan

OF_WHAT_IS_KEPT = (
    "; what was done is kept: with resume=True and on_unreadable='skip' it is not done again "
    "(files that were mended are other data, which begin anew)"
)


def unreadable(plan: Plan, lost: Audit, *, kept: bool = False) -> InputError:
    """Say which images could not be read; *kept* whether what was done is there for another run."""
    return unreadable_error(
        lost.unreadable,
        samples=len(plan.source),
        name=plan.source.name,
        more=OF_WHAT_IS_KEPT if kept else "",
    )


def nothing_left(plan: Plan, audit: Audit) -> InputError:
    """Say why no sample was scored."""
    if audit.unreadable:
        return unreadable(plan, audit)
    return InputError(
        "data must have samples of classes that the model knows, got all "
        f"{len(audit.set_aside)} of other classes in {plan.source.name}"
    )


def no_numbers(plan: Plan, samples: int) -> str:
    """Say that no score of any of the samples is a number."""
    precision = plan.computation.precision
    narrower = f", or compute in fp32 or bf16 instead of {precision}" if precision == "fp16" else ""
    return (
        "model must give scores that are numbers, got NaN or infinite ones for "
        f"{'the only sample' if samples == 1 else f'all {samples:,} samples'}: look for such "
        f"weights with 'evalkit inspect', and take an earlier checkpoint{narrower}"
    )
