"""How a model and its images lie in memory: the channels innermost, where that is faster."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.parameter import is_lazy

IMAGES = 4  # dimensions of a batch of them
TRIED = 2  # samples: of one, some models make a shape that they cannot make of several
SAME = 0.02  # of the largest score: what automatic casting to 16 bits may make of two layouts


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
    """How models, in place, and their images lie in memory.

    Args:
        models: One, or one with its moving average.

    Attributes:
        channels_last: Whether the channels lie innermost.

    Example:
        >>> model = torch.nn.Conv2d(3, 8, 3)
        >>> layout = Layout(model)
        >>> layout.turn()
        >>> images = layout.of(torch.rand(2, 3, 5, 5))
        >>> images.is_contiguous(memory_format=torch.channels_last)
        True
        >>> layout.leave()
        >>> model.weight.is_contiguous(), layout.of(images).is_contiguous()
        (True, True)
    """

    def __init__(self, *models: nn.Module) -> None:
        self.channels_last = False
        self._models = models
        self._before: list[tuple[nn.Module, str, tuple[int, ...]]] = []

    def turn(self) -> None:
        """Lay the models out with the channels innermost.

        Raises:
            RuntimeError: They have weights that cannot lie so.
        """
        self._before = [
            (module, name, tensor.stride())
            for model in self._models
            for module in model.modules()
            for name, tensor in _tensors(module).items()
        ]
        self.channels_last = True
        for model in self._models:
            model.to(memory_format=torch.channels_last)

    def leave(self) -> None:
        """Lay the models out as they were before."""
        self.channels_last = False
        with torch.inference_mode(mode=False), torch.no_grad():  # the model may learn afterwards
            for module, name, stride in self._before:
                tensor = _tensors(module)[name]
                if tensor.stride() != stride:  # of one channel, both count as contiguous
                    laid_out = torch.empty_strided(
                        tensor.shape, stride, dtype=tensor.dtype, device=tensor.device
                    )
                    tensor.data = laid_out.copy_(tensor.data)
        self._before = []

    def of(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return inputs as the model takes them; what is no batch of images stays as it is."""
        if inputs.ndim != IMAGES:
            return inputs
        innermost, usual = torch.channels_last, torch.contiguous_format
        return inputs.contiguous(memory_format=innermost if self.channels_last else usual)


def takes_channels_last(
    model: nn.Module, images: torch.Tensor, compute: Callable[[torch.Tensor], torch.Tensor]
) -> bool:
    """Whether a model runs faster with its channels innermost, and gives the same scores then.

    Not all do: those that call ``view`` on what their convolutions give fail, as tutorials write
    them, and those that reckon with strides give something else.

    Args:
        model: On the device of the images, in evaluation mode; it is left as it lay.
        images: A batch, of which two are tried.
        compute: From inputs to scores, by this model.
    """
    if images.ndim != IMAGES or not pays_channels_last(model, images.device):
        return False
    layout, tried = Layout(model), images[:TRIED]
    try:
        with torch.inference_mode():
            expected = compute(layout.of(tried)).clone()
        layout.turn()
        with torch.inference_mode():
            return _is_same(compute(layout.of(tried)), expected)
    except Exception:  # noqa: BLE001 - whatever it is, as it lay before it is the model's own
        return False
    finally:
        layout.leave()


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers of a module itself, but for those that have no shape yet."""
    own = {
        **dict(module.named_parameters(recurse=False)),
        **dict(module.named_buffers(recurse=False)),
    }
    return {name: tensor for name, tensor in own.items() if not is_lazy(tensor)}


def _is_same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    largest = expected.nan_to_num().abs().max().item()
    return torch.allclose(found, expected, rtol=0, atol=SAME * largest, equal_nan=True)
