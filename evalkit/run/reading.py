"""What the summary says of how the samples were read, with what fast decoding costs in accuracy."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from evalkit.images.batches import Audit, batches
from evalkit.images.decoding import EXACT, Decoder
from evalkit.images.reading import WORTH_A_WARNING
from evalkit.inference.loop import run_over
from evalkit.inference.normalizer import Normalizer
from evalkit.wording import counted, some

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import torch

    from evalkit.images.decoding import Decoding
    from evalkit.inference.outputs import Rows
    from evalkit.run.plan import Plan

SAMPLE = 512  # images that fast decoding is compared on: a flip in 100 is seen with certainty


def reading(plan: Plan, audit: Audit) -> dict[str, Any]:
    """Return what became of every sample, and how images were decoded.

    ``files`` is the sum of the samples, of the unreadable ones and of all ``set_aside``.
    """
    set_aside = Counter(one.label for one in audit.set_aside)
    return {
        "files": len(plan.source),
        "set_aside": dict(sorted(set_aside.items())),
        "oddities": dict(audit.oddities.most_common()),
        "decoder": Decoder(plan.transform, plan.decoding).name,
        "decode": plan.decoding.place,
        "fast_decode": effect_of_fast_decoding(plan) if plan.decoding.fast else None,
    }


def about_reading(plan: Plan, audit: Audit, found: Mapping[str, Any]) -> Iterator[str]:
    """Say what a reader of the scores must know of it."""
    total = counted(len(plan.source), "image")
    if audit.unreadable:
        yield f"{len(audit.unreadable)} of {total} could not be read and are not counted"
    if audit.set_aside:
        yield (
            f"{len(audit.set_aside)} of {total} are of classes that the model does not know and "
            f"are not counted: {some(list(found['set_aside']))}"
        )
    for oddity, count in audit.oddities.items():
        if oddity in WORTH_A_WARNING:
            yield f"{counted(count, 'image')} {'was' if count == 1 else 'were'} {oddity}"
    effect = found["fast_decode"]
    if effect is not None and effect["samples"]:
        yield (
            f"images were decoded fast: of {counted(effect['samples'], 'sample')} decoded both "
            f"ways {effect['flipped']} got another prediction, and the accuracy was "
            f"{effect['accuracy']:.4f} instead of {effect['accuracy_exact']:.4f}"
        )


def effect_of_fast_decoding(plan: Plan, size: int = SAMPLE) -> dict[str, Any]:
    """Evaluate a sample both ways, spread evenly over the data.

    Args:
        plan: Of a run that decodes fast.
        size: How many samples at most.

    Returns:
        ``samples``, ``flipped`` (how many got another prediction), ``accuracy`` and
        ``accuracy_exact``, fractions in [0, 1] of the samples.
    """
    count = len(plan.source)
    positions = np.unique(np.linspace(0, count - 1, min(size, count)).astype(int)).tolist()
    fast, labels = _predictions(plan, positions, plan.decoding)
    exact, _ = _predictions(plan, positions, EXACT)
    both = sorted(fast.keys() & exact.keys())
    return {
        "samples": len(both),
        "flipped": sum(fast[one] != exact[one] for one in both),
        "accuracy": _share(fast[one] == labels[one] for one in both),
        "accuracy_exact": _share(exact[one] == labels[one] for one in both),
    }


def _share(hits: Iterable[bool]) -> float | None:
    counts = Counter(hits)
    return counts[True] / counts.total() if counts else None


def _predictions(
    plan: Plan, positions: list[int], decoding: Decoding
) -> tuple[dict[int, int], dict[int, int]]:
    """Return what the model gives to some samples, and their labels, by the samples' positions."""
    predictions: dict[int, int] = {}
    labels: dict[int, int] = {}

    def fed() -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
        for batch in batches(
            plan.source,
            plan.transform,
            plan.outputs,
            batch_size=plan.batch_size,
            workers=plan.workers,
            audit=Audit(),
            positions=positions,
            decoding=decoding,
        ):
            if len(batch.indices):
                yield batch.indices.tolist(), batch.pixels, batch.labels

    def deliver(indices: list[int], rows: Rows) -> None:
        predictions.update(zip(indices, rows.top[:, 0].tolist(), strict=True))
        labels.update(zip(indices, rows.labels.tolist(), strict=True))

    run_over(
        plan.model,
        fed(),
        deliver,
        classes=plan.classes,
        how=plan.computation,
        prepare=Normalizer(plan.transform),
    )
    return predictions, labels
