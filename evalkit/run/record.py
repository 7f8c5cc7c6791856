"""How the predictions were made: what the summary says of a run."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from evalkit.hardware import choose_device, environment
from evalkit.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from evalkit.batches import Audit
    from evalkit.inference import Scored
    from evalkit.run.plan import Plan


def record(plan: Plan, audit: Audit, scored: Scored) -> dict[str, Any]:
    """Return how the predictions were made, for the summary."""
    scores = {"nll": float(scored.loss.mean()), "brier": float(scored.brier.mean())}
    return {
        "unreadable": [asdict(one) for one in audit.unreadable],
        "checkpoint": plan.report.summary(),
        "model": {
            "spec": plan.spec,
            "class": type(plan.model).__name__,
            "parameters": sum(parameter.numel() for parameter in plan.model.parameters()),
        },
        "transform": {"origin": plan.transform_origin, **plan.transform.as_dict()},
        "precision_flags": dict(scored.precision_flags),
        "environment": environment(choose_device(plan.device)),
        "throughput": {
            "samples_per_second": len(scored) / scored.seconds,
            "seconds": scored.seconds,
            "batch_size": plan.batch_size,
            "workers": plan.workers,
        },
        "warnings": [*plan.warnings, *_observations(plan, audit, scored)],
        "scores": {name: value for name, value in scores.items() if np.isfinite(value)},
    }


def _observations(plan: Plan, audit: Audit, scored: Scored) -> Iterator[str]:
    """Say what the run noticed in the images and in the scores."""
    if audit.unreadable:
        yield (
            f"{len(audit.unreadable)} of {counted(len(plan.source), 'image')} could not be read "
            "and are not counted"
        )
    for oddity, count in audit.oddities.items():
        yield f"{counted(count, 'image')} {'was' if count == 1 else 'were'} {oddity}"
    if scored.not_finite:
        yield (
            f"{scored.not_finite} of {counted(len(scored), 'sample')} got NaN or infinite scores: "
            "their predictions mean nothing"
        )
    if scored.gave_probabilities:
        yield "the model gives probabilities, not logits: they were taken as they are"
