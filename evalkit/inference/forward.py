"""One batch through a model: laid out as the device likes it, split where memory does not do."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from evalkit.errors import InputError
from evalkit.inference.hardware import free_cached_memory, is_out_of_memory
from evalkit.inference.layout import Layout, takes_channels_last
from evalkit.inference.outputs import per_sample, refuse_strange_labels, scores_of
from evalkit.user_code import told

Packed = tuple[torch.Tensor, ...]


@dataclass(kw_only=True)
class Forward:
    """Runs a model on batches, and remembers how many samples fit into memory.

    Attributes:
        model: In evaluation mode, on the device of the batches.
        classes: Names of its outputs, or None.
        prepare: From a batch as it was read to what the model sees, or None.
        with_scores: Whether the scores of all classes are kept.
        layout: How model and images lie in memory.
        padded: Whether short batches are filled up to the length of the first one, so that a
            compiled model sees one shape; what fills them is cut off again.
        most: How many samples fit, once more did not.
    """

    model: Callable[[torch.Tensor], object]
    classes: Sequence[str] | None = None
    prepare: Callable[[torch.Tensor], torch.Tensor] | None = None
    with_scores: bool = False
    layout: Layout = field(default_factory=Layout)
    padded: bool = False
    most: int | None = None
    _full: int = 0  # samples in the longest batch so far

    @classmethod
    @contextmanager
    def on(
        cls,
        model: nn.Module,
        *,
        classes: Sequence[str] | None,
        prepare: Callable[[torch.Tensor], torch.Tensor] | None,
        channels_last: bool,
        compiled: bool,
        with_scores: bool,
    ) -> Iterator[Forward]:
        """Lay a model out, compiled on request, and as it lay before afterwards."""
        layout = Layout(model)
        if channels_last:
            layout.turn()
        try:
            yield cls(
                model=torch.compile(model, dynamic=False) if compiled else model,
                classes=classes,
                prepare=prepare,
                with_scores=with_scores,
                layout=layout,
                padded=compiled,
            )
        finally:
            layout.leave()

    def __call__(self, inputs: torch.Tensor, labels: torch.Tensor) -> Packed:
        """Return what is kept of a batch, see `evalkit.inference.outputs.per_sample`.

        A batch that does not fit into memory is halved until its parts do; later batches are cut
        to that size at once. Parts are put together in order, each sample once.

        Raises:
            InputError: Not even one sample fits, or the model fails otherwise.
        """
        self._full = max(self._full, len(inputs))
        waiting = deque([(inputs, labels)])
        parts: list[Packed] = []
        while waiting:
            some_inputs, some_labels = waiting.popleft()
            if self.most is not None and len(some_inputs) > self.most:
                pieces = [torch.split(one, self.most) for one in (some_inputs, some_labels)]
                waiting.extendleft(reversed(list(zip(*pieces, strict=True))))
                continue
            packed = self._attempt(some_inputs, some_labels)
            if packed is None:
                self._make_smaller(some_inputs)
                waiting.appendleft((some_inputs, some_labels))
            else:
                parts.append(packed)
        return parts[0] if len(parts) == 1 else tuple(map(torch.cat, zip(*parts, strict=True)))

    def _make_smaller(self, inputs: torch.Tensor) -> None:
        if len(inputs) == 1:
            raise InputError(
                f"a sample of shape {tuple(inputs.shape[1:])} must fit into the memory of "
                f"{inputs.device}, got a model that needs more for one alone: free memory there, "
                "or take another device"
            )
        self.most = (len(inputs) + 1) // 2
        free_cached_memory(inputs.device)

    def _attempt(self, inputs: torch.Tensor, labels: torch.Tensor) -> Packed | None:
        """Return what is kept of a batch, or None where memory did not do."""
        try:
            seen = self._as_seen(inputs)
            output = self._asked(seen)
            scores = scores_of(output, rows=len(seen), classes=self.classes)
            refuse_strange_labels(labels, outputs=scores.shape[1])
            if scores.untyped_storage().data_ptr() == seen.untyped_storage().data_ptr():
                scores = scores.clone()  # the memory of what it saw may be used again
            return per_sample(scores[: len(inputs)], labels, with_scores=self.with_scores)
        except InputError:
            raise
        except (RuntimeError, TypeError, ValueError) as error:
            if is_out_of_memory(error):
                return None  # what it held goes with the error, before another attempt
            raise InputError(self._complaint(inputs, error)) from error

    def _asked(self, seen: torch.Tensor) -> object:
        """Return what the model says, which is anybody's code and may raise anything.

        Raises:
            InputError: It raised what is no question of memory.
        """
        try:
            return self.model(seen)
        except (InputError, RuntimeError):
            raise
        except Exception as error:
            raise InputError(self._complaint(seen, error)) from error

    def _as_seen(self, inputs: torch.Tensor) -> torch.Tensor:
        inputs = self.layout.of(inputs)
        if self.padded:
            length = min(self._full, self.most or self._full)
            missing = length - len(inputs)
            if missing > 0:
                filling = inputs[-1:].expand(missing, *inputs.shape[1:])
                inputs = torch.cat([inputs, filling])
        return inputs if self.prepare is None else self.prepare(inputs)

    def _complaint(self, inputs: torch.Tensor, error: Exception) -> str:
        if self.padded and _is_of_the_compiler(error):
            return f"model must compile to run compiled, got {told(error)}: leave compile out"
        model: Any = self.model
        name = type(getattr(model, "_orig_mod", model)).__name__
        return f"model {name} must accept inputs of shape {tuple(inputs.shape)}, got {told(error)}"


def _is_of_the_compiler(error: Exception) -> bool:
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))


def chooses_channels_last(
    model: nn.Module,
    inputs: torch.Tensor,
    *,
    classes: Sequence[str] | None = None,
    prepare: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> bool:
    """Whether a model shall run with its channels innermost, by two samples of a batch.

    Args:
        model: In evaluation mode, on the device of the batch; not compiled.
        inputs: A batch as it was read.
        classes: See `Forward`.
        prepare: See `Forward`.
    """

    def compute(images: torch.Tensor) -> torch.Tensor:
        seen = images if prepare is None else prepare(images)
        return scores_of(model(seen), rows=len(seen), classes=classes)

    return takes_channels_last(model, inputs, compute)


def find_batch_size(
    forward: Forward, sample: torch.Tensor, label: torch.Tensor, *, largest: int
) -> int:
    """Return how many samples to take at once, by trying ever more until memory does not do.

    Args:
        forward: Runs them.
        sample: One, shape (1, …), on the device.
        label: Its label, shape (1,).
        largest: No more than so many.

    Raises:
        InputError: Not even one fits, or the model fails otherwise.
    """
    size = 1
    while size < largest:
        larger = min(2 * size, largest)
        forward(sample.expand(larger, *sample.shape[1:]), label.expand(larger))
        if forward.most is not None:
            return forward.most
        size = larger
    return size
