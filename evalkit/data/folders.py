"""A folder with one folder per class, as torchvision reads it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from evalkit.data.source import of_files
from evalkit.errors import InputError
from evalkit.images import EXTENSIONS, read_bytes
from evalkit.wording import counted, natural_order, some

if TYPE_CHECKING:
    from evalkit.data.source import Source

SPLIT_NAMES = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})


def _not_utf_8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return True
    return False


def class_folders(root: Path) -> Source:
    """Read samples in torchvision's order: classes sorted by name, then folders and files sorted.

    Raises:
        InputError: There are no class folders, or no images in them, or they are ambiguous.
    """
    entries = [entry for entry in root.iterdir() if not entry.name.startswith(".")]
    classes = sorted(entry.name for entry in entries if entry.is_dir())
    if not classes:
        raise InputError(_no_class_folders(root, entries))
    undecodable = [name for name in classes if _not_utf_8(name)]
    if undecodable:
        raise InputError(
            "data must have class folders with names in UTF-8, got "
            f"{some([ascii(name) for name in undecodable])} in {root}: rename them"
        )
    if SPLIT_NAMES.issuperset(name.lower() for name in classes):
        raise InputError(
            f"data must be a folder with one folder per class, got {root} with the splits "
            f"{some(classes)}: give one of them, such as {root / classes[-1]}"
        )
    found = [(name, path) for name in classes for path in _images_under(root / name)]
    if not found:
        raise InputError(
            f"data must have images in its class folders, got {root} with none in "
            f"{counted(len(classes), 'folder')}: known are {', '.join(EXTENSIONS)}"
        )
    labels = [name for name, _path in found]
    files = [path for _name, path in found]
    _refuse_equal_leaves(root, found)
    return of_files(
        lambda position: read_bytes(files[position]),
        name=str(root),
        paths=tuple(path.relative_to(root).as_posix() for path in files),
        labels=labels,
        classes=tuple(classes),
        order_is_a_guess=classes != natural_order(classes),
    )


def _refuse_equal_leaves(root: Path, found: list[tuple[str, Path]]) -> None:
    """Refuse folders inside of class folders that some programs would take for classes.

    Whoever counts the innermost folders as classes (timm does) merges those of equal names. Where
    all classes are divided alike (``cat/images``, ``dog/images``) nobody can mean that.

    Raises:
        InputError: Classes share the names of some of their folders, or a folder in one class has
            the name of another class.
    """
    leaves: dict[str, set[str]] = {name: set() for name, _path in found}
    for name, parent in {(name, path.parent) for name, path in found}:
        leaves[name].add(parent.name if parent != root / name else "")
    within: dict[str, list[str]] = {}
    for name, inner in sorted(leaves.items()):
        for leaf in inner - {""}:
            within.setdefault(leaf, []).append(name)
    are_alike = len({frozenset(inner) for inner in leaves.values()}) == 1
    shared = [leaf for leaf, owners in within.items() if len(owners) > 1 and not are_alike]
    shared += [leaf for leaf, owners in within.items() if {*leaves} & {leaf} - {*owners}]
    if shared:
        leaf = min(shared)
        owners = sorted({*within[leaf], *({leaf} & {*leaves})})
        raise InputError(
            "data must have folders inside of class folders that cannot be taken for classes, got "
            f"'{leaf}' in the classes {some(owners)} of {root}: rename it, or list the images in "
            "a manifest"
        )


def _images_under(folder: Path) -> list[Path]:
    found = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            (parent, name)
            for name in sorted(files)
            if name.lower().endswith(EXTENSIONS) and not name.startswith(".")
        ]
    return [Path(parent, name) for parent, name in sorted(found)]


def _no_class_folders(root: Path, entries: list[Path]) -> str:
    images = sum(entry.suffix.lower() in EXTENSIONS for entry in entries)
    if not entries:
        return f"data must be a folder with one folder per class, got {root} with nothing in it"
    inside = f"{counted(images, 'image')} and no folder" if images else "no folder"
    return (
        f"data must be a folder with one folder per class, got {root} with {inside} in it: put "
        "the images of each class into a folder of its name, or list them in a manifest"
    )
