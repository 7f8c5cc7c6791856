"""Modules that were pickled whole: their tensors, taken out without their classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from evalkit.checkpoint.inert import Inert

MAX_DEPTH = 60  # of modules in modules; one that contains itself has more
MAX_MODULES = 200_000
SCRIPTED = "__torch__."  # what the classes of TorchScript begin with
# Tensors of torch before 0.4, which wrapped what they hold.
WRAPPED = ("torch.autograd.variable.Variable", "torch.nn.parameter.Parameter")


def is_module(node: object) -> bool:
    """Whether this is a module, or what a pickle of one left.

    Example:
        >>> is_module(Inert(path="project.Net", state={"_parameters": {}, "_modules": {}}))
        True
    """
    if isinstance(node, nn.Module):
        return True
    if not isinstance(node, Inert) or not isinstance(node.state, dict):
        return False
    return node.path.startswith(SCRIPTED) or {"_parameters", "_modules"} <= node.state.keys()


def module_tensors(module: object) -> dict[str, torch.Tensor]:
    """Return the parameters and buffers of a module under the names of its state_dict.

    Example:
        >>> inner = {"_parameters": {"weight": torch.ones(2)}, "_buffers": {}, "_modules": {}}
        >>> outer = {"_parameters": {}, "_modules": {"fc": Inert(path="Linear", state=inner)}}
        >>> list(module_tensors(Inert(path="Net", state=outer)))
        ['fc.weight']
    """
    if isinstance(module, nn.Module):
        entries = module.state_dict().items()
        return {key: value for key, value in entries if isinstance(value, torch.Tensor)}
    budget = [MAX_MODULES]
    return dict(_tensors(module, "", budget, 0))


def module_attribute(node: object, name: str) -> Any:
    """Return an attribute of a module or of what a pickle of one left, or None."""
    if isinstance(node, Inert):
        return node.state.get(name) if isinstance(node.state, dict) else None
    return vars(node).get(name) if isinstance(node, nn.Module) else None


def without_gradient(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor that takes no part in training."""
    return tensor.detach() if tensor.requires_grad else tensor


def _tensors(
    node: object, prefix: str, budget: list[int], depth: int
) -> Iterator[tuple[str, torch.Tensor]]:
    budget[0] -= 1
    if not is_module(node) or not isinstance(node, Inert) or budget[0] < 0 or depth > MAX_DEPTH:
        return
    if node.path.startswith(SCRIPTED):
        tensors = children = node.state
    else:
        named = node.state.get("_non_persistent_buffers_set")
        hidden = named if isinstance(named, set) else set()
        buffers = _entries(node, "_buffers")
        kept = {key: value for key, value in buffers.items() if key not in hidden}
        tensors, children = {**_entries(node, "_parameters"), **kept}, _entries(node, "_modules")
    for key, value in tensors.items():
        tensor = _unwrapped(value)
        if tensor is not None:
            yield f"{prefix}{key}", without_gradient(tensor)
    for key, value in children.items():
        yield from _tensors(value, f"{prefix}{key}.", budget, depth + 1)


def _entries(node: Inert, name: str) -> Mapping[Any, Any]:
    found = node.state.get(name)
    if isinstance(found, Inert):
        found = found.values()
    return found if isinstance(found, Mapping) else {}


def _unwrapped(value: object) -> torch.Tensor | None:
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, Inert) and value.path in WRAPPED:
        held = (*value.arguments, *(value.state if isinstance(value.state, tuple) else ()))
        return next((item for item in held if isinstance(item, torch.Tensor)), None)
    return None
