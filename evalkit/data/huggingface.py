"""Data sets of the library datasets, from a folder on disk or by name."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.data.source import Numbered, of_files, reserved
from evalkit.errors import InputError
from evalkit.images.reading import UnreadableError, read_bytes
from evalkit.wording import counted, natural_order, some

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from evalkit.data.source import Source

AT_ONCE = 10_000  # images whose lengths are looked at together
PREFIX = "huggingface:"
INSTALL = "pip install 'gpudiag[huggingface]'"
_SAVED = ("state.json", "dataset_dict.json")  # what save_to_disk leaves


def huggingface(data: str) -> Source:
    """Open a data set with one column of images and one of classes.

    Args:
        data: "huggingface:PATH", or with ":SPLIT" behind it: a folder that ``save_to_disk`` wrote,
            or anything else that ``datasets.load_dataset`` knows.

    Raises:
        InputError: There is no such data set or split, or its columns leave a choice.
    """
    dataset, place = _open(data)
    image, label = _columns(data, dataset)
    labels, classes, numbered = _labels(data, dataset, label)
    files = _encoded(dataset, image)
    return of_files(
        lambda position: _file(files[position][image]),
        name=data,
        paths=Numbered(place, len(dataset)),
        labels=labels,
        classes=classes,
        columns=_others(dataset, image, label, classes),
        numbered=numbered,
        order_is_a_guess=not numbered
        and not _named_classes(dataset, label)
        and list(classes) != natural_order(classes),
        version=_version(files, image),
    )


def _open(data: str) -> tuple[Any, str]:
    """Return a data set, and its path with its split."""
    try:
        import datasets
    except ImportError as error:
        raise InputError(f"reading {data} needs the library datasets: {INSTALL}") from error
    place = data.removeprefix(PREFIX)
    path, split = (place, "") if Path(place).exists() else _with_split(place)
    try:
        if any((Path(path) / name).is_file() for name in _SAVED):
            found = datasets.load_from_disk(path)
        else:
            found = datasets.load_dataset(path)
    except (OSError, ValueError, IndexError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"data must be a data set that opens, got {data}: {reason}") from error
    if not isinstance(found, dict):
        return found, path
    splits = list(found)
    if not split and len(splits) == 1:
        split = splits[0]
    if split not in found:
        got = f"'{split}'" if split else "none"
        raise InputError(
            f"data must name one of the splits {some(splits)}, got {got} in {data}: write "
            f"{PREFIX}{path}:{splits[0]}"
        )
    return found[split], f"{path}:{split}"


def _with_split(place: str) -> tuple[str, str]:
    path, colon, split = place.rpartition(":")
    return (path, split) if colon else (place, "")


def _columns(data: str, dataset: Any) -> tuple[str, str]:
    """Return the names of the column of images and of the column of classes."""
    import datasets

    features = dataset.features
    images = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    labels = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    if not labels:
        labels = [name for name in ("label", "labels", "class") if name in features][:1]
    chosen: list[str] = []
    for what, usual, fitting in (("images", "image", images), ("classes", "label", labels)):
        found = [usual] if usual in fitting else fitting
        if len(found) != 1:
            raise InputError(
                f"data must have one column of {what}, got {some(found) or 'none'} in {data} among "
                f"{some(list(features), 10)}: name it '{usual}'"
            )
        chosen += found
    return chosen[0], chosen[1]


def _named_classes(dataset: Any, label: str) -> bool:
    return hasattr(dataset.features[label], "names")


def _labels(data: str, dataset: Any, label: str) -> tuple[Sequence[str], tuple[str, ...], bool]:
    """Return the class of every sample, the names of all, and whether these are numbers alone."""
    if not len(dataset):
        raise InputError(f"data must have at least one sample, got {data} with none")
    values = dataset[label][:]
    names = list(dataset.features[label].names) if _named_classes(dataset, label) else None
    without = [
        position
        for position, value in enumerate(values)
        if value is None or (names is not None and not 0 <= value < len(names))
    ]
    if without:
        raise InputError(
            f"data must have a class for every sample, got {data} without for "
            f"{counted(len(without), 'sample')}, the first of them {without[0]}: take a split with "
            "labels"
        )
    if names is not None:
        return [names[value] for value in values], tuple(names), False
    labels = [str(value) for value in values]
    found = sorted(set(labels))
    numbered = all(name.isdecimal() for name in found)
    return labels, tuple(natural_order(found) if numbered else found), numbered


def _encoded(dataset: Any, image: str) -> Any:
    """Return the data set with the column of images alone, as the files that they were."""
    import datasets

    return dataset.select_columns([image]).cast_column(image, datasets.Image(decode=False))


def _version(files: Any, image: str) -> str:
    """A fingerprint of how long the images are; not of times, which a copy does not keep."""
    import pyarrow.compute as pc

    digest = hashlib.sha256()
    for batch in files.with_format("arrow").iter(batch_size=AT_ONCE):
        for chunk in batch.column(image).chunks:
            lengths = pc.fill_null(pc.binary_length(chunk.field("bytes")), -1)
            digest.update(lengths.to_numpy(zero_copy_only=False).astype("int64").tobytes())
    return digest.hexdigest()


def _file(stored: dict[str, Any] | None) -> bytes:
    if stored is None:
        raise UnreadableError("there is no image")
    content: bytes | None = stored["bytes"]
    return content if content is not None else read_bytes(Path(stored["path"]))


def _others(dataset: Any, image: str, label: str, classes: Sequence[str]) -> pd.DataFrame | None:
    """Return the columns of plain values; names that the predictions need get one in front."""
    plain = [
        name
        for name, kind in dataset.features.items()
        if name not in {image, label} and getattr(kind, "dtype", "").startswith(_PLAIN)
    ]
    if not plain:
        return None
    frame: pd.DataFrame = dataset.select_columns(plain).to_pandas()
    taken = reserved(classes) | {"path", "label"}
    renamed = {name: _free(name, taken | {*plain} - {name}) for name in plain}
    return frame.rename(columns=renamed)


def _free(name: str, taken: set[str]) -> str:
    """Return a name that is not taken, with as many "data_" in front as it takes."""
    while name in taken:
        name = f"data_{name}"
    return name


_PLAIN = ("string", "large_string", "int", "uint", "float", "bool", "date", "timestamp")
