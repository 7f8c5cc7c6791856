"""A torch Dataset of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from evalkit.data.dataset_classes import classes_of, label_of
from evalkit.data.dataset_version import parts_of, version_of
from evalkit.data.source import Loaded, Numbered, Source
from evalkit.errors import InputError
from evalkit.images.reading import UnreadableError, damage_told
from evalkit.user_code import code_digest, told
from evalkit.wording import counted, some

if TYPE_CHECKING:
    import numpy.typing as npt

PAIR = 2  # an image and its label
# Under these names a sample that is a dict has both.
IMAGE_KEYS, LABEL_KEYS = ("image", "img", "pixel_values"), ("label", "labels", "target")
CHANNELS = (1, 3)


def torch_dataset(spec: str, given: Any) -> Source:
    """Take a Dataset, or a function or class that makes one.

    Its samples are asked for one at a time: in torch every worker is a process of its own, so a
    Dataset need not bear several threads, and one that reads from a file that it holds open would
    give the pixels of other samples. Where it says ``thread_safe = True``, all threads ask.

    Args:
        spec: What the user gave.
        given: What is found there. Its samples are images (of Pillow or tensors of uint8) with
            the position or the name of a class.

    Raises:
        InputError: It has no length, no samples, or no names of classes; or what makes it fails.
    """
    dataset = _made(spec, given)
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise InputError(
            f"data must be a function that returns a Dataset with a length, got '{spec}', which "
            f"returns {type(dataset).__name__}"
        )
    return _source(spec, dataset)


def in_memory(dataset: Any) -> Source:
    """Take a Dataset itself, see `torch_dataset`; the names of its samples are those of its class.

    Raises:
        InputError: It is none, or see `torch_dataset`.
    """
    kind = type(dataset)
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise InputError(
            "data must be a path, a name, or a Dataset with a length whose samples can be asked "
            f"for one by one, got {kind.__name__}"
        )
    return _source(f"{kind.__module__}.{kind.__qualname__}", dataset)


def _source(spec: str, dataset: Any) -> Source:
    classes = classes_of(spec, dataset)
    names = classes.names
    if not len(dataset):
        raise InputError(f"data must have at least one sample, got '{spec}' with none")
    alone = nullcontext() if getattr(dataset, "thread_safe", False) is True else Lock()

    def load(position: int, _mode: str) -> Loaded:
        with alone:
            image, told = _sample(f"{spec}[{position}]", dataset, position)
        label = label_of(told, classes)
        if label not in names:
            raise InputError(
                f"data must have labels among its {counted(len(names), 'class', 'classes')} "
                f"{some(names)}, got {told!r} for {spec}[{position}]"
            )
        return Loaded(image=image, label=label)

    return Source(
        name=spec,
        paths=Numbered(spec, len(dataset)),
        classes=names,
        load=load,
        numbered=all(map(str.isdecimal, names)),
        version=version_of(dataset),
        code=code_digest(map(type, parts_of(dataset)), spec=spec),
        doubts=classes.doubts,
    )


def _made(spec: str, given: Any) -> Any:
    is_maker = isinstance(given, type) or not hasattr(given, "__getitem__")
    if not (is_maker and callable(given)):
        return given
    try:
        return given()
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(
            f"data must be a Dataset, or a function of no arguments that makes one, got "
            f"{told(error)} from '{spec}'"
        ) from error


def _sample(name: str, dataset: Any, position: int) -> tuple[Image.Image | torch.Tensor, Any]:
    """Return the image of a sample, decoded, and its label.

    Raises:
        UnreadableError: There is no image.
        InputError: It is no sample, or the Dataset fails.
    """
    try:
        sample = dataset[position]
    except OSError as error:
        raise UnreadableError(" ".join(str(error).split())) from error
    except (InputError, StopIteration):
        raise
    except Exception as error:
        raise InputError(f"data must give its samples, got {told(error)} for {name}") from error
    if isinstance(sample, Mapping):
        sample = _pair_of(sample)
    if not isinstance(sample, tuple | list) or len(sample) != PAIR:
        got = f"{type(sample).__name__}"
        got += f" of {len(sample)}" if isinstance(sample, tuple | list | dict) else ""
        raise InputError(f"data must give pairs of an image and a label, got a {got} for {name}")
    image, label = sample
    return _decoded(name, image), label


def _decoded(name: str, given: Any) -> Image.Image | torch.Tensor:
    image: Image.Image | torch.Tensor = given
    if isinstance(given, np.ndarray) and _is_of_pixels(given):
        image = Image.fromarray(given.squeeze(2) if given.shape[2:] == (1,) else given)
    if isinstance(image, Image.Image):
        with damage_told():
            image.load()  # here and not later: whoever opened it may close it
        if not all(image.size):
            raise UnreadableError(f"the image has no pixels, but the size {image.size}")
    elif not isinstance(image, torch.Tensor):
        raise InputError(
            "data must give images of Pillow, tensors of shape (1 or 3, H, W) or arrays of shape "
            f"(H, W, 1 or 3), of dtype uint8, got {_described(given)} for {name}"
        )
    elif not image.numel():
        raise UnreadableError(f"the image has no pixels, but the shape {tuple(image.shape)}")
    return image


def _pair_of(sample: Mapping[Any, Any]) -> Any:
    """Return an image and its label from a dict, or the dict where it leaves a choice."""
    images, labels = ([key for key in keys if key in sample] for keys in (IMAGE_KEYS, LABEL_KEYS))
    is_clear = len(images) == len(labels) == 1
    return (sample[images[0]], sample[labels[0]]) if is_clear else sample


def _is_of_pixels(image: npt.NDArray[Any]) -> bool:
    """Whether an array can only be rows of grey or coloured pixels."""
    match image.shape:
        case (_height, _width):
            is_clear = True
        case (height, _width, channels):
            is_clear = channels in CHANNELS and height not in CHANNELS
        case _:
            is_clear = False
    return is_clear and image.dtype == np.uint8 and image.size > 0


def _described(image: Any) -> str:
    kind = type(image).__name__
    return f"{kind} {image.shape} of {image.dtype}" if isinstance(image, np.ndarray) else kind
