"""The batched loop: a model and batches -> what the model says of every sample."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from tqdm import tqdm

from evalkit.errors import InputError
from evalkit.hardware import choose_device, computing
from evalkit.outputs import per_sample, scores_of
from evalkit.wording import some

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Inputs = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """What a model says of N samples, in the order they came."""

    labels: Integers  # as given, shape (N,)
    top: Integers  # the most probable classes, best first, shape (N, min(5, C))
    confidence: Floats  # probability of the first of them, in [0, 1], shape (N,)
    label_probability: Floats  # probability of the label, in [0, 1], shape (N,)
    loss: Floats  # minus its natural logarithm, shape (N,)
    brier: Floats  # squared distance of the probabilities from the label, in [0, 2], shape (N,)
    not_finite: int  # samples with NaN or infinity among their scores
    gave_probabilities: bool  # the model ends in a softmax of its own
    seconds: float
    precision_flags: Mapping[str, Any]

    @property
    def predictions(self) -> Integers:
        """The class of every sample, shape (N,)."""
        return self.top[:, 0]

    def __len__(self) -> int:
        return len(self.labels)


def predict(
    model: nn.Module,
    batches: Iterable[Inputs],
    *,
    classes: Sequence[str] | None = None,
    device: str = "auto",
    precision: str = "fp32",
    prepare: Callable[[torch.Tensor], torch.Tensor] | None = None,
    total: int | None = None,
) -> Scored:
    """Run a model over batches, without gradients and in evaluation mode.

    The model may return logits or probabilities, as a tensor, first in a tuple, or in a dict.

    Args:
        model: Moved to *device*; its training mode is put back afterwards.
        batches: Pairs of inputs, shape (B, …), and labels, integers of shape (B,) that count the
            model's outputs from 0.
        classes: Names of the outputs; the model must give as many scores.
        device: "auto", "cpu", "cuda", "cuda:1", "mps" or "xpu".
        precision: "fp32", "tf32", "bf16" or "fp16", see `evalkit.hardware.computing`.
        prepare: Applied to the inputs on the device, such as ``TransformSpec.normalize``.
        total: Number of samples; with it a terminal sees a progress bar.

    Raises:
        InputError: There are no batches, the model fails on them, or what it returns are not
            scores of shape (B, C).

    Example:
        >>> model = nn.Linear(4, 3)
        >>> scored = predict(model, [(torch.ones(2, 4), torch.tensor([0, 2]))], device="cpu")
        >>> scored.top.shape, scored.confidence.shape
        ((2, 3), (2,))
    """
    where = choose_device(device)
    model = model.to(where)
    parts: list[tuple[torch.Tensor, ...]] = []
    started = time.perf_counter()
    with evaluating(model), torch.inference_mode(), computing(where, precision) as flags:
        for inputs, labels in _with_progress(batches, total):
            moved = inputs.to(where, non_blocking=True)
            output = _forward(model, moved if prepare is None else prepare(moved))
            scores = scores_of(output, rows=len(inputs), classes=classes)
            parts.append(per_sample(scores, labels.to(where, non_blocking=True)))
        if not parts:
            raise InputError("batches must hold at least one sample, got none")
        columns = [torch.cat(column).cpu() for column in zip(*parts, strict=True)]
    return _scored(columns, flags, time.perf_counter() - started)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every part of a model into evaluation mode, and back afterwards.

    Raises:
        InputError: A part stays in training mode, as one does that overrides ``train``.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    still = [name or type(model).__name__ for name, m in model.named_modules() if m.training]
    if still:
        raise InputError(
            f"model must be in evaluation mode after eval(), got training: {some(still)}"
        )
    try:
        yield
    finally:
        for module, was_training in modes:
            module.training = was_training


def _forward(model: nn.Module, inputs: torch.Tensor) -> object:
    try:
        return model(inputs)
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"batch size must fit into the memory of {inputs.device}, got {len(inputs)}: take a "
            "smaller one"
        ) from error
    except (RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"model must accept inputs of shape {tuple(inputs.shape)}, got {type(error).__name__} "
            f"from {type(model).__name__}: {reason}"
        ) from error


def _with_progress(batches: Iterable[Inputs], total: int | None) -> Iterator[Inputs]:
    hidden = None if total is not None else True  # None: where there is no terminal
    with tqdm(total=total, unit="img", desc="evaluate", disable=hidden, leave=False) as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch[0]))


def _scored(columns: list[torch.Tensor], flags: Mapping[str, Any], seconds: float) -> Scored:
    labels, top, finite, looks_like_probabilities, as_logits, as_probabilities = columns
    gave_probabilities = bool(looks_like_probabilities.all())
    chosen = (as_probabilities if gave_probabilities else as_logits).double().numpy()
    return Scored(
        labels=labels.numpy(),
        top=top.numpy(),
        confidence=chosen[:, 0],
        label_probability=chosen[:, 1],
        loss=chosen[:, 2],
        brier=chosen[:, 3],
        not_finite=int((~finite).sum()),
        gave_probabilities=gave_probabilities,
        seconds=seconds,
        precision_flags=flags,
    )
