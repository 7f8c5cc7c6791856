"""Parameters in groups: rates for head and backbone, no weight decay on norms and biases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evalkit.errors import InputError
from evalkit.training.heads import find_head, module_named
from evalkit.training.initialization import NORMS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn


def parameter_groups(
    model: nn.Module,
    *,
    head_lr: float,
    backbone_lr: float,
    weight_decay: float = 1e-4,
    head: str | None = None,
) -> list[dict[str, Any]]:
    """Sort a model's trainable parameters into groups for an optimizer.

    Each is in exactly one group, also if layers share it; what is frozen is in none. Biases, all
    parameters of norms, whatever else has one dimension or none, and what the model itself lists
    in ``no_weight_decay()`` (timm's position embeddings) are not decayed.

    Args:
        model: Any classifier. Freeze before, if at all.
        head_lr: Learning rate of the layers that `find_head` finds.
        backbone_lr: Learning rate of everything else.
        weight_decay: Of the weights that are decayed.
        head: Name of the layer or module that learns at *head_lr*, where another is meant.

    Returns:
        Up to four dicts with ``params``, ``lr``, ``weight_decay`` and ``name`` ("backbone",
        "backbone without decay", "head", "head without decay"); empty ones are left out.

    Raises:
        InputError: Nothing is trainable, or the head cannot be found.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
        >>> groups = parameter_groups(model, head_lr=0.1, backbone_lr=0.01)
        >>> [(group["name"], group["lr"], len(group["params"])) for group in groups]
        [('backbone', 0.01, 1), ('backbone without decay', 0.01, 3),
         ('head', 0.1, 1), ('head without decay', 0.1, 1)]
        >>> optimizer = torch.optim.AdamW(groups)
    """
    names = find_head(model).modules if head is None else (head,)
    in_head = {id(p) for name in names for p in module_named(model, name).parameters()}
    plain = set(_not_decayed(model))
    groups: dict[str, dict[str, Any]] = {
        f"{part}{suffix}": {
            "name": f"{part}{suffix}",
            "params": [],
            "lr": rate,
            "weight_decay": decay,
        }
        for part, rate in (("backbone", backbone_lr), ("head", head_lr))
        for suffix, decay in (("", weight_decay), (" without decay", 0.0))
    }
    for parameter in model.parameters():  # each once, however many layers share it
        if parameter.requires_grad:
            part = "head" if id(parameter) in in_head else "backbone"
            suffix = " without decay" if id(parameter) in plain else ""
            groups[f"{part}{suffix}"]["params"].append(parameter)
    filled = [group for group in groups.values() if group["params"]]
    if not filled:
        raise InputError("model must have trainable parameters, got none: unfreeze some")
    return filled


def _not_decayed(model: nn.Module) -> Iterator[int]:
    """Identities of the parameters that are not decayed."""
    listed = set(getattr(model, "no_weight_decay", set)())
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            full = f"{prefix}.{name}".lstrip(".")
            if (
                parameter.ndim <= 1
                or name.endswith("bias")
                or isinstance(module, NORMS)
                or full in listed
            ):
                yield id(parameter)
