"""Which of a checkpoint's sets of weights fits a model, and how much of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from evalkit.checkpoint.candidates import MAX_DEPTH, Candidate, find_candidates, first_below
from evalkit.checkpoint.layout import Match, Shapes, match, shapes_of
from evalkit.checkpoint.peculiar import peculiarity
from evalkit.errors import InputError
from evalkit.wording import some

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evalkit.checkpoint.read import Contents


COUNTERS = ("num_batches_tracked", "n_averaged")


@dataclass(frozen=True, kw_only=True)
class Fit:
    """One set of weights laid upon one model."""

    candidate: Candidate
    match: Match
    missing: tuple[str, ...]  # model keys that nothing in the file answers to
    total: int  # values that the model needs
    model_shapes: Shapes

    @property
    def fraction(self) -> float:
        """Share of the model's values that the file has, in [0, 1]."""
        return self.match.elements / self.total if self.total else 0.0

    @property
    def mismatched_shapes(self) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
        """Model key -> its shape in the file and in the model, where these differ."""
        return {
            key: (tuple(self.candidate.tensors[name].shape), self.model_shapes[key])
            for key, name in self.match.mismatched.items()
        }

    @property
    def unplaced(self) -> list[str]:
        """Keys of the file that the model has no place for; lone counters left out."""
        tensors = self.candidate.tensors
        return [key for key in self.match.unexpected if tensors[key].numel() > 1]


def best_fit(contents: Contents, model: nn.Module, weights: str | None) -> tuple[Fit, list[Fit]]:
    """Lay every set of weights upon *model* and choose: the fullest, trained, raw before averaged.

    Args:
        contents: What `read` returned.
        model: Only its keys and shapes are looked at.
        weights: The only set to look at, by name.

    Returns:
        The chosen one, and all of them in the order of the file.

    Raises:
        InputError: The file holds no weights, or none of that name.
    """
    wanted = named_tensors(model)
    fits = [_fit(contents, found, wanted) for found in _candidates(contents, weights)]
    chosen = max(fits, key=_preference)
    return chosen, fits


def _preference(fit: Fit) -> tuple[int, bool, bool]:
    candidate = fit.candidate
    return fit.match.elements, not candidate.is_former, not candidate.is_averaged


def named_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the parameters and buffers that belong into a checkpoint of *model*."""
    entries = model.state_dict().items()
    return {key: value for key, value in entries if isinstance(value, torch.Tensor)}


def no_candidates(contents: Contents) -> InputError:
    """Return the error for a file without weights."""
    return InputError(f"{contents.path}: {peculiarity(contents) or no_weights(contents.tree)}")


def no_weights(tree: object) -> str:
    """Return what a file without weights holds instead, and what to do."""
    deep = first_below(tree)
    if deep:
        return (
            f"expected named tensors at most {MAX_DEPTH} levels deep, got them below "
            f"{some([repr(deep)])}: save that part by itself"
        )
    return "expected named tensors, got a file without any: save the model's state_dict()"


def head_size_of(fit: Fit) -> int | None:
    """Return the number of outputs that the last layer of the model has in the file, or None."""
    answers = {**fit.match.pairs, **fit.match.mismatched}
    last = [key for key, shape in fit.model_shapes.items() if len(shape) > 1 and key in answers]
    return fit.candidate.tensors[answers[last[-1]]].shape[0] if last else None


def _candidates(contents: Contents, weights: str | None) -> tuple[Candidate, ...]:
    found = find_candidates(contents.tree)
    if not found:
        raise no_candidates(contents)
    if weights is None:
        return found
    return (named_candidate(contents, found, weights),)


def named_candidate(contents: Contents, found: tuple[Candidate, ...], weights: str) -> Candidate:
    """Return the set of weights of that name.

    Raises:
        InputError: There is none.
    """
    for candidate in found:
        if candidate.name == weights:
            return candidate
    names = some([candidate.name for candidate in found])
    raise InputError(
        f"{contents.path}: expected a set of weights named '{weights}', got {names}: "
        "give one of these names"
    )


def _fit(contents: Contents, candidate: Candidate, wanted: Mapping[str, torch.Tensor]) -> Fit:
    shapes = shapes_of(wanted)
    try:
        found = match(shapes_of(candidate.tensors), shapes)
    except InputError as error:
        raise InputError(f"{contents.path}: {error}") from error
    missing = _truly_missing(found, wanted)
    forgiven = set(found.missing) - set(missing)
    return Fit(
        candidate=candidate,
        match=found,
        missing=missing,
        total=_elements(shapes) - _elements({key: shapes[key] for key in forgiven}),
        model_shapes=shapes,
    )


def _truly_missing(found: Match, wanted: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
    """Drop what a whole checkpoint may lack.

    A second name of a tied tensor (safetensors writes only one of them), and counters that
    evaluation does not use (that of batch norm came with torch 0.4.1).
    """
    matched = {_memory(wanted[key]) for key in found.pairs}
    return tuple(
        key
        for key in found.missing
        if not key.endswith(COUNTERS) and _memory(wanted[key]) not in matched
    )


def _memory(tensor: torch.Tensor) -> tuple[int, tuple[int, ...], tuple[int, ...]] | int:
    """Return what two tensors share if and only if they are the same values in memory."""
    if not tensor.numel() or tensor.is_meta:
        return id(tensor)
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride()


def _elements(shapes: Shapes) -> int:
    return sum(math.prod(shape) for shape in shapes.values())
