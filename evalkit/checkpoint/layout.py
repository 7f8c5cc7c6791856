"""Where in a checkpoint the weights are, and which part of their keys is only packaging.

Nothing here replaces text inside keys: keys are lists of components, a prefix is removed because
the model's own keys and shapes ask for it, and every key is remembered under its original name.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from evalkit.errors import InputError

Shapes = Mapping[str, tuple[int, ...]]

MAX_DEPTH = 3
THE_FILE_ITSELF = "."
# Modules that wrap a model and put their attribute's name into every key below it; the last three
# are also met in the middle of keys (torch.compile, FSDP, activation checkpointing of one block).
WRAPPERS = frozenset(
    {"module", "_forward_module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
)
# Parts of a checkpoint that hold tensors which are no weights.
_NOT_WEIGHTS = re.compile(r"optim|scheduler|scaler|rng|callbacks|loops|metric", re.IGNORECASE)
_AVERAGED = re.compile(r"(^|[._])(ema|swa|averaged?|shadow|teacher)([._]|$)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A set of tensors in a checkpoint that may be the weights of a model."""

    name: str  # the path to it, such as "state_dict" or "model.ema"; "." is the file itself
    tensors: Mapping[str, torch.Tensor]

    @property
    def elements(self) -> int:
        """Number of values in all tensors."""
        return sum(tensor.numel() for tensor in self.tensors.values())

    @property
    def is_averaged(self) -> bool:
        """Whether the name says that these are averages of the weights (EMA, SWA, a teacher)."""
        return is_averaged(self.name)


@dataclass(frozen=True, kw_only=True)
class Match:
    """How the keys of a file answer to the keys of a model."""

    pairs: Mapping[str, str]  # model key -> file key of the same shape
    mismatched: Mapping[str, str]  # model key -> file key of another shape
    missing: tuple[str, ...]  # model keys
    unexpected: tuple[str, ...]  # file keys
    prefixes: tuple[str, ...]  # what was removed from file keys, such as "module."
    elements: int  # values in the pairs


def is_averaged(name: str) -> bool:
    """Whether a name speaks of averaged weights.

    Example:
        >>> [is_averaged(name) for name in ("state_dict_ema", "teacher", "schema")]
        [True, True, False]
    """
    return _AVERAGED.search(name) is not None


def find_candidates(tree: object) -> tuple[Candidate, ...]:
    """List the sets of named tensors in a checkpoint, to depth 3, in the order of the file.

    Values that are no tensors are left out, and so is the state of optimizers and schedules.

    Example:
        >>> tree = {"epoch": 3, "state_dict": {"fc.weight": torch.ones(2, 2), "note": "x"}}
        >>> [(candidate.name, list(candidate.tensors)) for candidate in find_candidates(tree)]
        [('state_dict', ['fc.weight'])]
    """
    return tuple(_walk(tree, (), MAX_DEPTH))


def _walk(node: object, path: tuple[str, ...], depth: int) -> Iterator[Candidate]:
    if not isinstance(node, Mapping):
        return
    named: dict[str, Any] = {key: value for key, value in node.items() if isinstance(key, str)}
    tensors = {key: value for key, value in named.items() if isinstance(value, torch.Tensor)}
    if tensors:
        yield Candidate(name=".".join(path) or THE_FILE_ITSELF, tensors=tensors)
    if depth:
        for key, value in named.items():
            if not _NOT_WEIGHTS.search(key):
                yield from _walk(value, (*path, key), depth - 1)


def shapes_of(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor under its key."""
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


def strip_wrappers(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], str]:
    """Remove the wrappers that all keys begin with; what to do where there is no model to ask.

    Returns:
        The tensors under their shorter keys, and the prefix that was removed.

    Example:
        >>> tensors, prefix = strip_wrappers({"module._orig_mod.submodule.weight": torch.ones(1)})
        >>> list(tensors), prefix
        (['submodule.weight'], 'module._orig_mod.')
    """
    prefix = ""
    keys = list(tensors)
    while heads := {key.removeprefix(prefix).partition(".")[0] for key in keys}:
        if len(heads) > 1 or not heads <= WRAPPERS:
            break
        prefix += f"{heads.pop()}."
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}, prefix


def match(file: Shapes, model: Shapes) -> Match:
    """Pair the keys of a file with those of a model, by name and shape.

    Tried as they are, and without wrapper names anywhere in the keys of both; the first wins
    unless the second pairs more elements.

    Raises:
        InputError: Two prefixes fit the model equally well and neither is an average.

    Example:
        >>> file = {"module.fc.weight": (10, 4), "module.fc.bias": (10,)}
        >>> found = match(file, {"fc.weight": (10, 4), "fc.bias": (10,)})
        >>> found.prefixes, found.elements, found.missing
        (('module.',), 50, ())
    """
    plain = _match_components(file, model)
    file_keys, model_keys = _unwrapped(file), _unwrapped(model)
    if len(file_keys) < len(file) or len(model_keys) < len(model):
        return plain  # two keys became one: without wrappers they could not be told apart
    bare = _match_components(
        {key: file[original] for key, original in file_keys.items()},
        {key: model[original] for key, original in model_keys.items()},
    )
    return plain if plain.elements >= bare.elements else _renamed(bare, file_keys, model_keys)


def _unwrapped(keys: Shapes) -> dict[str, str]:
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
