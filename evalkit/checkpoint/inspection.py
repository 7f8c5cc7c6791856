"""What a checkpoint holds, without building a model and without running anything."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from evalkit.checkpoint.candidates import Candidate, find_candidates
from evalkit.checkpoint.danger import dangerous, warnings_of
from evalkit.checkpoint.finite import not_finite
from evalkit.checkpoint.fit import no_weights
from evalkit.checkpoint.guess import guess_model
from evalkit.checkpoint.inert import Inert
from evalkit.checkpoint.layout import strip_wrappers
from evalkit.checkpoint.peculiar import is_quantised, peculiarity
from evalkit.checkpoint.read import read
from evalkit.checkpoint.report import found_value, plain_dict_of
from evalkit.checkpoint.stored_classes import found_classes
from evalkit.wording import counted, some

LONGEST_TEXT = 60


@dataclass(frozen=True, kw_only=True)
class WeightSet:
    """One set of named tensors in a checkpoint."""

    name: str  # as ``weights`` takes it; "." is the file itself
    tensors: int
    values: int
    size_bytes: int
    dtypes: Mapping[str, int]  # "float32" -> number of tensors
    prefix: str  # of wrappers, that all keys begin with
    is_averaged: bool  # the name says so: EMA, SWA, a teacher
    is_module: bool  # a module that was pickled whole
    is_quantised: bool
    shapes: Mapping[str, tuple[int, ...]]  # key -> shape


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What is in a checkpoint."""

    path: str
    kind: str
    size_bytes: int
    sha256: str
    holds: Mapping[str, str]  # names at the top of the file -> what they are
    weights: tuple[WeightSet, ...]
    model_spec: str | None  # that the file names
    guess: str | None  # the model with exactly these names and shapes
    guess_reason: str
    num_classes: int | None  # outputs of the guessed model
    classes: tuple[str, ...] | None
    transform: Mapping[str, Any] | None
    unknown_classes: tuple[str, ...]  # named in the file and neither imported nor run
    dangerous: tuple[str, ...]  # those of them that would run, read or change something
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def inspect_checkpoint(path: str | Path) -> Inspection:
    """Say what a checkpoint holds: kind, sets of weights, architecture, classes, dangers.

    Args:
        path: As `load_checkpoint` takes it.

    Raises:
        InputError: It is no checkpoint, or a damaged one.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "last.pth"
        >>> torch.save({"epoch": 3, "model": {"module.fc.weight": torch.ones(2, 4)}}, path)
        >>> found = inspect_checkpoint(path)
        >>> found.kind, found.holds["epoch"], found.weights[0].name, found.weights[0].prefix
        ('torch zip', '3', 'model', 'module.')
    """
    contents = read(Path(path))
    guess = guess_model(contents.tree)
    candidates = find_candidates(contents.tree)
    spec = found_value(contents.notes, "model_spec")
    said = peculiarity(contents) or (None if candidates else no_weights(contents.tree))
    return Inspection(
        path=str(path),
        kind=contents.kind.value,
        size_bytes=contents.size_bytes,
        sha256=contents.sha256,
        holds={str(key): describe(value) for key, value in contents.notes.items()},
        weights=tuple(_weight_set(found) for found in candidates),
        model_spec=spec if isinstance(spec, str) else None,
        guess=guess.spec,
        guess_reason=guess.reason,
        num_classes=guess.num_classes,
        classes=found_classes(contents.notes),
        transform=plain_dict_of(found_value(contents.notes, "transform")),
        unknown_classes=contents.unknown,
        dangerous=tuple(dangerous(contents.unknown)),
        warnings=(
            *([said] if said else []),
            *_about_values(candidates),
            *warnings_of(contents),
        ),
    )


def describe(value: object) -> str:
    """Return in a few words what a value is.

    Example:
        >>> describe({"lr": 0.1}), describe(torch.ones(2, 3)), describe("resnet18")
        ('dict of 1', 'float32 (2, 3)', "'resnet18'")
    """
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, Inert):
        return f"object of {some([value.path])}"
    if isinstance(value, Mapping):
        return f"dict of {len(value)}"
    if isinstance(value, argparse.Namespace):
        return f"Namespace of {len(vars(value))}"
    if isinstance(value, list | tuple | set | frozenset):
        return f"{type(value).__name__} of {len(value)}"
    if isinstance(value, str):
        shown = value if len(value) <= LONGEST_TEXT else f"{value[:LONGEST_TEXT]}…"
        return repr(shown)
    plain = value is None or isinstance(value, bool | int | float | complex)
    return repr(value) if plain else type(value).__name__


def _about_values(candidates: Iterable[Candidate]) -> Iterator[str]:
    """Yield a line for every set of weights with values that are no numbers."""
    for found in candidates:
        bad = not_finite(found.tensors)
        if bad:
            held = counted(len(found.tensors), "tensor")
            which = "all of them" if len(bad) == len(found.tensors) else some(bad)
            yield (
                f"{len(bad)} of {held} in '{some([found.name])}' with NaN or infinite values "
                f"({which}), as a training that diverged leaves them: take an earlier checkpoint"
            )


def _weight_set(found: Candidate) -> WeightSet:
    tensors = found.tensors
    _stripped, prefix = strip_wrappers(tensors)
    return WeightSet(
        name=found.name,
        tensors=len(tensors),
        values=found.elements,
        size_bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()),
        dtypes=dict(
            Counter(str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values())
        ),
        prefix=prefix,
        is_averaged=found.is_averaged,
        is_module=found.is_module,
        is_quantised=is_quantised([*tensors, *found.others]),
        shapes={key: tuple(tensor.shape) for key, tensor in tensors.items()},
    )
