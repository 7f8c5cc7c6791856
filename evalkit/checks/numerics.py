"""Whether a prediction depends on chance, on its neighbours in the batch, or on the precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from evalkit.checks.finding import Check, skipped
from evalkit.checks.sample import Ran, Read, RefusedError, ask, choose, given, read
from evalkit.scoring.intervals import wilson
from evalkit.wording import counted, some

if TYPE_CHECKING:
    from evalkit.transforms import TransformSpec

REPEATABILITY, BATCH_DEPENDENCE, PRECISION = "repeatability", "batch-dependence", "precision"
FEW = 4  # images: dropout and batch statistics change the scores of every one of them
# Rounding changes probabilities in fp32 by 1e-5 at most; dropout and batch statistics by tenths.
TOLERANCE = 1e-3
SHOWN_FLIPS = 3


def check_repeatability(ran: Ran, spec: TransformSpec) -> list[Check]:
    """Ask the model twice about the same few images, then about each of them alone.

    Returns:
        One check each of "repeatability" and "batch-dependence", in 32 bits.
    """
    images = _read_all(ran, spec, min(FEW, ran.batch_size, len(ran)))
    if len(images.images) < 2:  # noqa: PLR2004
        reason = "it takes at least 2 images in a batch"
        return [skipped(name, reason) for name in (REPEATABILITY, BATCH_DEPENDENCE)]
    pixels = torch.stack([spec.pixels(image) for image in images.images])
    try:
        first, second = (_probabilities(ran, spec, pixels) for _ in range(2))
    except RefusedError as error:
        return [skipped(name, str(error)) for name in (REPEATABILITY, BATCH_DEPENDENCE)]
    varied = _distance(first, second)
    figures = {"samples": len(pixels), "largest_difference": varied}
    if varied > TOLERANCE:
        warning = Check(
            id=REPEATABILITY,
            verdict="warning",
            evidence=(
                f"the same batch of {counted(len(pixels), 'image')} got other scores the second "
                f"time: probabilities differ by up to {varied:.2g}; dropout or another random part "
                "is at work in evaluation mode, and every run will give other numbers"
            ),
            figures=figures,
        )
        return [warning, skipped(BATCH_DEPENDENCE, "the same batch twice does not agree either")]
    passed = Check(
        id=REPEATABILITY,
        verdict="passed",
        evidence=f"the same batch twice gave probabilities within {TOLERANCE:g}",
        figures=figures,
    )
    return [passed, _batch_dependence(ran, spec, pixels, first)]


def _batch_dependence(
    ran: Ran, spec: TransformSpec, pixels: torch.Tensor, together: torch.Tensor
) -> Check:
    try:
        alone = torch.cat([_probabilities(ran, spec, one.unsqueeze(0)) for one in pixels])
    except RefusedError as error:  # batch norm in training mode cannot take one value per channel
        return _dependent(f"with one image alone {error}", {})
    difference = _distance(together, alone)
    changed = int((together.argmax(1) != alone.argmax(1)).sum())
    figures = {
        "samples": len(pixels),
        "largest_difference": difference,
        "changed_predictions": changed,
    }
    if difference > TOLERANCE:
        seen = (
            f"{counted(len(pixels), 'image')} alone and in one batch got probabilities that differ "
            f"by up to {difference:.2g}, and {counted(changed, 'prediction')} changed"
        )
        return _dependent(seen, figures)
    return Check(
        id=BATCH_DEPENDENCE,
        verdict="passed",
        evidence=f"alone and in a batch gave probabilities within {TOLERANCE:g}",
        figures=figures,
    )


def _dependent(seen: str, figures: dict[str, float]) -> Check:
    return Check(
        id=BATCH_DEPENDENCE,
        verdict="warning",
        evidence=(
            f"predictions depend on the other images of the batch: {seen}; a part of the model "
            "works as in training, such as batch norm on the statistics of the batch"
        ),
        figures=figures,
    )


def check_precision(ran: Ran, spec: TransformSpec, *, samples: int) -> Check:
    """Run samples again, each alone and in 32 bits, and count the predictions that change.

    Args:
        ran: The run, in its own precision and batches.
        spec: How it prepared its images.
        samples: How many to run again, chosen by chance with a seed.
    """
    chosen = choose(ran, min(samples, len(ran)))
    flipped: list[tuple[int, float]] = []  # position among the evaluated, and lead in 32 bits
    number = 0
    for part in read(ran, chosen, spec.mode, size=ran.batch_size):
        for position, image in zip(part.chosen.tolist(), part.images, strict=True):
            pixels = spec.pixels(image).unsqueeze(0)
            try:
                scores = ask(ran, pixels, prepare=spec.normalize, precision="fp32")
            except RefusedError as error:
                return skipped(PRECISION, f"with one image alone {error}")
            number += 1
            if given(scores)[0] != ran.predictions[position]:
                flipped.append((position, _lead(scores, int(ran.predictions[position]))))
    if not number:
        return skipped(PRECISION, "none of the images could be read again")
    low, high = (float(side) for side in wilson(len(flipped), number))
    figures = {
        "samples": number,
        "flips": len(flipped),
        "share_low": low,
        "share_high": high,
        "largest_lead": max((lead for _, lead in flipped), default=0.0),
        "flipped": [int(ran.positions[position]) for position, _ in flipped],
    }
    seen = (
        f"{len(flipped)} of {counted(number, 'prediction')} changed when the samples were run "
        f"again alone in fp32 (the run: {ran.precision}, batches of {ran.batch_size}; of all "
        f"{low:.2%} to {high:.2%})"
    )
    if not flipped:
        return Check(id=PRECISION, verdict="passed", evidence=seen, figures=figures)
    paths = [ran.source.paths[int(ran.positions[position])] for position, _ in flipped]
    return Check(
        id=PRECISION,
        verdict="warning",
        evidence=(
            f"{seen}: {some(paths, shown=SHOWN_FLIPS)}; in fp32 the new class leads by a score of "
            f"up to {figures['largest_lead']:.2g}"
        ),
        figures=figures,
    )


def _lead(scores: torch.Tensor, former: int) -> float:
    """Return by how much the highest score is above that of the former class."""
    return float(scores[0].max() - scores[0, former])


def _read_all(ran: Ran, spec: TransformSpec, size: int) -> Read:
    chosen = choose(ran, size)
    if not size:
        return Read(chosen=np.zeros(0, dtype=np.int64), images=[])
    return next(read(ran, chosen, spec.mode, size=size))


def _probabilities(ran: Ran, spec: TransformSpec, pixels: torch.Tensor) -> torch.Tensor:
    """Return something in [0, 1] for every score: what a softmax makes of it."""
    return ask(ran, pixels, prepare=spec.normalize, precision="fp32", is_one=True).softmax(1)


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the largest difference; NaN equals NaN."""
    return float((one - other).nan_to_num(0.0).abs().max())
