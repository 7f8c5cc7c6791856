"""Batch norm: whether its running statistics were ever learned, and how it does without them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch.nn.modules.batchnorm import _BatchNorm

from evalkit.checks.finding import Check, skipped
from evalkit.wording import counted, some

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

BATCH_NORM = "batch-norm"
LEAST_BATCH = 16  # with fewer samples the mean and variance of a batch say little


def layers(model: nn.Module) -> dict[str, _BatchNorm]:
    """Return the batch norm layers of a model by name.

    Example:
        >>> from torch import nn
        >>> list(layers(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))))
        ['1']
    """
    return {name: one for name, one in model.named_modules() if isinstance(one, _BatchNorm)}


def check_state(model: nn.Module) -> Check | None:
    """Ask the layers themselves; return None where only a trial can tell.

    Example:
        >>> from torch import nn
        >>> check_state(nn.Sequential(nn.BatchNorm2d(4))).verdict
        'warning'
    """
    found = layers(model)
    if not found:
        return skipped(BATCH_NORM, "the model has no batch norm")
    untracked = [name for name, one in found.items() if one.running_mean is None]
    if untracked:
        return Check(
            id=BATCH_NORM,
            verdict="warning",
            evidence=(
                f"{counted(len(untracked), 'batch norm layer')} of {len(found)} "
                f"({some(untracked, shown=3)}) keep no running statistics: predictions depend on "
                "which images share a batch; build the model with track_running_stats"
            ),
            figures={"layers": len(found), "untracked": len(untracked)},
        )
    if all(_is_fresh(one) for one in found.values()):
        return Check(
            id=BATCH_NORM,
            verdict="warning",
            evidence=(
                f"the running statistics of all {counted(len(found), 'batch norm layer')} are as "
                "they are made, mean 0 and variance 1: the model was never trained, or they were "
                "not saved; save the whole state_dict, with its buffers"
            ),
            figures={"layers": len(found), "fresh": len(found)},
        )
    return None


def _is_fresh(layer: _BatchNorm) -> bool:
    mean, variance = layer.running_mean, layer.running_var
    return (
        mean is not None
        and variance is not None
        and not bool(mean.any())
        and bool((variance == 1).all())
    )


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Let batch norm use the mean and variance of each batch; nothing in the model changes."""
    before = [(one, one.training, one.track_running_stats) for one in layers(model).values()]
    try:
        for one, _, _ in before:
            one.training, one.track_running_stats = True, False  # neither read nor updated
        yield
    finally:
        for one, training, tracking in before:
            one.training, one.track_running_stats = training, tracking
