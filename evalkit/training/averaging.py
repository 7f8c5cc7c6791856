"""The exponential moving average of a model's weights, torch's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from evalkit.errors import InputError

if TYPE_CHECKING:
    from torch import nn


def averaged_model(model: nn.Module, *, decay: float = 0.999) -> AveragedModel:
    """Make the moving average of a model's parameters and buffers (batch-norm statistics too).

    ``average.update_parameters(model)`` after every step; evaluate ``average.module``. The first
    update copies the model. Integer buffers, such as counters, follow by truncation.

    Args:
        model: Stays as it is; a copy is made, on the same device.
        decay: Share of the average that a step leaves, in (0, 1): 0.999 looks back about a
            thousand steps.

    Raises:
        InputError: *decay* is not in (0, 1).

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> average = averaged_model(model, decay=0.9)
        >>> for value in (1.0, 2.0):
        ...     _ = torch.nn.init.constant_(model.weight, value)
        ...     average.update_parameters(model)
        >>> round(average.module.weight.item(), 6)
        1.1
    """
    if not 0 < decay < 1:
        raise InputError(f"decay must be in (0, 1), got {decay}")
    ema = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(model, multi_avg_fn=ema, use_buffers=True)
