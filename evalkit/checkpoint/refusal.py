"""Why a load does not count, and what to do: the sentences that a failed load ends with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evalkit.checkpoint.fit import Fit, named_tensors
from evalkit.checkpoint.layout import WRAPPERS
from evalkit.wording import counted, share, some

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import nn


A_LARGE_PART = 0.5  # with less, another model is likelier than a partial load


def why_refused(fit: Fit, model: nn.Module, allow_partial: float | None) -> str | None:
    """Return the line that refuses *fit*, or None where it is good enough.

    Args:
        fit: The best that the file offers.
        model: The model that is to be filled.
        allow_partial: The share of the model's values that is enough; None asks for all.
    """
    name = type(model).__name__
    if not fit.match.pairs:
        return _nothing_matched(fit, model)
    if allow_partial is None and fit.fraction == 1:
        return _deeper(fit, model)
    if fit.fraction >= (1 if allow_partial is None else allow_partial):
        return None
    shown = share(fit.fraction)
    if allow_partial is not None:
        return (
            f"expected weights for at least {allow_partial} of the values of {name}, got {shown}: "
            f"{_differences(fit)}: give the model that was trained"
        )
    if head := head_mismatch(fit.mismatched_shapes):
        modules, in_file, in_model = head
        return (
            f"expected a head of {in_model} classes as the model has it, got one of {in_file} "
            f"classes in the file ({some(modules)}): build the model for {in_file} classes (on the "
            f"command line: name them with --classes), or give allow_partial={shown} to keep the "
            "model's own head"
        )
    meant = f", or allow_partial={shown} if this is meant" if fit.fraction >= A_LARGE_PART else ""
    return (
        f"expected weights for all of {name}, got {shown} of its values: {_differences(fit)}: "
        f"give the model that was trained{meant}"
    )


def head_mismatch(
    mismatched: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]],
) -> tuple[list[str], int, int] | None:
    """Tell whether shapes differ as they do for another number of classes.

    Args:
        mismatched: Key -> shape in the file, shape in the model.

    Returns:
        The modules, the number of classes in the file and that in the model; or None.

    Example:
        >>> head_mismatch({"fc.weight": ((1000, 512), (10, 512)), "fc.bias": ((1000,), (10,))})
        (['fc'], 1000, 10)
    """
    sizes = {(file[:1], model[:1]) for file, model in mismatched.values()}
    only_first_differs = all(
        file and model and file[1:] == model[1:] for file, model in mismatched.values()
    )
    if len(sizes) != 1 or not only_first_differs:
        return None
    ((in_file, in_model),) = sizes
    modules = dict.fromkeys(key.rpartition(".")[0] or key for key in mismatched)
    return list(modules), in_file[0], in_model[0]


def deeper_blocks(fit: Fit, model_keys: Iterable[str]) -> tuple[str, ...]:
    """Return the numbered blocks of the file that continue a series of blocks of the model.

    The whole of resnet18 is found, name by name and shape by shape, in the weights of resnet34:
    only these blocks tell that a fully matched model is not the one that was trained.
    """
    children: dict[tuple[str, ...], set[str]] = {}
    for key in model_keys:
        parts = _bare(key)
        for depth, part in enumerate(parts):
            children.setdefault(parts[:depth], set()).add(part)
    found: dict[str, None] = {}
    for key in fit.match.unexpected:
        prefix = next((one for one in fit.match.prefixes if key.startswith(one)), "")
        parts = _bare(key.removeprefix(prefix))
        depth = 0
        while depth < len(parts) and parts[depth] in children.get(parts[:depth], ()):
            depth += 1
        siblings = children.get(parts[:depth], set())
        if parts[depth : depth + 1] and parts[depth].isdigit() and any(map(str.isdigit, siblings)):
            found[".".join(parts[: depth + 1])] = None
    return tuple(found)


def _bare(key: str) -> tuple[str, ...]:
    return tuple(part for part in key.split(".") if part not in WRAPPERS)


def _deeper(fit: Fit, model: nn.Module) -> str | None:
    blocks = deeper_blocks(fit, named_tensors(model))
    if not blocks:
        return None
    return (
        f"expected the weights of {type(model).__name__}, got those of a deeper model, with "
        f"{counted(len(blocks), 'block')} more: {some(blocks)}: give the model that was trained, "
        "or allow_partial=1 if this is meant"
    )


def _nothing_matched(fit: Fit, model: nn.Module) -> str:
    in_file = [f"{key} {tuple(tensor.shape)}" for key, tensor in fit.candidate.tensors.items()]
    in_model = [f"{key} {tuple(tensor.shape)}" for key, tensor in named_tensors(model).items()]
    return (
        f"expected weights for {type(model).__name__}, which has {some(in_model, shown=2)}, "
        f"got none that fit by name and shape: '{fit.candidate.name}' has "
        f"{some(in_file, shown=2)}: give the model that was trained"
    )


def _differences(fit: Fit) -> str:
    shapes = [
        f"{key} is {file} in the file and {model} in the model"
        for key, (file, model) in fit.mismatched_shapes.items()
    ]
    parts = []
    if fit.missing:
        parts.append(f"missing {some(fit.missing)}")
    if shapes:
        parts.append(f"other shapes: {some(shapes, shown=3)}")
    return "; ".join(parts)
