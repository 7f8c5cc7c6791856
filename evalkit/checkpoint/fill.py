"""Tensors into a model, a few modules at a time, and the proof that they arrived."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch

from evalkit.checkpoint.fit import named_tensors
from evalkit.checkpoint.scattered import whole
from evalkit.errors import InputError
from evalkit.wording import some

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn

    from evalkit.checkpoint.fit import Fit
    from evalkit.checkpoint.read import Contents

CHUNK_BYTES = 32 << 20  # of the file that is in memory beside the model, once or twice


def fill(
    contents: Contents,
    model: nn.Module,
    tensors: Mapping[str, torch.Tensor],
    others: Mapping[str, Any],
) -> None:
    """Copy tensors into a model, to the devices and types of its own, and compare each one.

    The pages of the file are given back on the way: beside the model there is never more than
    32 MiB of it, or one module, in memory; twice that while tensors are put together from parts.

    Args:
        contents: Where the tensors come from.
        model: Filled in place.
        tensors: By key of the model.
        others: What else its ``load_state_dict`` takes, by key.

    Raises:
        InputError: The model does not take them, or holds other values afterwards.
    """
    wrong: list[str] = []
    for keys in _chunks(tensors):
        wrong += _fill(contents, model, {key: whole(tensors[key]) for key in keys}, others)
        contents.release()
    if wrong:
        raise InputError(
            f"{contents.path}: expected the model to hold the file's values after the load, got "
            f"others in {some(wrong)}: the model changes what it loads, or ties these to others"
        )


def _fill(
    contents: Contents,
    model: nn.Module,
    chunk: Mapping[str, torch.Tensor],
    others: Mapping[str, Any],
) -> list[str]:
    """Copy some tensors, and return the keys under which the model then holds other values."""
    contents.release()  # what was read to put them together
    state = OrderedDict[str, Any]({**chunk, **others})
    versions = getattr(model.state_dict(), "_metadata", None)  # of its modules' own formats
    if versions is not None:
        vars(state)["_metadata"] = versions
    try:
        model.load_state_dict(state, strict=False)
    except (RuntimeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{contents.path}: expected {type(model).__name__} to take weights that have its "
            f"own names and shapes, got '{' '.join(str(error).split())}' from it: load them "
            "with the code that the model comes with"
        ) from error
    held = named_tensors(model)
    return [key for key, tensor in chunk.items() if not _same(held[key], tensor)]


def others_for(model: nn.Module, fit: Fit) -> dict[str, Any]:
    """Return what the model keeps beside tensors and the file has, by key of the model."""
    wanted = [key for key, value in model.state_dict().items() if value is not None]
    prefixes = ("", *fit.match.prefixes)
    return {
        key: fit.candidate.others[prefix + key]
        for key in wanted
        for prefix in prefixes
        if prefix + key in fit.candidate.others
    }


def _chunks(tensors: Mapping[str, torch.Tensor]) -> Iterator[list[str]]:
    """Yield the keys in parts; those of one module stay together."""
    chunk: list[str] = []
    size = 0
    for _module, group in itertools.groupby(tensors, key=lambda key: key.rpartition(".")[0]):
        keys = list(group)
        more = sum(tensors[key].numel() * tensors[key].element_size() for key in keys)
        if chunk and size + more > CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk += keys
        size += more
    yield chunk


def _same(held: torch.Tensor, given: torch.Tensor) -> bool:
    """Whether a model holds what it was given, in its own type; NaN equals NaN."""
    held, given = held.cpu(), given.to(held.dtype)
    if torch.equal(held, given):
        return True
    if held.is_quantized or not held.is_floating_point():
        return False
    return bool((held.isnan() & given.isnan() | (held == given)).all())
