"""Directories of torch.distributed.checkpoint: tensors in parts, from the files of all ranks."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from evalkit.checkpoint.inert import Inert
from evalkit.checkpoint.mapped import Mapped, Promise
from evalkit.checkpoint.names import require_plain_name
from evalkit.checkpoint.pickles import Unpickler
from evalkit.checkpoint.scattered import scattered
from evalkit.checkpoint.tensors import KNOWN
from evalkit.checkpoint.zips import TorchZip

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

METADATA = ".metadata"
_OPTIMIZER = re.compile(r"optim", re.IGNORECASE)


@dataclass(kw_only=True)
class Assembled:
    """A checkpoint put together from the files of all ranks."""

    tree: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Mapped] = field(default_factory=dict)  # by name in the directory
    promises: dict[str, list[Promise]] = field(default_factory=dict)  # by the same names
    unknown: dict[str, None] = field(default_factory=dict)


def read_distributed(folder: Path) -> Assembled:
    """Read a directory that torch.distributed.checkpoint wrote, with any number of ranks.

    Tensors of an optimizer are left out: they may be many times larger than the model.

    Raises:
        ValueError: A part is missing, or what is described is no checkpoint.
    """
    description = _attributes(_metadata(folder))
    entries = _attributes(description, "state_dict_metadata")
    places = _places(_attributes(description, "storage_data"))
    paths = description.get("planner_data") or {}
    assembled = Assembled()
    for name, entry in entries.items():
        path = paths.get(name, (name,)) if isinstance(paths, dict) else (name,)
        if not any(_OPTIMIZER.search(str(part)) for part in path):
            value = _value(folder, assembled, entry, places.get(name, []))
            _put(assembled.tree, [str(part) for part in path], value)
    return assembled


def _metadata(folder: Path) -> Any:
    with (folder / METADATA).open("rb") as stream:
        return Unpickler(KNOWN).load(stream)


def _attributes(value: Any, name: str | None = None) -> dict[Any, Any]:
    """Return the attributes of an object, or the dict that one of them is."""
    if name is not None:
        value = value.get(name)
    found = value.state if isinstance(value, Inert) else value
    if not isinstance(found, dict):
        raise ValueError(f"{name or METADATA} that is {type(found).__name__}")  # noqa: TRY004
    return found


def _places(storage: dict[Any, Any]) -> dict[str, list[tuple[tuple[int, ...], dict[str, Any]]]]:
    """Return name -> where its parts begin in it, and in which bytes of which file they are."""
    places: dict[str, list[tuple[tuple[int, ...], dict[str, Any]]]] = {}
    for index, info in storage.items():
        of = _attributes(index)
        begin = tuple(of.get("offset") or ())
        places.setdefault(str(of["fqn"]), []).append((begin, _attributes(info)))
    return places


def _value(
    folder: Path,
    assembled: Assembled,
    entry: Any,
    places: list[tuple[tuple[int, ...], dict[str, Any]]],
) -> Any:
    parts = [(begin, _part(folder, assembled, info)) for begin, info in places]
    if not parts:
        raise ValueError("an entry without bytes")
    size = entry.state.get("size") if isinstance(entry, Inert) and entry.state else None
    if size is None or not all(isinstance(part, torch.Tensor) for _begin, part in parts):
        return parts[0][1]
    return scattered(size, parts)


def _part(folder: Path, assembled: Assembled, info: Mapping[str, Any]) -> Any:
    """Read one part: what torch.save wrote for it, among others in one file."""
    if info.get("transform_descriptors"):
        raise ValueError("parts that were transformed when they were written")
    name = require_plain_name(str(info["relative_path"]))
    if name not in assembled.files:
        assembled.files[name] = Mapped(folder / name)
    archive = TorchZip(assembled.files[name].whole().part(info["offset"], info["length"]))
    tree = archive.tree()
    assembled.unknown.update(dict.fromkeys(archive.unknown))
    assembled.promises.setdefault(name, []).extend(archive.promises())
    return tree


def _put(tree: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        below = tree.setdefault(part, {})
        if not isinstance(below, dict):
            raise ValueError(f"{'.'.join(path)} below a value")  # noqa: TRY004 - damage, no bug
        tree = below
    tree[path[-1]] = value


def file_names(folder: Path) -> Iterator[Path]:
    """Yield the files of such a directory, in order of their names."""
    yield from sorted([*folder.glob("*.distcp"), folder / METADATA])
