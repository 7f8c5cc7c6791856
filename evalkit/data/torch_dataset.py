"""A torch Dataset of one's own."""

from __future__ import annotations

from typing import Any

from evalkit.data.source import Loaded, Numbered, Source
from evalkit.errors import InputError
from evalkit.images.reading import UnreadableError
from evalkit.wording import counted, some


def torch_dataset(spec: str, given: Any) -> Source:
    """Take a Dataset, or a function or class that makes one.

    Args:
        spec: What the user gave.
        given: What is found there. Its samples are images (of Pillow or tensors of uint8) with
            the position or the name of a class.

    Raises:
        InputError: It has no length, no samples, or no names of classes.
    """
    is_maker = isinstance(given, type) or not hasattr(given, "__getitem__")
    dataset = given() if is_maker and callable(given) else given
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

    def load(position: int, _mode: str) -> Loaded:
        try:
            image, label = dataset[position]
        except OSError as error:
            raise UnreadableError(" ".join(str(error).split())) from error
        if not isinstance(label, str) and 0 <= int(label) < len(names):
            label = names[int(label)]
        if label not in names:
            raise InputError(
                f"data must have labels among its {counted(len(names), 'class', 'classes')} "
                f"{some(names)}, got {label!r} for {spec}[{position}]"
            )
        return Loaded(image=image, label=label)

    return Source(name=spec, paths=Numbered(spec, len(dataset)), classes=names, load=load)
