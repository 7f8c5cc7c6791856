"""How the predictions were made: what the summary says of a run."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evalkit.checks.finding import warnings_of
from evalkit.checks.of_run import checks_of_run
from evalkit.inference.hardware import choose_device, environment
from evalkit.run.reading import about_reading, reading
from evalkit.scoring.scores import margins
from evalkit.wording import counted, some

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from evalkit.run.merge import Merged
    from evalkit.run.plan import Plan

FEWEST = 20  # samples, before one class for all of them is no chance
MOST_OF_ALL = 0.95  # share of samples that get one class which far fewer of them have
FAR_FEWER = 0.5  # share of samples whose label that class may be


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast it went, this time: what was there before does not count.

    Attributes:
        samples: How many were scored by all processes.
        seconds: How long the slowest of them took.
        processes: How many there were.
        flags: What decides how exact the results are, see `evalkit.inference.hardware.computing`.
    """

    samples: int
    seconds: float
    processes: int
    flags: Mapping[str, Any]


def record(plan: Plan, merged: Merged, pace: Pace) -> dict[str, Any]:
    """Return how the predictions were made, for the summary."""
    how_read = reading(plan, merged.audit)
    checks = checks_of_run(plan, merged.examined)
    scores = {
        "nll": merged.loss / merged.scored,
        "brier": merged.brier / merged.scored,
    }
    return {
        "unreadable": [asdict(one) for one in merged.audit.unreadable],
        "checkpoint": plan.report.summary(),
        "model": {
            "spec": plan.spec,
            "class": type(plan.model).__name__,
            "parameters": sum(parameter.numel() for parameter in plan.model.parameters()),
        },
        "transform": {"origin": plan.transform_origin, **plan.transform.as_dict()},
        "data": {"name": plan.source.name, "sha256": plan.data_sha256},
        "reading": how_read,
        "precision_flags": dict(pace.flags),
        "environment": environment(choose_device(plan.computation.device)),
        "throughput": {
            "samples_per_second": pace.samples / pace.seconds if pace.samples else None,
            "seconds": pace.seconds,
            "batch_size": plan.batch_size,
            "workers": plan.workers,
            "processes": pace.processes,
        },
        "checks": [check.as_dict() for check in checks],
        "warnings": [
            *warnings_of(checks),
            *plan.warnings,
            *about_reading(plan, merged.audit, how_read),
            *_observations(plan, merged),
        ],
        "scores": {name: value for name, value in scores.items() if math.isfinite(value)},
    }


def _observations(plan: Plan, merged: Merged) -> Iterator[str]:
    """Say what the run noticed in the scores."""
    if merged.not_finite:
        yield (
            f"{merged.not_finite} of {counted(merged.scored, 'sample')} got NaN or infinite "
            "scores: their predictions mean nothing"
        )
    if merged.masked:
        yield (
            f"{merged.masked} of {counted(merged.scored, 'sample')} got minus infinity for some "
            "class, which was taken for a probability of 0: right of a model that masks classes, "
            "else an overflow in half precision"
        )
    if merged.tied:
        yield (
            f"{merged.tied} of {counted(merged.scored, 'sample')} got one score for two or more "
            "classes, the highest: the first of these classes was taken"
        )
    if merged.not_finite < merged.scored:
        yield from _collapse(plan, merged)
    if merged.gave_probabilities:
        yield "the model gives probabilities, not logits: they were taken as they are"
    elif merged.within_one and merged.scored:
        yield (
            "all scores are in [0, 1] and do not sum to 1: they were taken for logits; if they are "
            "probabilities, as of a sigmoid, confidence, NLL, Brier score and ECE mean little"
        )


def _collapse(plan: Plan, merged: Merged) -> Iterator[str]:
    """Say that the model gives one class to nearly all samples, few of which have it."""
    _, support, predicted = margins(merged.study.tally.cells(plan.classes))
    favourite = int(np.argmax(predicted))
    given, having = int(predicted[favourite]), int(support[favourite])
    if (
        merged.scored >= FEWEST
        and given >= MOST_OF_ALL * merged.scored
        and having <= FAR_FEWER * merged.scored
    ):
        yield (
            f"the model gives {some([plan.classes[favourite]])} to {given:,} of "
            f"{counted(merged.scored, 'sample')}, of which {having:,} have it: it has collapsed, "
            "or it is not this data that it was trained for"
        )
