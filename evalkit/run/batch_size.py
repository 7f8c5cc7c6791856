"""How many samples go through a model at once, where nobody says it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch

from evalkit.images.reading import UnreadableError
from evalkit.inference.forward import Forward, find_batch_size
from evalkit.inference.hardware import choose_device, computing, free_cached_memory
from evalkit.inference.loop import evaluating

if TYPE_CHECKING:
    from evalkit.run.plan import Plan

ON_CPU = 32  # more do not make it faster, and fewer are better shared among its cores
LARGEST = 1_024  # more do not fill a GPU any better
TRIED = 100  # samples, to find one that can be read


def choose_batch_size(plan: Plan) -> int:
    """Return a size that the device has the memory for, by trying it.

    Raises:
        InputError: Not even one sample fits, or the model fails otherwise.
    """
    where = choose_device(plan.computation.device)
    pixels = _first_pixels(plan) if where.type in {"cuda", "xpu"} else None
    if pixels is None:
        return min(ON_CPU, len(plan.source))
    with ExitStack() as stack:
        stack.enter_context(computing(where, plan.computation.precision))
        stack.enter_context(evaluating(plan.model.to(where)))
        forward = stack.enter_context(
            Forward.on(
                where,
                plan.model,
                classes=plan.classes,
                prepare=plan.transform.normalize,
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


def _first_pixels(plan: Plan) -> torch.Tensor | None:
    for position in range(min(TRIED, len(plan.source))):
        try:
            loaded = plan.source.load(position, plan.transform.mode)
        except UnreadableError:
            continue
        return plan.transform.pixels(loaded.image)
    return None
