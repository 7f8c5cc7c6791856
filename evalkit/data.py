"""Where the samples are: a folder of class folders, a manifest, or a torch Dataset of one's own."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit import models
from evalkit.errors import InputError
from evalkit.images import EXTENSIONS, UnreadableError, read_image
from evalkit.wording import counted, natural_order, some

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    import torch
    from PIL.Image import Image

MANIFEST_SUFFIXES = (".csv", ".parquet", ".pq")
SPLIT_NAMES = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
# Columns of predictions.parquet that a manifest must not bring itself.
RESERVED = ("index", "prediction", "confidence", "label_probability", "loss", "top5")


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """One sample in memory."""

    image: Image | torch.Tensor
    label: str
    oddities: tuple[str, ...] = ()  # see `evalkit.images.read_image`


@dataclass(frozen=True, kw_only=True)
class Source:
    """Samples that can be loaded one by one, in any order and from several threads.

    Attributes:
        name: What the user gave.
        paths: One per sample, for the table of predictions.
        classes: Names of the classes that the data knows, in its own order.
        load: From the position of a sample and the mode of images ("RGB" or "L") to the sample.
            Raises `evalkit.images.UnreadableError`.
        columns: What else a manifest says of its samples, one row each; or None.
        order_is_a_guess: Whether another program may number these classes in another order.
    """

    name: str
    paths: Sequence[str]
    classes: tuple[str, ...]
    load: Callable[[int, str], Loaded]
    columns: pd.DataFrame | None = None
    order_is_a_guess: bool = False

    def __len__(self) -> int:
        return len(self.paths)


def open_data(data: str | Path | Source) -> Source:
    """Find the samples that *data* names.

    Args:
        data: A folder with one folder per class; a manifest (CSV or Parquet) with the columns
            ``path``, relative to the manifest, and ``label``; or "package.module:function" for
            a function that returns a torch Dataset of images and labels, with ``classes``.

    Raises:
        InputError: There are no samples, or it is none of these.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> (root / "cat").mkdir(), (root / "dog").mkdir()
        (None, None)
        >>> Image.new("RGB", (8, 8)).save(root / "dog" / "rex.png")
        >>> source = open_data(root)
        >>> source.classes, source.paths
        (('cat', 'dog'), ('dog/rex.png',))
    """
    if isinstance(data, Source):
        return data
    path = Path(data)
    if path.is_dir():
        return _folder(path)
    if path.is_file() and path.suffix.lower() in MANIFEST_SUFFIXES:
        return _manifest(path)
    place, _, name = str(data).rpartition(":")
    if place and name and not path.exists():
        return _dataset(str(data), models.load_object(place, name, what="data"))
    what = "a file of another kind" if path.exists() else "a path where there is nothing"
    raise InputError(
        "data must be a folder of class folders, a manifest (.csv or .parquet) or "
        f"package.module:function, got {path}: {what}"
    )


def _not_utf_8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return True
    return False


def _folder(root: Path) -> Source:
    """Samples in torchvision's order: classes sorted by name, then folders and files sorted."""
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
    return Source(
        name=str(root),
        paths=tuple(path.relative_to(root).as_posix() for path in files),
        classes=tuple(classes),
        load=lambda position, mode: _load_file(files[position], labels[position], mode),
        order_is_a_guess=classes != natural_order(classes),
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


def _load_file(path: Path, label: str, mode: str) -> Loaded:
    image, oddities = read_image(path, mode)
    return Loaded(image=image, label=label, oddities=oddities)


def _manifest(path: Path) -> Source:
    table = _read_table(path)
    absent = [name for name in ("path", "label") if name not in table]
    if absent:
        raise InputError(
            f"manifest must have the columns path and label, got {path} without "
            f"{' and '.join(absent)}: it has {some(list(table.columns))}"
        )
    reserved = [name for name in RESERVED if name in table]
    if reserved:
        raise InputError(
            f"manifest must leave the names {', '.join(RESERVED)} to the predictions, got {path} "
            f"with {', '.join(reserved)}: rename these columns"
        )
    if table.empty:
        raise InputError(f"manifest must have at least one row, got {path} with none")
    wanted = table[["path", "label"]]
    lacking = table.index[(wanted.isna() | (wanted == "")).any(axis=1)]
    if len(lacking):
        raise InputError(
            f"manifest must have a path and a label in every row, got {path} without in "
            f"{counted(len(lacking), 'row')}, the first of them row {lacking[0] + 1}"
        )
    paths = table["path"].astype(str).tolist()
    labels = table["label"].astype(str).tolist()
    names = sorted(set(labels))
    root = path.parent
    return Source(
        name=str(path),
        paths=tuple(paths),
        classes=tuple(natural_order(names) if all(map(str.isdecimal, names)) else names),
        load=lambda position, mode: _load_file(root / paths[position], labels[position], mode),
        columns=table.drop(columns=["path", "label"]),
        order_is_a_guess=names != natural_order(names),
    )


def _read_table(path: Path) -> pd.DataFrame:
    import pandas as pd

    if path.suffix.lower() != ".csv":
        return _read_parquet(path)
    try:
        # Class names such as "NA" and "007" are names, not gaps and numbers.
        text = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"manifest must be a CSV file, got {path}: {reason}") from error
    for name in text.columns.difference(["path", "label"]):
        text[name] = _numbers_where_all_are(text[name])
    return text


def _numbers_where_all_are(column: pd.Series[Any]) -> pd.Series[Any]:
    import pandas as pd

    try:
        return pd.to_numeric(column)
    except ValueError:
        return column


def _read_parquet(path: Path) -> pd.DataFrame:
    import pandas as pd
    import pyarrow as pa

    try:
        return pd.read_parquet(path)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"manifest must be a Parquet file, got {path}: {reason}") from error


def _dataset(spec: str, given: Any) -> Source:
    is_maker = isinstance(given, type) or not hasattr(given, "__getitem__")
    dataset = given() if is_maker and callable(given) else given
    classes = getattr(dataset, "classes", None)
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise InputError(
            f"data must be a function that returns a Dataset with a length, got '{spec}', which "
            f"returns {type(dataset).__name__}"
        )
    if not isinstance(classes, list | tuple) or not classes:
        raise InputError(
            f"data must be a Dataset with the names of its classes in its attribute classes, got "
            f"'{spec}' without: set it"
        )
    if not len(dataset):
        raise InputError(f"data must have at least one sample, got '{spec}' with none")
    names = tuple(str(name) for name in classes)

    def load(position: int, _mode: str) -> Loaded:
        try:
            image, label = dataset[position]
        except OSError as error:
            raise UnreadableError(" ".join(str(error).split())) from error
        if not isinstance(label, str) and 0 <= int(label) < len(names):
            label = names[int(label)]
        if label not in names:
            raise InputError(
                f"data must have labels among its {counted(len(names), 'class', 'classes')} "
                f"{some(names)}, got {label!r} for {spec}[{position}]"
            )
        return Loaded(image=image, label=label)

    paths = tuple(f"{spec}[{position}]" for position in range(len(dataset)))
    return Source(name=spec, paths=paths, classes=names, load=load)
