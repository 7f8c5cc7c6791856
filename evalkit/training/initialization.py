"""Fresh weights: Kaiming for convolutions, ones and zeros for norms, Xavier for linear layers."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from evalkit.errors import InputError
from evalkit.wording import some

if TYPE_CHECKING:
    from collections.abc import Mapping

CONVOLUTIONS = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)  # noqa: SLF001


def initialize(
    model: nn.Module, *, tensors: Mapping[str, torch.Tensor] | None = None
) -> tuple[str, ...]:
    """Give a model fresh weights, in place.

    Convolutions are drawn by Kaiming's normal distribution (fan out, for ReLU), linear layers by
    Xavier's; their biases are zeros. Norms get ones and zeros, and the running statistics of
    batch norm start anew. The draws are torch's: `seed_everything` makes them repeatable.

    Args:
        model: Any; on any device.
        tensors: Values that are set instead: the name of a layer (its weight) or of a parameter
            or buffer -> a tensor of that shape. Its dtype and device may differ.

    Returns:
        Names of the parameters that were left as they are: those of layers of other kinds, such
        as embeddings, which have their own good beginnings.

    Raises:
        InputError: A name is unknown, a shape does not fit, a layer is lazy and has no shape yet,
            or its weight is computed by a parametrization.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 2))
        >>> initialize(model, tensors={"2": torch.eye(2, 8)})
        ()
        >>> model[2].weight.sum().item(), model[0].bias.abs().sum().item()
        (2.0, 0.0)
    """
    given = _checked(model, tensors or {})
    known = (*CONVOLUTIONS, *NORMS, nn.Linear)
    layers = {name: part for name, part in model.named_modules() if isinstance(part, known)}
    for name, layer in layers.items():
        _require_plain(name, layer)
    for layer in layers.values():
        _draw(layer)
    with torch.no_grad():
        for target, values in given.values():
            target.copy_(values)
    done = {id(own) for layer in layers.values() for own in layer.parameters(recurse=False)}
    return tuple(
        name for name, own in model.named_parameters() if name not in given and id(own) not in done
    )


def _draw(module: nn.Module) -> None:
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if isinstance(module, CONVOLUTIONS):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.xavier_normal_(module.weight)
    elif weight is not None:  # norms may be without
        nn.init.ones_(weight)
    if bias is not None:
        nn.init.zeros_(bias)
    if isinstance(module, nn.modules.batchnorm._NormBase):  # noqa: SLF001
        module.reset_running_stats()


def _require_plain(name: str, module: nn.Module) -> None:
    if any(is_lazy(parameter) for parameter in module.parameters(recurse=False)):
        raise InputError(
            f"model must know its shapes, got the lazy layer '{name}': run one batch through it"
        )
    if is_parametrized(module):
        raise InputError(
            f"model must have plain weights, got the parametrized layer '{name}': initialize it "
            "before the parametrization is registered"
        )


def _checked(
    model: nn.Module, tensors: Mapping[str, torch.Tensor]
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return the name of a parameter or buffer -> it, and the values meant for it."""
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    found, faults = {}, []
    for name, values in tensors.items():
        full = name if name in own else f"{name}.weight".lstrip(".")
        if full not in own:
            close = difflib.get_close_matches(name, own, n=3)
            faults.append(f"'{name}' is not there" + (f" (close: {some(close)})" if close else ""))
        elif own[full].shape != values.shape:
            faults.append(f"'{full}' has {tuple(own[full].shape)}, not {tuple(values.shape)}")
        else:
            found[full] = own[full], values
    if faults:
        raise InputError(
            f"tensors must have the names and shapes of the model, got: {some(faults)}"
        )
    return found
