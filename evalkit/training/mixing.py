"""MixUp and CutMix, torchvision's own, switched on by a number each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evalkit.errors import InputError
from evalkit.models import import_torchvision

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    Mixing = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def mixing(num_classes: int, *, mixup: float = 0.0, cutmix: float = 0.0) -> Mixing | None:
    """Make what mixes the images of a batch with each other, and their labels in proportion.

    Args:
        num_classes: C, the length of the soft labels.
        mixup: Both parameters of MixUp's Beta distribution (0.2 is usual); 0 is off.
        cutmix: Both parameters of CutMix's Beta distribution (1 is usual); 0 is off. Where both
            are on, every batch gets one of the two, at even chances.

    Returns:
        A function of inputs, float of shape (B, ch, H, W), and labels, int64 of shape (B,), that
        returns inputs and soft labels, float of shape (B, C) with rows that sum to 1. None where
        both are off. Chance is torch's global generator.

    Raises:
        InputError: A number is negative, or there are fewer than 2 classes.

    Example:
        >>> import torch
        >>> mix = mixing(3, mixup=0.2, cutmix=1.0)
        >>> inputs, labels = mix(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 2]))
        >>> inputs.shape, labels.shape, labels.sum(1).tolist()
        (torch.Size([4, 3, 8, 8]), torch.Size([4, 3]), [1.0, 1.0, 1.0, 1.0])
    """
    if min(mixup, cutmix) < 0 or num_classes < 2:  # noqa: PLR2004
        raise InputError(
            "mixup and cutmix must be 0 or more and num_classes at least 2, got "
            f"{mixup}, {cutmix} and {num_classes}"
        )
    import_torchvision()
    from torchvision.transforms import v2

    made = [v2.MixUp(alpha=mixup, num_classes=num_classes)] if mixup else []
    made += [v2.CutMix(alpha=cutmix, num_classes=num_classes)] if cutmix else []
    chosen: Mixing | None = v2.RandomChoice(made) if len(made) > 1 else next(iter(made), None)
    return chosen
