"""How a model and its images lie in memory: the channels innermost, where that is faster."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

IMAGES = 4  # dimensions of a batch of them
# What torch, and its compiler, say where a model calls "view" on what its convolutions give.
CALLS_VIEW = re.compile("view size is not compatible|Cannot view a tensor with shape")


def pays_channels_last(model: nn.Module, device: torch.device) -> bool:
    """Whether a model runs faster with the channels of its images innermost.

    So it is for convolutions on tensor cores and in oneDNN; where linear layers do most of the
    work, as in transformers and ConvNeXt, it makes no difference (docs/scale.md has figures).

    Example:
        >>> pays_channels_last(torch.nn.Conv2d(3, 8, 3), torch.device("cpu"))
        True
        >>> pays_channels_last(torch.nn.Linear(3, 8), torch.device("cpu"))
        False
    """
    if device.type not in {"cpu", "cuda"}:
        return False
    return any(isinstance(one, nn.Conv2d) and one.groups == 1 for one in model.modules())


class Layout:
    """Lays models out in memory, in place, and images as they take them.

    Args:
        models: One, or one with its moving average.
        channels_last: Whether the channels shall lie innermost.

    Attributes:
        channels_last: Whether they do.

    Example:
        >>> model = torch.nn.Conv2d(3, 8, 3)
        >>> layout = Layout(model, channels_last=True)
        >>> images = layout.of(torch.rand(2, 3, 5, 5))
        >>> images.is_contiguous(memory_format=torch.channels_last)
        True
        >>> layout.leave()
        >>> model.weight.is_contiguous(), layout.of(images).is_contiguous()
        (True, True)
    """

    def __init__(self, *models: nn.Module, channels_last: bool) -> None:
        self.channels_last = channels_last
        self._is_tried = False
        tensors = [tensor for model in models for tensor in (*model.parameters(), *model.buffers())]
        self._before = [(tensor, tensor.stride()) for tensor in tensors if channels_last]
        for model in models if channels_last else ():
            model.to(memory_format=torch.channels_last)

    def of(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return inputs as the model takes them; what is no batch of images stays as it is."""
        if inputs.ndim != IMAGES:
            return inputs
        innermost, usual = torch.channels_last, torch.contiguous_format
        return inputs.contiguous(memory_format=innermost if self.channels_last else usual)

    def leave(self) -> None:
        """Lay the models out as they were before."""
        self.channels_last = False
        with torch.inference_mode(mode=False), torch.no_grad():  # the model may learn afterwards
            for tensor, stride in self._before:  # of one channel, both layouts count as contiguous
                if tensor.stride() != stride:
                    laid_out = torch.empty_strided(
                        tensor.shape, stride, dtype=tensor.dtype, device=tensor.device
                    )
                    tensor.data = laid_out.copy_(tensor.data)

    def is_at_fault(self, error: BaseException) -> bool:
        """Whether the model fails because it does not take this layout."""
        return self.channels_last and bool(CALLS_VIEW.search(str(error)))

    def try_once(self, model: nn.Module, inputs: torch.Tensor) -> None:
        """Find out with one sample whether a model takes the layout that it has; leave it if not.

        The model computes as in evaluation, so that it does not learn from the attempt. An error
        of another kind is left to whoever runs it next.
        """
        if self._is_tried or not self.channels_last or inputs.ndim != IMAGES:
            return
        self._is_tried = True
        try:
            with _evaluating(model), torch.no_grad():
                model.forward(inputs[:1])  # not as it was compiled: that would be for one sample
        except (RuntimeError, TypeError, ValueError) as error:
            if self.is_at_fault(error):
                self.leave()


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Have every module compute as in evaluation, with the same random numbers afterwards."""
    training = [module for module in model.modules() if module.training]
    devices = {one.device for one in model.parameters() if one.device.type == "cuda"}
    with torch.random.fork_rng(devices):
        for module in training:
            module.training = False
        try:
            yield
        finally:
            for module in training:
                module.training = True
