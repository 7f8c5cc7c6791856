"""The training loop: one record per epoch, read from top to bottom."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from evalkit.errors import InputError
from evalkit.hardware import choose_device
from evalkit.inference import predict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from evalkit.inference import Inputs


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """What one pass over the training samples came to."""

    epoch: int  # from 1
    learning_rate: float  # of the first parameter group, at the end of the epoch
    train_loss: float  # mean over samples, while the weights were changing
    validation_loss: float  # mean over samples
    validation_accuracy: float  # fraction in [0, 1]
    samples_per_second: float  # of training alone
    seconds: float  # training and validation


def fit(
    model: nn.Module,
    train: Iterable[Inputs],
    *,
    validation: Iterable[Inputs],
    optimizer: Optimizer,
    epochs: int,
    schedule: LRScheduler | None = None,
    device: str = "cpu",
) -> Iterator[EpochRecord]:
    """Train *model*, in place, and yield a record after every epoch.

    The loop runs as far as its records are asked for: stop asking, and it has stopped.

    Args:
        model: Returns logits of shape (B, C). Must be on *device* when *optimizer* is made.
        train: Batches of inputs, shape (B, …), and labels, int64, shape (B,); gone through once
            per epoch. A DataLoader that shuffles gives another order every time.
        validation: Batches of the same kind.
        optimizer: Over the parameters of *model*.
        epochs: How many.
        schedule: Changes the learning rate after every batch.
        device: See `evalkit.hardware.choose_device`.

    Raises:
        InputError: The loss is not finite any more, or there are no training samples.

    Example:
        >>> model = nn.Linear(4, 2)
        >>> batch = torch.ones(8, 4), torch.zeros(8, dtype=torch.int64)
        >>> sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> records = list(fit(model, [batch], validation=[batch], optimizer=sgd, epochs=20))
        >>> len(records), records[-1].validation_accuracy
        (20, 1.0)
    """
    where = choose_device(device)
    for epoch in range(1, epochs + 1):
        started = time.perf_counter()
        model.train()
        total_loss, samples = torch.zeros((), device=where), 0
        for inputs, labels in train:
            optimizer.zero_grad(set_to_none=True)
            loss = functional.cross_entropy(model(inputs.to(where)), labels.to(where))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if schedule is not None:
                schedule.step()
            total_loss += loss.detach() * len(inputs)
            samples += len(inputs)
        train_loss = total_loss.item() / samples if samples else float("nan")
        if not torch.isfinite(torch.tensor(train_loss)):
            raise InputError(
                f"training must have samples and a finite loss, got {train_loss} over {samples} "
                f"samples in epoch {epoch}: lower the learning rate, or look at the data"
            )
        trained = time.perf_counter()
        scored = predict(model, validation, device=device)
        yield EpochRecord(
            epoch=epoch,
            learning_rate=float(optimizer.param_groups[0]["lr"]),
            train_loss=train_loss,
            validation_loss=float(scored.loss.mean()),
            validation_accuracy=float((scored.predictions == scored.labels).mean()),
            samples_per_second=samples / (trained - started),
            seconds=time.perf_counter() - started,
        )
