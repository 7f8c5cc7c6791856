"""Validation: evalkit's own inference and scores on the samples that training does not see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evalkit.distributed import gathered
from evalkit.errors import InputError
from evalkit.images.audit import unreadable_error
from evalkit.images.batches import Audit, batches
from evalkit.inference.loop import predict
from evalkit.output_names import names_given
from evalkit.scoring.averages import averages
from evalkit.training.readable import find_unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import torch
    from torch import nn

    from evalkit.data import Source
    from evalkit.inference.loop import Inputs
    from evalkit.transforms import TransformSpec


@dataclass(frozen=True, kw_only=True)
class ValidationScores:
    """What a model is worth on N samples."""

    loss: float  # mean over samples
    accuracy: float  # fraction in [0, 1]
    macro_f1: float  # mean over the classes that occur, in [0, 1]
    samples: int


class ValidationBatches:
    """The samples of a `Source` as batches for `evalkit.predict`: this rank's share of them.

    Every sample is in exactly one share, and nothing is added to make them equally long.

    Raises:
        InputError: There are fewer samples than ranks; or, on the way, one cannot be read.
    """

    def __init__(
        self,
        source: Source,
        transform: TransformSpec,
        classes: Sequence[str] | Mapping[str, int],
        *,
        batch_size: int,
        workers: int,
        positions: Sequence[int] | None = None,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        wanted = range(len(source)) if positions is None else positions
        if len(wanted) < ranks:
            raise InputError(
                f"validation must have a sample for each of {ranks} processes, got {len(wanted)}"
            )
        self._source, self._transform, self._wanted = source, transform, wanted
        self._share = wanted[rank::ranks]
        self._outputs = {name: output for output, name in enumerate(names_given(classes))}
        self._batch_size, self._workers = batch_size, workers

    def __iter__(self) -> Iterator[Inputs]:
        audit = Audit()
        for batch in batches(
            self._source,
            self._transform,
            self._outputs,
            batch_size=self._batch_size,
            workers=self._workers,
            audit=audit,
            positions=self._share,
        ):
            if len(batch.labels):  # all of it may be unreadable
                yield batch.pixels, batch.labels
        if audit.unreadable:
            found = find_unreadable(self._source, self._wanted, self._transform.mode)
            raise unreadable_error(found, samples=len(self._wanted), name=self._source.name)


def validate(
    model: nn.Module,
    validation: Iterable[Inputs],
    *,
    classes: Sequence[str] | None = None,
    device: str = "auto",
    precision: str = "fp32",
    prepare: Callable[[torch.Tensor], torch.Tensor] | None = None,
    channels_last: bool | None = None,
) -> ValidationScores:
    """Score a model; under torchrun all ranks together, and each gets the result.

    Args:
        model: See `evalkit.predict`.
        validation: This rank's batches of inputs and labels.
        classes: Names of the outputs; the model must give as many scores.
        device: See `evalkit.predict`.
        precision: See `evalkit.predict`.
        prepare: See `evalkit.predict`.
        channels_last: See `evalkit.predict`.

    Raises:
        InputError: There are no samples, or as for `evalkit.predict`.

    Example:
        >>> import torch
        >>> batches = [(torch.eye(3), torch.tensor([0, 1, 1]))]
        >>> scores = validate(torch.nn.Identity(), batches, device="cpu")
        >>> round(scores.accuracy, 3), round(scores.macro_f1, 3), scores.samples
        (0.667, 0.556, 3)
    """
    scored = predict(
        model,
        validation,
        classes=classes,
        device=device,
        precision=precision,
        prepare=prepare,
        channels_last=channels_last,
    )
    shares = gathered((scored.labels, scored.predictions, scored.loss))
    labels, predictions, losses = (np.concatenate(column) for column in zip(*shares, strict=True))
    size = max(labels.max(), predictions.max()) + 1
    support = np.bincount(labels, minlength=size)
    predicted = np.bincount(predictions, minlength=size)
    hits = np.bincount(labels[labels == predictions], minlength=size)
    found = averages(hits, support, predicted, rule="scikit-learn")
    return ValidationScores(
        loss=float(losses.mean()),
        accuracy=float((labels == predictions).mean()),
        macro_f1=float(found["macro.f1"]),
        samples=len(labels),
    )
