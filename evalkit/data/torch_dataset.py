"""A torch Dataset of one's own."""

from __future__ import annotations

import operator
from collections import Counter
from contextlib import nullcontext
from threading import Lock
from typing import Any

import torch
from PIL import Image

from evalkit.data.source import Loaded, Numbered, Source
from evalkit.errors import InputError
from evalkit.images.reading import UnreadableError, damage_told
from evalkit.user_code import code_digest, told
from evalkit.wording import counted, some

PAIR = 2  # an image and its label


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
    classes = getattr(dataset, "classes", None)
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise InputError(
            f"data must be a function that returns a Dataset with a length, got '{spec}', which "
            f"returns {type(dataset).__name__}"
        )
    if not isinstance(classes, list | tuple) or not classes:
        raise InputError(
            f"data must be a Dataset with the names of its classes in its attribute classes, got "
            f"'{spec}' without: set it"
        )
    if not len(dataset):
        raise InputError(f"data must have at least one sample, got '{spec}' with none")
    names = tuple(str(name) for name in classes)
    if twice := sorted(name for name, times in Counter(names).items() if times > 1):
        raise InputError(
            f"data must have classes of different names, got {some(twice)} more than once in the "
            f"classes of '{spec}': tell them apart"
        )
    alone = nullcontext() if getattr(dataset, "thread_safe", False) is True else Lock()

    def load(position: int, _mode: str) -> Loaded:
        with alone:
            image, told = _sample(f"{spec}[{position}]", dataset, position)
        label = _label_of(told, names)
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
        version=code_digest([type(dataset)], spec=spec),
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
    if not isinstance(sample, tuple | list) or len(sample) != PAIR:
        got = f"{type(sample).__name__}"
        got += f" of {len(sample)}" if isinstance(sample, tuple | list | dict) else ""
        raise InputError(f"data must give pairs of an image and a label, got a {got} for {name}")
    image, label = sample
    if isinstance(image, Image.Image):
        with damage_told():
            image.load()  # here and not later: whoever opened it may close it
        if not all(image.size):
            raise UnreadableError(f"the image has no pixels, but the size {image.size}")
    elif not isinstance(image, torch.Tensor):
        raise InputError(
            "data must give images of Pillow or tensors of shape (1 or 3, H, W) and dtype uint8, "
            f"got {type(image).__name__} for {name}"
        )
    elif not image.numel():
        raise UnreadableError(f"the image has no pixels, but the shape {tuple(image.shape)}")
    return image, label


def _label_of(told: Any, names: tuple[str, ...]) -> str | None:
    """Return the name of a class from a name or a position; None where it is neither."""
    if isinstance(told, str):
        return told
    try:
        position = operator.index(told)
    except TypeError:  # no whole number, of Python, NumPy or torch
        return str(told) if str(told) in names else None
    return names[position] if 0 <= position < len(names) else None
