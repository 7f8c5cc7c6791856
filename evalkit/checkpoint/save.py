"""A model into a checkpoint that carries what evaluation needs, written whole or not at all."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from evalkit.checkpoint.fit import named_tensors
from evalkit.checkpoint.layout import strip_wrappers
from evalkit.errors import InputError
from evalkit.output_names import names_given
from evalkit.whole_file import written_beside

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evalkit.transforms import TransformSpec

RESERVED = ("state_dict", "classes", "transform", "model_spec")
_UNSAFE_CLASS = re.compile(r"GLOBAL (\S+)")


def save_checkpoint(
    path: str | Path,
    model: nn.Module,
    *,
    classes: Sequence[str] | Mapping[str, int] | None = None,
    transform: TransformSpec | Mapping[str, Any] | None = None,
    model_spec: str | None = None,
    **extra: Any,
) -> None:
    """Write a checkpoint that plain ``torch.load(path, weights_only=True)`` reads everywhere.

    A path that ends in ".safetensors" gets that format, with all but the weights in its header.

    The file appears under its name only when it is whole: it is written beside it, read again,
    flushed to disk and renamed. Wrappers around the model (DataParallel, torch.compile) leave no
    trace in the keys, and tensors are stored for the CPU.

    Args:
        path: File to write; one that is there is replaced. Its folder must exist.
        model: Parameters and buffers go under "state_dict".
        classes: Class names in the order of the model's outputs, or a dict from name to output.
        transform: The preset for evaluation, or what its ``as_dict`` gives.
        model_spec: How `load_checkpoint` builds the model, such as "torchvision:resnet18".
        **extra: What else to keep, such as ``epoch=3``: numbers, text, lists and dicts; tensors as
            well, but not in safetensors.

    Raises:
        InputError: *extra* holds an object of a class that is not safe to read, the folder does
            not exist or cannot be written to, classes are no name for every output, or
            *transform* is none of ours.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "best.pth"
        >>> save_checkpoint(path, nn.Linear(4, 2), classes=["cat", "dog"], epoch=3)
        >>> sorted(torch.load(path, weights_only=True))
        ['classes', 'epoch', 'state_dict']
    """
    path = Path(path)
    tensors, _prefix = strip_wrappers(named_tensors(model))
    known = {
        "classes": None if classes is None else list(names_given(classes)),
        "transform": None if transform is None else _plain(transform),
        "model_spec": model_spec,
    }
    notes = {**extra, **{key: value for key, value in known.items() if value is not None}}
    write_checkpoint(path, {key: tensor.detach().cpu() for key, tensor in tensors.items()}, notes)


def _plain(transform: TransformSpec | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(transform, Mapping):
        return dict(transform)
    if not hasattr(transform, "as_dict"):
        raise InputError(
            "transform must be made by evalkit.transforms, which can be stored, got "
            f"{type(transform).__name__}"
        )
    return transform.as_dict()


def write_checkpoint(
    path: Path, tensors: Mapping[str, torch.Tensor], notes: Mapping[str, Any]
) -> None:
    """Write weights and what else is to be known of them, whole or not at all.

    Args:
        path: Ends in ".safetensors" for that format, in which *notes* are JSON in the header.
        tensors: The weights; under "state_dict" in the other format.
        notes: Numbers, text, lists and dicts.

    Raises:
        InputError: *notes* hold something else, or the file cannot be written.
    """
    try:
        with written_beside(path) as unfinished:
            if path.suffix.lower() == ".safetensors":
                _write_safetensors(unfinished, path, tensors, notes)
            else:
                _write_torch(unfinished, {**notes, "state_dict": dict(tensors)})
    except OSError as error:
        raise InputError(
            f"{path}: expected a place to write a checkpoint to, got '{error.strerror or error}': "
            "choose another path"
        ) from error
    except UnicodeEncodeError as error:  # torch and safetensors open files by text
        raise InputError(
            f"{path!a}: expected a path in UTF-8 to write a checkpoint to, got another encoding: "
            "choose another path"
        ) from error
    except pickle.UnpicklingError as error:
        unsafe = _UNSAFE_CLASS.search(str(error))
        raise InputError(
            f"{path}: expected numbers, text, tensors, lists and dicts beside the weights, got an "
            f"object of class {unsafe[1] if unsafe else 'unknown'}: convert it first"
        ) from error


def _write_torch(path: Path, tree: dict[str, Any]) -> None:
    with path.open("xb") as file:
        torch.save(tree, file)
    torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def _write_safetensors(
    path: Path, target: Path, tensors: Mapping[str, torch.Tensor], notes: Mapping[str, Any]
) -> None:
    """Write the tensors; what shares memory is written twice, as the format has no ties."""
    try:
        from safetensors import SafetensorError
        from safetensors.torch import save_file
    except ImportError as error:
        raise InputError(
            f"{target}: expected the package safetensors to write this format, got '{error}': "
            "pip install safetensors"
        ) from error
    try:
        said = {key: json.dumps(value) for key, value in notes.items()}
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{target}: expected numbers, text, lists and dicts beside the weights, got {error}: "
            "convert it first, or save under another suffix than .safetensors"
        ) from error
    path.open("xb").close()
    permissions = path.stat().st_mode  # those of any new file; safetensors gives narrower ones
    try:
        save_file(_apart(tensors), path, metadata={"format": "pt", **said})
    except SafetensorError as error:  # such as a disk that is full
        raise OSError(str(error)) from error
    path.chmod(permissions)


def _apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors that lie in memory as they are written: in order, none within another."""
    seen: set[int] = set()
    apart = {}
    for key, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        apart[key] = tensor.clone() if place in seen else tensor.contiguous()
        seen.add(place)
    return apart
