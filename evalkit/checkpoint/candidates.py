"""Where in a checkpoint the weights are: every set of named tensors, to depth 3."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from evalkit.checkpoint.harmless import PlainArray
from evalkit.checkpoint.inert import Inert
from evalkit.checkpoint.modules import is_module, module_tensors, without_gradient
from evalkit.checkpoint.tensors import from_array

MAX_DEPTH = 3
DEEPEST = 20  # where weights are still looked for, to say that they are too deep
MAX_ENTRIES = 500_000  # of dicts; one that refers to itself a thousand times has more
MAX_CANDIDATES = 200
MAX_ITEMS = 100  # of a list
THE_FILE_ITSELF = "."
# Parts of a checkpoint that hold tensors which are no weights.
_NOT_WEIGHTS = re.compile(r"optim|scheduler|scaler|rng|callbacks|loops|metric", re.IGNORECASE)
_FORMER = re.compile(r"(^|[._])(init|initial|pretrained|prev|previous|old)([._]|$)", re.IGNORECASE)
_AVERAGED = re.compile(r"(^|[._])(ema|swa|averaged?|shadow|teacher)([._]|$)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A set of tensors in a checkpoint that may be the weights of a model."""

    name: str  # the path to it, such as "state_dict" or "model.ema"; "." is the file itself
    tensors: Mapping[str, torch.Tensor]
    others: Mapping[str, Any] = field(default_factory=dict)  # beside them, by key: no tensors
    is_module: bool = False  # a module that was pickled whole

    @property
    def elements(self) -> int:
        """Number of values in all tensors."""
        return sum(tensor.numel() for tensor in self.tensors.values())

    @property
    def weight(self) -> int:
        """Number of values that may be trained weights: no counters, no random state."""
        tensors = self.tensors.values()
        return sum(one.numel() for one in tensors if one.is_floating_point() or one.is_quantized)

    @property
    def is_averaged(self) -> bool:
        """Whether the name says that these are averages of the weights (EMA, SWA, a teacher)."""
        return is_averaged(self.name)

    @property
    def is_former(self) -> bool:
        """Whether the name says that these are weights from before the training."""
        return is_former(self.name)


def is_former(name: str) -> bool:
    """Whether a name speaks of weights from before the training.

    Example:
        >>> [is_former(name) for name in ("initial_state_dict", "state_dict", "initializer")]
        [True, False, False]
    """
    return _FORMER.search(name) is not None


def is_averaged(name: str) -> bool:
    """Whether a name speaks of averaged weights.

    Example:
        >>> [is_averaged(name) for name in ("state_dict_ema", "teacher", "schema")]
        [True, True, False]
    """
    return _AVERAGED.search(name) is not None


def find_candidates(tree: object) -> tuple[Candidate, ...]:
    """List the sets of named tensors in a checkpoint, to depth 3, in the order of the file.

    Modules that were pickled whole count as the set of their parameters and buffers. Values that
    are no tensors are kept apart, and the state of optimizers and schedules is left out.

    Example:
        >>> tree = {"epoch": 3, "state_dict": {"fc.weight": torch.ones(2, 2), "note": "x"}}
        >>> [(candidate.name, list(candidate.tensors)) for candidate in find_candidates(tree)]
        [('state_dict', ['fc.weight'])]
    """
    return tuple(itertools.islice(_walk(tree, (), _Budget()), MAX_CANDIDATES))


def first_below(tree: object) -> str:
    """Return the name of the first set of named tensors that lies deeper than 3, or "".

    Example:
        >>> first_below({"a": {"b": {"c": {"d": {"fc.weight": torch.ones(1)}}}}})
        'a.b.c.d'
    """
    found = next(_walk(tree, (), _Budget(), deepest=DEEPEST), None)
    return found.name if found is not None else ""


@dataclass
class _Budget:
    entries: int = MAX_ENTRIES


def _walk(
    node: object, path: tuple[str, ...], budget: _Budget, *, deepest: int = MAX_DEPTH
) -> Iterator[Candidate]:
    if budget.entries < 0:
        return
    name = ".".join(path) or THE_FILE_ITSELF
    if is_module(node):
        yield Candidate(name=name, tensors=module_tensors(node), is_module=True)
        return
    named = _named(node)
    budget.entries -= len(named)
    tensors = {key: found for key, value in named.items() if (found := _tensor(value)) is not None}
    if tensors:
        others = {key: value for key, value in named.items() if key not in tensors}
        yield Candidate(name=name, tensors=tensors, others=others)
    if len(path) < deepest:
        for key, value in named.items():
            if not _NOT_WEIGHTS.search(key):
                yield from _walk(value, (*path, key), budget, deepest=deepest)


def _named(node: object) -> dict[str, Any]:
    """Return what has a name in a node: entries of dicts and of what inherits from them, items."""
    if isinstance(node, Inert):
        node = node.values()
    if isinstance(node, list | tuple):
        items = [(position, item) for position, item in enumerate(node) if _may_hold_names(item)]
        return {str(position): item for position, item in items[:MAX_ITEMS]}
    if not isinstance(node, Mapping):
        return {}
    return {key: value for key, value in node.items() if isinstance(key, str)}


def _may_hold_names(item: object) -> bool:
    return isinstance(item, Mapping | Inert) or is_module(item)


def _tensor(value: object) -> torch.Tensor | None:
    if isinstance(value, PlainArray):
        return from_array(value)
    return without_gradient(value) if isinstance(value, torch.Tensor) else None
