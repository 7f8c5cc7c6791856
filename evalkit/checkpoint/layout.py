"""Which part of a checkpoint's keys is only packaging, told by the keys of a model.

Nothing here replaces text inside keys: keys are lists of components, a prefix is removed because
the model's own keys and shapes ask for it, and every key is remembered under its original name.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from evalkit.checkpoint.candidates import is_averaged
from evalkit.errors import InputError

if TYPE_CHECKING:
    import torch

Shapes = Mapping[str, tuple[int, ...]]

# Modules that wrap a model and put their attribute's name into every key below it; the last three
# are also met in the middle of keys (torch.compile, FSDP, activation checkpointing of one block).
WRAPPERS = frozenset(
    {"module", "_forward_module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
)
AVERAGE_COUNTER = "n_averaged"  # that AveragedModel puts beside the keys of what it wraps


@dataclass(frozen=True, kw_only=True)
class Match:
    """How the keys of a file answer to the keys of a model."""

    pairs: Mapping[str, str]  # model key -> file key of the same shape
    mismatched: Mapping[str, str]  # model key -> file key of another shape
    missing: tuple[str, ...]  # model keys
    unexpected: tuple[str, ...]  # file keys
    prefixes: tuple[str, ...]  # what was removed from file keys, such as "module."
    elements: int  # values in the pairs
    model_prefixes: tuple[str, ...] = ()  # what only the model's keys begin with


def shapes_of(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor under its key."""
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


def strip_wrappers(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], str]:
    """Remove the wrappers that all keys begin with; what to do where there is no model to ask.

    Returns:
        The tensors under their shorter keys, and the prefix that was removed.

    Example:
        >>> import torch
        >>> tensors, prefix = strip_wrappers({"module._orig_mod.submodule.weight": torch.ones(1)})
        >>> list(tensors), prefix
        (['submodule.weight'], 'module._orig_mod.')
    """
    prefix = ""
    keys = [key for key in tensors if key != AVERAGE_COUNTER]
    while heads := {key.removeprefix(prefix).partition(".")[0] for key in keys}:
        if len(heads) > 1 or not heads <= WRAPPERS:
            break
        prefix += f"{heads.pop()}."
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}, prefix


def match(file: Shapes, model: Shapes) -> Match:
    """Pair the keys of a file with those of a model, by name and shape.

    Tried as they are, without wrapper names anywhere in the keys of both, and without prefixes
    that only the model has; the first wins unless a later one pairs more elements.

    Raises:
        InputError: Two prefixes fit the model equally well and neither is an average.

    Example:
        >>> file = {"module.fc.weight": (10, 4), "module.fc.bias": (10,)}
        >>> found = match(file, {"fc.weight": (10, 4), "fc.bias": (10,)})
        >>> found.prefixes, found.elements, found.missing
        (('module.',), 50, ())
        >>> match({"fc.weight": (10, 4)}, {"net.fc.weight": (10, 4)}).model_prefixes
        ('net.',)
    """
    best = _match_components(file, model)
    for attempt in (_match_bare, _match_below, _match_reversed):
        if not best.missing and not best.mismatched:
            break
        try:
            found = attempt(file, model)
        except InputError:
            continue  # several copies fit equally well: this way is not the one
        if found is not None and found.elements > best.elements:
            best = found
    return best


def _match_bare(file: Shapes, model: Shapes) -> Match | None:
    """Match without the names of wrappers, wherever they are; None where keys become equal."""
    file_keys, model_keys = _unwrapped(file), _unwrapped(model)
    if len(file_keys) < len(file) or len(model_keys) < len(model):
        return None
    bare_file = {key: file[original] for key, original in file_keys.items()}
    bare_model = {key: model[original] for key, original in model_keys.items()}
    found = _match_components(bare_file, bare_model)
    below = _match_below(bare_file, bare_model) if found.missing else None
    better = below if below and below.elements > found.elements else found
    return _renamed(better, file_keys, model_keys)


def _match_below(file: Shapes, model: Shapes) -> Match | None:
    """Match below what all keys of the model begin with: a model that holds the one in the file."""
    best: Match | None = None
    for prefix in _common_prefixes(list(model)):
        below = {key.removeprefix(prefix): key for key in model}
        found = _match_components(file, {key: model[full] for key, full in below.items()})
        if best is None or found.elements > best.elements:
            named = _renamed(found, {key: key for key in file}, below)
            best = replace(named, prefixes=found.prefixes, model_prefixes=(prefix,))
    return best


def _common_prefixes(keys: list[str]) -> Iterator[str]:
    """Yield every prefix, dot included, that all keys begin with, the shortest first.

    Example:
        >>> list(_common_prefixes(["net.0.fc.weight", "net.0.bn.weight"]))
        ['net.', 'net.0.']
    """
    prefix = ""
    while keys:
        heads = {key.removeprefix(prefix).partition(".") for key in keys}
        names = {name for name, _dot, _rest in heads}
        if len(names) > 1 or not all(rest for _name, _dot, rest in heads):
            return
        prefix += f"{names.pop()}."
        yield prefix


