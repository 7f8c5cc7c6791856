"""The loss of a classifier, with smoothed labels on request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from evalkit.errors import InputError

if TYPE_CHECKING:
    import torch


def classification_loss(
    *, label_smoothing: float = 0.0, class_weights: torch.Tensor | None = None
) -> nn.CrossEntropyLoss:
    """Make the cross entropy, torch's own; the mean over the samples of a batch.

    Args:
        label_smoothing: Share e of each target, in [0, 1), that is spread evenly over all C
            classes, the true one included: the target of the true class is 1 - e + e/C, that of
            the others e/C. Another convention gives the true class 0.9 and each *other* class
            0.1/(C-1): that is e = 0.1*C/(C-1), see `smoothing_for`.
        class_weights: Weight of every class, shape (C,).

    Returns:
        A loss for logits of shape (N, C) and labels, int64 of shape (N,), or soft labels, float
        of shape (N, C), as `mixing` makes them.

    Raises:
        InputError: *label_smoothing* is not in [0, 1).

    Example:
        >>> import torch
        >>> loss = classification_loss(label_smoothing=0.1)
        >>> round(loss(torch.tensor([[9.0, 0.0]]), torch.tensor([0])).item(), 4)
        0.4501
    """
    if not 0 <= label_smoothing < 1:
        raise InputError(f"label_smoothing must be in [0, 1), got {label_smoothing}")
    return nn.CrossEntropyLoss(weight=class_weights, label_smoothing=label_smoothing)


def smoothing_for(others: float, *, num_classes: int) -> float:
    """Return torch's ``label_smoothing`` that leaves ``1 - others`` for the true class.

    Args:
        others: What the C-1 other classes share evenly, in [0, 1).
        num_classes: C, at least 2.

    Raises:
        InputError: A value is out of range, or the true class would get less than the others.

    Example:
        >>> import torch
        >>> e = smoothing_for(0.1, num_classes=5)
        >>> round(1 - e + e / 5, 6), round(e / 5, 6)  # the true class, each of the others
        (0.9, 0.025)
    """
    if num_classes < 2 or not 0 <= others < 1:  # noqa: PLR2004
        raise InputError(
            f"num_classes must be at least 2 and others in [0, 1), got {num_classes} and {others}"
        )
    smoothing = others * num_classes / (num_classes - 1)
    if smoothing >= 1:
        raise InputError(
            f"others must be below {1 - 1 / num_classes:.4g} for {num_classes} classes, got "
            f"{others}: the true class would get no more than the others"
        )
    return smoothing
