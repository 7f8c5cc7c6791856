"""What only running the model can tell: how it is best laid out, and how many samples fit."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch

from evalkit.images.reading import UnreadableError
from evalkit.inference.forward import Forward, chooses_channels_last, find_batch_size
from evalkit.inference.hardware import choose_device, computing, free_cached_memory
from evalkit.inference.layout import pays_channels_last
from evalkit.inference.loop import evaluating

if TYPE_CHECKING:
    from collections.abc import Iterator

    from evalkit.run.plan import Plan

ON_CPU = 32  # more do not make it faster, and fewer are better shared among its cores
LARGEST = 1_024  # more do not fill a GPU any better
LOOKED_AT = 100  # samples, to find one that can be read


def choose_layout(plan: Plan) -> bool:
    """Return whether model and images get their channels innermost, by trying it.

    Raises:
        InputError: The model stays in training mode.
    """
    where = choose_device(plan.computation.device)
    pixels = _first_pixels(plan) if pays_channels_last(plan.model, where) else None
    if pixels is None:
        return False
    mirrored = pixels.flip(-1)  # so that two images are tried, of one shape
    with _at_rest(plan, where):
        return chooses_channels_last(
            plan.model,
            torch.stack([pixels, mirrored]).to(where),
            classes=plan.classes,
            prepare=plan.transform.normalize,
        )


def choose_batch_size(plan: Plan) -> int:
    """Return a size that the device has the memory for, by trying it.

    Raises:
        InputError: Not even one sample fits, or the model fails otherwise.
    """
    where = choose_device(plan.computation.device)
    pixels = _first_pixels(plan) if where.type in {"cuda", "xpu"} else None
    if pixels is None:
        return min(ON_CPU, len(plan.source))
    with _at_rest(plan, where) as stack:
        forward = stack.enter_context(
            Forward.on(
                plan.model,
                classes=plan.classes,
                prepare=plan.transform.normalize,
                channels_last=bool(plan.computation.channels_last),
                compiled=False,
                with_scores=plan.computation.scores,
            )
        )
        stack.enter_context(torch.inference_mode())
        found = find_batch_size(
            forward,
            pixels.unsqueeze(0).to(where),
            torch.zeros(1, dtype=torch.int64, device=where),
            largest=min(LARGEST, len(plan.source)),
        )
    free_cached_memory(where)
    return found


@contextmanager
def _at_rest(plan: Plan, where: torch.device) -> Iterator[ExitStack]:
    """Have the model of a plan ready to be run, as in the run itself."""
    with ExitStack() as stack:
        stack.enter_context(computing(where, plan.computation.precision))
        stack.enter_context(evaluating(plan.model.to(where)))
        yield stack


def _first_pixels(plan: Plan) -> torch.Tensor | None:
    """The first sample that can be read, shape (C, H, W), uint8, or None."""
    for position in range(min(LOOKED_AT, len(plan.source))):
        try:
            loaded = plan.source.load(position, plan.transform.mode)
        except UnreadableError:
            continue
        return plan.transform.pixels(loaded.image)
    return None
