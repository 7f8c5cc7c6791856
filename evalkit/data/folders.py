"""A folder with one folder per class, as torchvision reads it."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from evalkit.csv_faults import twins
from evalkit.data.source import of_files
from evalkit.errors import InputError
from evalkit.images.reading import EXTENSIONS, read_bytes
from evalkit.wording import counted, natural_order, some

if TYPE_CHECKING:
    from collections.abc import Iterator

    from evalkit.data.source import Source

# Images whose endings torchvision does not know.
OTHER_IMAGES = frozenset(
    {".avif", ".dcm", ".dng", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jxl", ".npy", ".svg"}
)
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
    if alike := twins(classes):
        raise InputError(
            f"data must have class folders that more than blanks tell apart, got {alike} in "
            f"{root}: rename one"
        )
    passed: Counter[str] = Counter()
    found = [(name, path) for name in classes for path in _images_under(root, name, passed)]
    if not found:
        raise InputError(
            f"data must have images in its class folders, got {root} with none in "
            f"{counted(len(classes), 'folder')}: known are {', '.join(EXTENSIONS)}"
        )
    if undecodable := [path for _name, path in found if _not_utf_8(path)]:
        raise InputError(
            "data must have files with names in UTF-8, got "
            f"{counted(len(undecodable), 'other')} in {root}: "
            f"{some([ascii(path) for path in undecodable])}: rename them"
        )
    _refuse_equal_leaves(root, classes, found)
    labels = [name for name, _path in found]
    paths = [path for _name, path in found]
    return of_files(
        lambda position: read_bytes(f"{root}/{paths[position]}"),
        name=str(root),
        paths=tuple(paths),
        labels=labels,
        classes=tuple(classes),
        order_is_a_guess=classes != natural_order(classes),
        doubts=tuple(_passed_over(passed)),
    )


def _passed_over(passed: Counter[str]) -> Iterator[str]:
    """Say which images are none of the data, because torchvision's list of endings lacks theirs."""
    if passed:
        counts = [f"{suffix} ({count:,})" for suffix, count in passed.most_common()]
        images = counted(passed.total(), "image was", "images were")
        yield (
            f"{images} passed over in the class folders, by endings that torchvision does not "
            f"know: {some(counts)}; convert them, or list them in a manifest"
        )


def refuse_within(out: Path, data: Path) -> None:
    """Refuse a folder for results that would be a class of the data the next time.

    Raises:
        InputError: It is one.
    """
    place, root = out.resolve(), data.resolve()
    if root.is_dir() and place.is_relative_to(root):
        inside = place.relative_to(root).parts
        if not any(part.startswith(".") for part in inside):
            raise InputError(
                f"out must lie outside of the data, got {out} in {data}: its files would be "
                "samples of a class the next time"
            )


def _refuse_equal_leaves(root: Path, classes: list[str], found: list[tuple[str, str]]) -> None:
    """Refuse folders inside of class folders that some programs would take for classes.

    Whoever counts the innermost folders as classes (timm does) merges those of equal names. Where
    all classes are divided alike (``cat/images``, ``dog/images``) nobody can mean that.

    Raises:
        InputError: Classes share the names of some of their folders, or a folder in one class has
            the name of another class.
    """
    leaves: dict[str, set[str]] = {name: set() for name, _path in found}
    for name, parent in {(name, path.rpartition("/")[0]) for name, path in found}:
        leaves[name].add(parent.rpartition("/")[2] if parent != name else "")
    within: dict[str, list[str]] = {}
    for name, inner in sorted(leaves.items()):
        for leaf in inner - {""}:
            within.setdefault(leaf, []).append(name)
    are_alike = len({frozenset(inner) for inner in leaves.values()}) == 1
    shared = [leaf for leaf, owners in within.items() if len(owners) > 1 and not are_alike]
    shared += [leaf for leaf, owners in within.items() if {*classes} & {leaf} - {*owners}]
    if shared:
        leaf = min(shared)
        owners = sorted({*within[leaf], *({leaf} & {*classes})})
        raise InputError(
            "data must have folders inside of class folders that cannot be taken for classes, got "
            f"'{leaf}' in the classes {some(owners)} of {root}: rename it, or list the images in "
            "a manifest"
        )


def _images_under(root: Path, name: str, passed: Counter[str]) -> list[str]:
    """Return the images of a class, relative to *root*; texts, for there may be millions.

    Args:
        root: The data.
        name: The class.
        passed: Counts the images of other kinds.
    """
    found: list[tuple[str, str]] = []
    for parent, folders, files in os.walk(root / name, followlinks=True):
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        _refuse_loops(parent, folders)
        seen = [file for file in files if not file.startswith(".")]
        known = [file for file in seen if file.lower().endswith(EXTENSIONS)]
        found += [(parent, file) for file in known]
        if len(known) < len(seen):
            suffixes = (os.path.splitext(file)[1].lower() for file in seen)  # noqa: PTH122
            passed.update(suffix for suffix in suffixes if suffix in OTHER_IMAGES)
    start = len(str(root / name)) - len(name)
    return [f"{Path(parent[start:]).as_posix()}/{file}" for parent, file in sorted(found)]


def _refuse_loops(parent: str, folders: list[str]) -> None:
    """Refuse links to what they are in: every image would be there forty times.

    Raises:
        InputError: There is one.
    """
    for link in (os.path.join(parent, folder) for folder in folders):  # noqa: PTH118 - of millions
        if os.path.islink(link):  # noqa: PTH114
            place = os.path.realpath(parent)
            if Path(place).is_relative_to(os.path.realpath(link)):
                raise InputError(
                    "data must have folders that end, got a link to a folder that it is in "
                    f"itself, {link}: remove it"
                )


def _no_class_folders(root: Path, entries: list[Path]) -> str:
    images = sum(entry.suffix.lower() in EXTENSIONS for entry in entries)
    if not entries:
        inside = "nothing"
    else:
        inside = f"{counted(images, 'image')} and no folder" if images else "no folder"
    return (
        f"data must be a folder with one folder per class, got {root} with {inside} in it: put "
        "the images of each class into a folder of its name, or list them in a manifest"
    )
