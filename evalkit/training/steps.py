"""One update of the weights, in the right order: unscale, clip, step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from evalkit.errors import InputError
from evalkit.inference.hardware import PRECISIONS

if TYPE_CHECKING:
    from torch.optim import Optimizer


def grad_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """Make the scaler of the loss that a precision needs: for fp16 it scales, else it does nothing.

    Args:
        precision: "fp32", "tf32", "bf16" or "fp16"; see `evalkit.inference.hardware.computing`.
        device: Where the model is.

    Example:
        >>> grad_scaler("bf16", torch.device("cpu")).is_enabled()
        False
        >>> grad_scaler("fp16", torch.device("cpu")).get_scale()
        65536.0
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, got '{precision}'")
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


def apply_gradients(
    optimizer: Optimizer,
    *,
    scaler: torch.amp.GradScaler | None = None,
    max_norm: float | None = None,
) -> torch.Tensor | None:
    """Update the weights by the gradients that are there, and forget the gradients.

    Under fp16 the gradients are those of the scaled loss: they are unscaled first, as a limit for
    their norm means nothing before. Where one of them is not finite, the scaler leaves out the
    step and halves its scale.

    Args:
        optimizer: Over the parameters.
        scaler: The one whose ``scale(loss)`` was followed back, see `grad_scaler`.
        max_norm: Largest Euclidean norm of all gradients taken together; longer ones are
            shortened to it. None leaves them.

    Returns:
        The norm before it was limited, 0-dimensional, on the device of the gradients; None
        without *max_norm*.

    Raises:
        InputError: *max_norm* is not above 0.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(1))
        >>> sgd = torch.optim.SGD([weight], lr=1.0)
        >>> scaler = grad_scaler("fp16", torch.device("cpu"))
        >>> scaler.scale(50 * weight.sum()).backward()
        >>> norm = apply_gradients(sgd, scaler=scaler, max_norm=20)
        >>> norm.item(), round(weight.item(), 3), weight.grad
        (50.0, -20.0, None)
    """
    if max_norm is not None and not max_norm > 0:
        raise InputError(f"max_norm must be above 0, got {max_norm}: leave it out to limit nothing")
    if scaler is not None:
        scaler.unscale_(optimizer)
    norm = None
    if max_norm is not None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return norm
