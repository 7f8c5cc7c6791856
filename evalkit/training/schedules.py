"""How the learning rate goes up at the start and down afterwards, by torch's own schedulers."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from torch.optim import lr_scheduler

from evalkit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.optim import Optimizer

_AFTERWARDS: dict[str, Callable[[Optimizer, int], lr_scheduler.LRScheduler]] = {
    "constant": lambda optimizer, steps: lr_scheduler.ConstantLR(optimizer, 1.0, steps),
    "cosine": lr_scheduler.CosineAnnealingLR,
    "linear": lambda optimizer, steps: lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps),
    "step": lambda optimizer, steps: lr_scheduler.StepLR(optimizer, max(1, steps // 3), 0.1),
}
SCHEDULES = tuple(_AFTERWARDS)
WARM_UP_START = 0.01  # share of the rate that the first step has, as in torchvision's references


def schedule(
    optimizer: Optimizer, name: str = "cosine", *, steps: int, warm_up: int = 0
) -> lr_scheduler.LRScheduler:
    """Make a schedule that is stepped after every batch.

    Every parameter group keeps its own rate as the highest one.

    Args:
        optimizer: Whose rates it changes.
        name: What comes after the warm-up: "constant", "cosine" (half a period, down to 0),
            "linear" (down to 0) or "step" (a tenth after each third).
        steps: Updates of the weights in the whole training, warm-up included.
        warm_up: How many of them the rate rises in a line, from 0.01 of itself.

    Raises:
        InputError: The name is unknown, or *warm_up* is not from 0 to *steps* - 1.

    Example:
        >>> import torch
        >>> sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> plan = schedule(sgd, "cosine", steps=6, warm_up=2)
        >>> rates = []
        >>> for _ in range(6):
        ...     rates.append(round(plan.get_last_lr()[0], 3))
        ...     sgd.step()
        ...     plan.step()
        >>> rates
        [0.01, 0.505, 1.0, 0.854, 0.5, 0.146]
    """
    if name not in _AFTERWARDS:
        raise InputError(f"schedule must be one of {', '.join(SCHEDULES)}, got '{name}'")
    if not 0 <= warm_up < steps:
        raise InputError(
            f"warm_up must be from 0 to one below steps, got {warm_up} of {steps} steps"
        )
    if not warm_up:
        return _AFTERWARDS[name](optimizer, steps)
    rise = lr_scheduler.LinearLR(optimizer, WARM_UP_START, 1.0, warm_up)
    afterwards = _AFTERWARDS[name](optimizer, steps - warm_up)
    return _OneAfterAnother(optimizer, [rise, afterwards], [warm_up])


class _OneAfterAnother(lr_scheduler.SequentialLR):
    """Torch's own, without the warning that it gives of itself when the second schedule begins."""

    def step(self) -> None:  # type: ignore[override]
        if self.last_epoch + 1 not in self._milestones:
            return super().step()
        with warnings.catch_warnings():  # torch before 2.8 calls what it has deprecated
            warnings.filterwarnings("ignore", "The epoch parameter in `scheduler.step")
            return super().step()
