"""A run's own images once more: a small sample, prepared and asked in another way."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from evalkit.errors import InputError
from evalkit.images.reading import UnreadableError
from evalkit.inference.forward import Forward
from evalkit.inference.hardware import choose_device, computing
from evalkit.inference.loop import evaluating
from evalkit.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from PIL.Image import Image
    from torch import nn

    from evalkit.data import Source

SEED = 0
Integers = npt.NDArray[np.int64]


class RefusedError(Exception):
    """The model gave no scores for these pixels; the message says why."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ran:
    """A finished run: the model, the samples, and what was said of them.

    Attributes:
        model: As it was evaluated.
        source: All samples.
        classes: Names of the model's outputs.
        positions: Of the evaluated samples in *source*, shape (N,).
        labels: Positions in *classes*, shape (N,).
        predictions: Positions in *classes*, shape (N,).
        device: As for `evalkit.inference.loop.predict`.
        precision: As for `evalkit.inference.loop.predict`.
        batch_size: No larger batch is made of samples.
        workers: Threads that decode.
    """

    model: nn.Module
    source: Source
    classes: tuple[str, ...]
    positions: Integers
    labels: Integers
    predictions: Integers
    device: str = "cpu"
    precision: str = "fp32"
    batch_size: int = 64
    workers: int = 1

    def __len__(self) -> int:
        return len(self.positions)


def choose(ran: Ran, size: int) -> Integers:
    """Return *size* of the N evaluated samples by chance, as positions from 0 to N - 1.

    Seeded, so that every repetition of a run asks the same; a larger sample begins with the
    smaller ones.
    """
    order = np.random.default_rng(SEED).permutation(len(ran))
    return order[:size].astype(np.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Read:
    """Samples that could be read again."""

    chosen: Integers  # as positions among the evaluated samples, shape (B,)
    images: Sequence[Image | torch.Tensor]


def read(ran: Ran, chosen: Integers, mode: str, *, size: int) -> Iterator[Read]:
    """Load samples again, at most *size* at a time; what has become unreadable is left out."""

    def load(position: int) -> Image | torch.Tensor | None:
        try:
            return ran.source.load(int(ran.positions[position]), mode).image
        except UnreadableError:
            return None

    with ThreadPoolExecutor(ran.workers, thread_name_prefix="check") as pool:
        for start in range(0, len(chosen), size):
            part = chosen[start : start + size]
            loaded = list(zip(part, pool.map(load, part), strict=True))
            kept = [(position, image) for position, image in loaded if image is not None]
            yield Read(
                chosen=np.array([position for position, _ in kept], dtype=np.int64),
                images=[image for _, image in kept],
            )


def ask(
    ran: Ran,
    inputs: torch.Tensor,
    *,
    prepare: Callable[[torch.Tensor], torch.Tensor],
    precision: str | None = None,
    altered: Callable[[nn.Module], AbstractContextManager[None]] | None = None,
    is_one: bool = False,
) -> torch.Tensor:
    """Return the model's scores for one batch, shape (B, C), float32, on the CPU.

    Args:
        ran: The run whose model is asked.
        inputs: Pixels, uint8, shape (B, C, H, W).
        prepare: From pixels to what the model sees, on its device.
        precision: As for `evalkit.inference.loop.predict`; None takes the run's.
        altered: Changes the model for the time of the question.
        is_one: Whether the batch must be computed as one. Else it is halved where memory does not
            do, as in the run.

    Raises:
        RefusedError: The model fails on these pixels, or memory does not do.
    """
    where = choose_device(ran.device)
    with ExitStack() as stack:
        stack.enter_context(evaluating(ran.model))
        stack.enter_context(torch.inference_mode())
        stack.enter_context(computing(where, precision or ran.precision))
        if altered is not None:
            stack.enter_context(altered(ran.model))
        seen = inputs.to(where)
        forward = Forward(model=ran.model, classes=ran.classes, prepare=prepare, with_scores=True)
        try:
            *_, scores = forward(seen, torch.zeros(len(seen), dtype=torch.int64, device=where))
        except InputError as error:
            raise RefusedError(str(error)) from error
        if is_one and forward.most is not None:
            what = f"{counted(len(seen), 'image')} at once"
            raise RefusedError(f"{what} need more memory than there is")
        return scores.cpu()


def given(scores: torch.Tensor) -> Integers:
    """Return the class with the highest score, the first of equal ones, shape (B,)."""
    found: Integers = scores.masked_fill(scores.isnan(), -torch.inf).argmax(1).numpy()
    return found
