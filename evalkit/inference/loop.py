"""The batched loop: a model and batches -> what the model says of every sample."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn
from tqdm import tqdm

from evalkit.errors import InputError
from evalkit.inference.forward import Forward, chooses_channels_last
from evalkit.inference.hardware import choose_device, computing
from evalkit.inference.outputs import Floats, Integers, Rows, require_names
from evalkit.inference.transfer import downloads, uploaded
from evalkit.wording import some

if TYPE_CHECKING:
    from collections.abc import Iterator

Inputs = tuple[torch.Tensor, torch.Tensor]
Key = TypeVar("Key")
PAIR = 2  # inputs and labels
WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """What a model says of N samples, in the order they came."""

    labels: Integers  # as given, shape (N,)
    top: Integers  # the most probable classes, best first, shape (N, min(5, C))
    confidence: Floats  # probability of the first of them, in [0, 1], shape (N,)
    label_probability: Floats  # probability of the label, in [0, 1], shape (N,)
    loss: Floats  # minus its natural logarithm, shape (N,)
    brier: Floats  # squared distance of the probabilities from the label, in [0, 2], shape (N,)
    not_finite: int  # samples with NaN or infinity among their scores, or minus infinity for all
    tied: int  # samples whose best score two classes or more have
    gave_probabilities: bool  # the model ends in a softmax of its own
    seconds: float
    precision_flags: Mapping[str, Any]

    @property
    def predictions(self) -> Integers:
        """The class of every sample, shape (N,)."""
        return self.top[:, 0]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True)
class Computation:
    """How a model is run over batches.

    Attributes:
        device: "auto", "cpu", "cuda", "cuda:1", "mps" or "xpu".
        precision: "fp32", "tf32", "bf16" or "fp16", see `evalkit.inference.hardware.computing`.
        compiled: Whether `torch.compile` comes first; batches are then padded to one length.
        channels_last: Whether the channels of model and images lie innermost. None tries it with
            the first batch, and does it where that is faster and the scores are the same.
        scores: Whether the scores of all classes are kept.
    """

    device: str = "auto"
    precision: str = "fp32"
    channels_last: bool | None = None
    compiled: bool = False
    scores: bool = False


USUAL = Computation()


def predict(
    model: nn.Module,
    batches: Iterable[Inputs],
    *,
    classes: Sequence[str] | None = None,
    device: str = "auto",
    precision: str = "fp32",
    prepare: Callable[[torch.Tensor], torch.Tensor] | None = None,
    channels_last: bool | None = None,
    total: int | None = None,
) -> Scored:
    """Run a model over batches, without gradients and in evaluation mode.

    The model may return logits or probabilities, as a tensor, first in a tuple, or in a dict. A
    batch that does not fit into memory is split; nothing of it is lost or counted twice.

    Args:
        model: Moved to *device*; its training mode is put back afterwards.
        batches: Pairs of inputs, shape (B, …), and labels, integers of shape (B,) that count the
            model's outputs from 0; tensors, or what torch makes one of.
        classes: Names of the outputs; the model must give as many scores.
        device: "auto", "cpu", "cuda", "cuda:1", "mps" or "xpu".
        precision: "fp32", "tf32", "bf16" or "fp16", see `evalkit.inference.hardware.computing`.
        prepare: Applied to the inputs on the device, such as ``TransformSpec.normalize``.
        channels_last: Whether the channels of model and images lie innermost; None finds out what
            is faster with the same scores, see `Computation`.
        total: Number of samples; with it a terminal sees a progress bar.

    Raises:
        InputError: There are no batches, one is no such pair, *classes* are no names, the model
            fails on the batches, or what it returns are not scores of shape (B, C).

    Example:
        >>> model = nn.Linear(4, 3)
        >>> scored = predict(model, [(torch.ones(2, 4), torch.tensor([0, 2]))], device="cpu")
        >>> scored.top.shape, scored.confidence.shape
        ((2, 3), (2,))
    """
    parts: list[Rows] = []
    started = time.perf_counter()
    with progress(total) as advance:

        def deliver(_key: None, rows: Rows) -> None:
            parts.append(rows)
            advance(len(rows))

        flags = run_over(
            model,
            ((None, *_pair(batch)) for batch in batches),
            deliver,
            classes=classes,
            how=Computation(device=device, precision=precision, channels_last=channels_last),
            prepare=prepare,
        )
    if not parts:
        raise InputError("batches must hold at least one sample, got none")
    return _scored(Rows.joined(parts), flags, time.perf_counter() - started)


def _pair(batch: Any) -> Inputs:
    """Return a batch of anybody's as inputs and labels.

    Raises:
        InputError: It is no pair, or its labels are no positions.
    """
    if not isinstance(batch, tuple | list) or len(batch) != PAIR:
        got = f"a {type(batch).__name__}"
        got += f" of {len(batch)}" if isinstance(batch, tuple | list | dict) else ""
        raise InputError(f"batches must be pairs of inputs and labels, got {got}")
    try:
        inputs, labels = (torch.as_tensor(one) for one in batch)
    except (TypeError, ValueError, RuntimeError) as error:
        kinds = " and ".join(type(one).__name__ for one in batch)
        raise InputError(
            f"batches must be pairs of inputs and labels that torch makes tensors of, got {kinds}: "
            f"{' '.join(str(error).split())}"
        ) from error
    if not inputs.ndim:
        raise InputError("inputs must have the shape (B, …), got a single number")
    if labels.dtype not in WHOLE or labels.shape != inputs.shape[:1]:
        raise InputError(
            f"labels must be whole numbers of shape ({len(inputs)},), the positions of the model's "
            f"outputs, got {labels.dtype} of shape {tuple(labels.shape)}"
        )
    return inputs, labels.long()


def run_over(
    model: nn.Module,
    batches: Iterable[tuple[Key, torch.Tensor, torch.Tensor]],
    deliver: Callable[[Key, Rows], None],
    *,
    classes: Sequence[str] | None = None,
    how: Computation = USUAL,
    prepare: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> dict[str, Any]:
    """Run a model over batches and deliver what it says of each, in order.

    On a GPU the copy of a batch, the work on the one before it and the copy of the results of
    those before that go on at the same time; nothing waits for a batch that has just been given.

    Args:
        model: Moved to the device; its training mode is put back afterwards.
        batches: Key, inputs and labels of each, see `predict`.
        deliver: Called with a key and the results of its batch, one to three batches later.
        classes: As for `predict`.
        how: Where and how exactly.
        prepare: As for `predict`.

    Returns:
        The flags that decide how exact the results are.

    Raises:
        InputError: As for `predict`, but no batches are no fault.
    """
    if classes is not None:
        require_names(classes)
    where = choose_device(how.device)
    with ExitStack() as stack:
        flags = stack.enter_context(computing(where, how.precision))
        stack.enter_context(evaluating(model.to(where)))
        arriving = uploaded(batches, where)
        innermost = how.channels_last
        if innermost is None:
            innermost, arriving = _tried_with_first(
                arriving,
                lambda inputs: chooses_channels_last(
                    model, inputs, classes=classes, prepare=prepare
                ),
            )
        forward = stack.enter_context(
            Forward.on(
                model,
                classes=classes,
                prepare=prepare,
                channels_last=innermost,
                compiled=how.compiled,
                with_scores=how.scores,
            )
        )
        stack.enter_context(torch.inference_mode())  # after: weights laid out in it cannot learn
        results = downloads(where, deliver)
        for key, inputs, labels in arriving:
            results.add(key, forward(inputs, labels))
        results.finish()
    return {**flags, "compiled": how.compiled, "channels_last": innermost}


def _tried_with_first(
    batches: Iterator[tuple[Key, torch.Tensor, torch.Tensor]],
    chooses: Callable[[torch.Tensor], bool],
) -> tuple[bool, Iterator[tuple[Key, torch.Tensor, torch.Tensor]]]:
    """Ask about the first batch; return the answer and all batches, without keeping any."""
    first = list(islice(batches, 1))
    chosen = any(chooses(inputs) for _key, inputs, _labels in first)
    return chosen, chain(first, batches)


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


def hidden_unless(wanted: bool) -> bool | None:  # noqa: FBT001 - it is the question itself
    """Return what tqdm calls ``disable``: a bar is for terminals, and where one is wanted.

    Example:
        >>> hidden_unless(False), hidden_unless(True)
        (True, None)
    """
    return None if wanted and sys.stderr is not None else True


@contextmanager
def progress(
    total: int | None, *, done: int = 0, what: str = "evaluate"
) -> Iterator[Callable[[int], object]]:
    """Show a terminal how far it is, how fast it goes and how long it takes; be quiet elsewhere.

    Args:
        total: Number of samples; None shows nothing.
        done: How many of them were there before.
        what: In front of the bar.

    Yields:
        A function to call with the number of further samples.
    """
    hidden = hidden_unless(total is not None)
    with tqdm(total=total, initial=done, unit="img", desc=what, disable=hidden, leave=False) as bar:
        yield bar.update


def _scored(rows: Rows, flags: Mapping[str, Any], seconds: float) -> Scored:
    gave_probabilities = bool(rows.like_probabilities.all())
    chosen = rows.as_probabilities if gave_probabilities else rows.as_logits
    return Scored(
        labels=rows.labels,
        top=rows.top,
        confidence=chosen[:, 0],
        label_probability=chosen[:, 1],
        loss=chosen[:, 2],
        brier=chosen[:, 3],
        not_finite=int((~rows.finite).sum()),
        tied=int(rows.tied.sum()),
        gave_probabilities=gave_probabilities,
        seconds=seconds,
        precision_flags=flags,
    )
