"""A model made ready to learn, and the optimizer that it learns by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from evalkit.errors import InputError
from evalkit.training.freezing import freeze_backbone
from evalkit.training.groups import parameter_groups

if TYPE_CHECKING:
    from torch import nn

    from evalkit.training.recipe import Recipe


def shape(model: nn.Module, recipe: Recipe, device: torch.device) -> None:
    """Make of a model what is trained, in place.

    Raises:
        InputError: Statistics are to be synchronised where there are no GPUs.
    """
    if recipe.sync_batch_norm:
        if device.type == "cpu":
            raise InputError("sync_batch_norm needs GPUs, got cpu: leave it out")
        torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    if recipe.freeze_backbone:
        freeze_backbone(model)
    model.to(device)
    if recipe.compile:
        model.compile()


def optimizer_of(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Make the optimizer that a recipe names, with its rates and its decay for every group.

    Example:
        >>> from evalkit.training.recipe import Recipe
        >>> groups = optimizer_of(torch.nn.Linear(2, 2), Recipe(optimizer="sgd")).param_groups
        >>> [(group["lr"], group["weight_decay"], group["nesterov"]) for group in groups]
        [(0.001, 0.01, True), (0.001, 0.0, True)]
    """
    backbone = recipe.learning_rate if recipe.backbone_rate is None else recipe.backbone_rate
    groups = parameter_groups(
        model,
        head_lr=recipe.learning_rate,
        backbone_lr=backbone,
        weight_decay=recipe.weight_decay,
        head="" if recipe.backbone_rate is None else None,  # all of it: nothing to be found
    )
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=recipe.momentum, nesterov=recipe.momentum > 0)
    return torch.optim.AdamW(groups)
