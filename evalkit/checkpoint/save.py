"""A model into a checkpoint that carries what evaluation needs, written whole or not at all."""

from __future__ import annotations

import os
import pickle
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from evalkit.checkpoint.fit import named_tensors
from evalkit.checkpoint.layout import strip_wrappers
from evalkit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RESERVED = ("state_dict", "classes", "transform", "model_spec")
_UNSAFE_CLASS = re.compile(r"GLOBAL (\S+)")


def save_checkpoint(
    path: str | Path,
    model: nn.Module,
    *,
    classes: Sequence[str] | None = None,
    transform: Mapping[str, Any] | None = None,
    model_spec: str | None = None,
    **extra: Any,
) -> None:
    """Write a checkpoint that plain ``torch.load(path, weights_only=True)`` reads everywhere.

    The file appears under its name only when it is whole: it is written beside it, read again,
    flushed to disk and renamed. Wrappers around the model (DataParallel, torch.compile) leave no
    trace in the keys, and tensors are stored for the CPU.

    Args:
        path: File to write; one that is there is replaced. Its folder must exist.
        model: Parameters and buffers go under "state_dict".
        classes: Class names in the order of the model's outputs.
        transform: The preset for evaluation, as ``TransformSpec.as_dict`` gives it.
        model_spec: How `load_checkpoint` builds the model, such as "torchvision:resnet18".
        **extra: What else to keep, such as ``epoch=3``: numbers, text, tensors, lists and dicts.

    Raises:
        InputError: *extra* holds an object of a class that is not safe to read, the folder does
            not exist or cannot be written to, or classes are not different from each other.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "best.pth"
        >>> save_checkpoint(path, nn.Linear(4, 2), classes=["cat", "dog"], epoch=3)
        >>> sorted(torch.load(path, weights_only=True))
        ['classes', 'epoch', 'state_dict']
    """
    path = Path(path)
    if classes is not None and len(set(classes)) < len(classes):
        raise InputError(f"classes must differ from each other, got {list(classes)}")
    tensors, _prefix = strip_wrappers(named_tensors(model))
    known = {
        "classes": None if classes is None else [str(name) for name in classes],
        "transform": None if transform is None else dict(transform),
        "model_spec": model_spec,
    }
    _write(
        path,
        {
            **extra,
            "state_dict": {key: tensor.detach().cpu() for key, tensor in tensors.items()},
            **{key: value for key, value in known.items() if value is not None},
        },
    )


def _write(path: Path, tree: dict[str, Any]) -> None:
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with unfinished.open("xb") as file:
            torch.save(tree, file)
            file.flush()
            os.fsync(file.fileno())
        torch.load(unfinished, map_location="cpu", weights_only=True, mmap=True)
        unfinished.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        raise InputError(
            f"{path}: expected a place to write a checkpoint to, got '{error.strerror}': "
            "choose another path"
        ) from error
    except pickle.UnpicklingError as error:
        unsafe = _UNSAFE_CLASS.search(str(error))
        raise InputError(
            f"{path}: expected numbers, text, tensors, lists and dicts beside the weights, got an "
            f"object of class {unsafe[1] if unsafe else 'unknown'}: convert it first"
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Make the new name survive a power cut as the bytes do."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
