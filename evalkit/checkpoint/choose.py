"""Which model a checkpoint goes into, where nobody gives one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from evalkit import models
from evalkit.checkpoint.candidates import find_candidates, is_averaged
from evalkit.checkpoint.fit import no_candidates
from evalkit.checkpoint.guess import guess_model
from evalkit.checkpoint.layout import strip_wrappers
from evalkit.checkpoint.report import found_value
from evalkit.checkpoint.stored_classes import found_classes
from evalkit.errors import InputError
from evalkit.wording import counted, some

if TYPE_CHECKING:
    from collections.abc import Iterator

    from evalkit.checkpoint.read import Contents


WHOLE_MODULE = (
    "; the file holds a whole module, which is the model if you wrote it and trust it (trust=True)"
)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A model, what it was built from, and why where that was guessed."""

    model: nn.Module
    spec: str | None = None
    guess: str | None = None


def choose_model(
    contents: Contents,
    given: nn.Module | str | None,
    *,
    num_classes: int | None = None,
    weights: str | None = None,
) -> Choice:
    """Return the model that a checkpoint goes into.

    Args:
        contents: What `read` returned.
        given: A model, or what to build it from. None takes the module that the file itself is
            (where it is trusted), the one that the file names (of torchvision or timm), or the
            only architecture of these that has the file's keys and shapes.
        num_classes: Number of outputs of a model that is given by its spec. None takes the
            number of classes that the file names.
        weights: Name of the set of weights that is to be loaded.

    Raises:
        InputError: There is none.
    """
    if isinstance(given, nn.Module):
        return Choice(model=given)
    classes = found_classes(contents.notes)
    in_file = len(classes) if classes else None
    if isinstance(given, str):
        number = in_file if num_classes is None else num_classes
        return Choice(model=models.build(given, num_classes=number), spec=given)
    if contents.is_trusted and (module := _module_in(contents, weights)) is not None:
        return Choice(model=module)
    spec = found_value(contents.notes, "model_spec")
    if isinstance(spec, str):
        _require_library(contents, spec)
        return Choice(model=models.build(spec, num_classes=in_file), spec=spec)
    return _guessed(contents, weights)


def _require_library(contents: Contents, spec: str) -> None:
    if not models.is_library_spec(spec):
        raise InputError(
            f"{contents.path}: expected a model to load into, got none; the file asks for "
            f"'{spec}', which would run code that the file chose: give that model yourself if you "
            "trust it"
        )


def _guessed(contents: Contents, weights: str | None) -> Choice:
    found = find_candidates(contents.tree)
    if not found:
        raise no_candidates(contents)
    guess = guess_model(contents.tree, weights=weights)
    if guess.spec is None:
        whole = any(one.is_module for one in found) and not contents.is_trusted
        raise InputError(
            f"{contents.path}: expected a model to load into, got none, and the file names none "
            f"({_inventory(contents)}): {guess.reason}{WHOLE_MODULE if whole else ''}"
        )
    model = models.build(guess.spec, num_classes=guess.num_classes)
    return Choice(model=model, spec=guess.spec, guess=None if guess.is_named else guess.reason)


def _module_in(contents: Contents, weights: str | None) -> nn.Module | None:
    """Return the module that a trusted file holds, or one of several: raw before averaged."""
    found = dict(_modules(contents.tree, ""))
    if weights is not None:
        return found.get(weights)
    raw = [module for name, module in found.items() if not is_averaged(name)]
    return next(iter([*raw, *found.values()]), None)


def _modules(node: object, name: str) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(node, nn.Module):
        yield name or ".", node
    elif isinstance(node, dict) and not name:
        for key, value in node.items():
            yield from _modules(value, str(key))


def _inventory(contents: Contents) -> str:
    largest = max(find_candidates(contents.tree), key=lambda candidate: candidate.elements)
    tensors, prefix = strip_wrappers(largest.tensors)
    without = f", without '{prefix}'" if prefix else ""
    held = f"{counted(len(tensors), 'tensor')} in '{largest.name}'"
    return f"{held}: {some(list(tensors), shown=3)}{without}"
