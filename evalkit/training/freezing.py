"""Everything but the head kept as it is, batch-norm statistics included."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from evalkit.training.heads import find_head, module_named

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn


def freeze_backbone(model: nn.Module, *, head: str | None = None) -> tuple[str, ...]:
    """Keep everything but the head as it is while the head is trained.

    Parameters outside the head get ``requires_grad = False``. A layer there that keeps running
    statistics (batch norm; instance norm where it tracks them) is put into evaluation mode *and
    stays there*: its own method ``train`` is replaced by one that ignores the call, so that
    ``model.train()`` at the start of an epoch leaves it normalising with the statistics that it
    has. Copies of the model (``copy.deepcopy``, pickling, the EMA's) stay frozen too. What is made
    anew does not: convert to ``nn.SyncBatchNorm`` before. Dropout outside the head goes on
    dropping in training; it changes nothing that lasts.

    Args:
        model: Any classifier.
        head: Name of the layer that goes on learning, where it cannot be found (see `find_head`)
            or more than the last layer is meant, such as "classifier".

    Returns:
        Names of the parameters that were trainable and are not any more; `unfreeze` takes them.

    Raises:
        InputError: The head cannot be found.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
        >>> freeze_backbone(model)
        ('0.weight', '0.bias', '1.weight', '1.bias')
        >>> model.train()(torch.randn(16, 4)).shape
        torch.Size([16, 2])
        >>> model[1].running_mean.abs().sum().item()
        0.0
    """
    names = find_head(model).modules if head is None else (head,)
    learning = {part for name in names for part in module_named(model, name).modules()}
    kept = {parameter for module in learning for parameter in module.parameters(recurse=False)}
    frozen = []
    for name, parameter in model.named_parameters():
        if parameter not in kept and parameter.requires_grad:
            parameter.requires_grad = False
            frozen.append(name)
    for module in set(model.modules()) - learning:
        if _keeps_statistics(module):
            module.eval()
            module.train = partial(_stay, module)  # type: ignore[method-assign]
    return tuple(frozen)


def unfreeze(model: nn.Module, *, parameters: Iterable[str] | None = None) -> None:
    """Let everything learn again that `freeze_backbone` froze.

    Args:
        model: What was frozen, or a copy of it.
        parameters: Names of the parameters that are to be trainable, as `freeze_backbone`
            returned them. None makes all of them so.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
        >>> unfreeze(model, parameters=freeze_backbone(model))
        >>> all(p.requires_grad for p in model.parameters()), model[1].training
        (True, True)
    """
    chosen = None if parameters is None else set(parameters)
    for name, parameter in model.named_parameters():
        if (chosen is None or name in chosen) and parameter.is_floating_point():
            parameter.requires_grad_()
    for module in model.modules():
        own = vars(module).get("train")
        if isinstance(own, partial) and own.func is _stay:
            del module.train
            module.train(model.training)


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:  # noqa: ARG001, FBT001, FBT002
    """Stand in for ``module.train``: nothing changes."""
    return module


def _keeps_statistics(module: nn.Module) -> bool:
    return getattr(module, "running_mean", None) is not None