def _match_reversed(file: Shapes, model: Shapes) -> Match:
    """Match with the roles exchanged: prefixes are taken off the model's keys instead."""
    found = _match_components(model, file)
    return Match(
        pairs={key: name for name, key in found.pairs.items()},
        mismatched={key: name for name, key in found.mismatched.items()},
        missing=found.unexpected,
        unexpected=found.missing,
        prefixes=(),
        elements=found.elements,
        model_prefixes=found.prefixes,
    )


def unwrapped_keys(keys: Iterable[str]) -> dict[str, str]:
    """Return key without wrappers -> original key, or all as they are where two become one.

    Example:
        >>> unwrapped_keys(["module.fc._orig_mod.weight", "module.fc._orig_mod.bias"])
        {'fc.weight': 'module.fc._orig_mod.weight', 'fc.bias': 'module.fc._orig_mod.bias'}
    """
    keys = list(keys)
    found = _unwrapped(keys)
    return found if len(found) == len(keys) else {key: key for key in keys}


def _unwrapped(keys: Iterable[str]) -> dict[str, str]:
    """Return key without wrappers -> original key; fewer than *keys* where two became one."""
    return {".".join(part for part in key.split(".") if part not in WRAPPERS): key for key in keys}


def _renamed(bare: Match, file_keys: Mapping[str, str], model_keys: Mapping[str, str]) -> Match:
    """Put the original keys back into a match that was made without wrappers."""
    pairs = {model_keys[key]: file_keys[value] for key, value in bare.pairs.items()}
    wrappers = {f"{part}." for key in pairs.values() for part in key.split(".") if part in WRAPPERS}
    return Match(
        pairs=pairs,
        mismatched={model_keys[key]: file_keys[value] for key, value in bare.mismatched.items()},
        missing=tuple(model_keys[key] for key in bare.missing),
        unexpected=tuple(file_keys[key] for key in bare.unexpected),
        prefixes=(*sorted(wrappers), *bare.prefixes),
        elements=bare.elements,
        model_prefixes=bare.model_prefixes,
    )


def _match_components(file: Shapes, model: Shapes) -> Match:
    pairs: dict[str, str] = {}
    prefixes: list[str] = []
    while True:
        taken = set(pairs.values())
        prefix = _best_prefix(
            {key: shape for key, shape in file.items() if key not in taken},
            {key: shape for key, shape in model.items() if key not in pairs},
            first=not prefixes,
        )
        if prefix is None:
            break
        found = {
            key: prefix + key
            for key, shape in model.items()
            if key not in pairs and file.get(prefix + key) == shape and prefix + key not in taken
        }
        # A second prefix may bring what the first lacks (a head beside a backbone), but not
        # another copy of it: a student's head does not belong on a teacher's backbone.
        if any(prefix + key in file for key in pairs):
            break
        pairs |= found
        prefixes.append(prefix)
    mismatched = _other_shapes(file, model, pairs, prefixes or _name_prefix(file, model))
    used = {*pairs.values(), *mismatched.values()}
    return Match(
        pairs=pairs,
        mismatched=mismatched,
        missing=tuple(key for key in model if key not in pairs and key not in mismatched),
        unexpected=tuple(key for key in file if key not in used),
        prefixes=tuple(prefix for prefix in prefixes if prefix),
        elements=sum(math.prod(model[key]) for key in pairs),
    )


def _best_prefix(file: Shapes, model: Shapes, *, first: bool) -> str | None:
    """Return the prefix whose removal pairs the most elements, or None where none pairs any."""
    votes: Counter[str] = Counter()
    for key, shape in file.items():
        for prefix, rest in _splits(key):
            if model.get(rest) == shape:
                votes[prefix] += max(1, math.prod(shape))
    if not votes:
        return None
    most = max(votes.values())
    best = sorted((prefix for prefix, count in votes.items() if count == most), key=len)
    if "" in best or len(best) == 1:
        return best[0]
    raw = [prefix for prefix in best if not is_averaged(prefix)]
    if len(raw) == 1:
        return raw[0]
    if first:
        raise InputError(
            "expected one set of weights that fits the model, got several that fit equally well, "
            f"under the keys {', '.join(best[:5])}: save the one you mean by itself"
        )
    return None


def _splits(key: str) -> Iterator[tuple[str, str]]:
    """Yield every way to split a key into a prefix, dot included, and a rest.

    Example:
        >>> list(_splits("module.fc.bias"))
        [('', 'module.fc.bias'), ('module.', 'fc.bias'), ('module.fc.', 'bias')]
    """
    start = 0
    while start >= 0:
        yield key[:start], key[start:]
        dot = key.find(".", start)
        start = dot + 1 if dot >= 0 else -1


def _name_prefix(file: Shapes, model: Shapes) -> list[str]:
    """Return the prefix under which the most names agree, for a message about their shapes."""
    votes = Counter(prefix for key in file for prefix, rest in _splits(key) if rest in model)
    return [prefix for prefix, _count in votes.most_common(1)]


def _other_shapes(
    file: Shapes, model: Shapes, pairs: Mapping[str, str], prefixes: list[str]
) -> dict[str, str]:
    return {
        key: prefix + key
        for prefix in prefixes
        for key in model
        if key not in pairs and prefix + key in file
    }
