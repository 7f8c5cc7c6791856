"""Which samples are learnt from and which validate: folders, a column, or a share drawn by seed."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from evalkit.data import Source, open_data
from evalkit.errors import InputError
from evalkit.training.classes import require_known_classes
from evalkit.wording import counted, some

if TYPE_CHECKING:
    from collections.abc import Sequence

TRAIN_NAMES = ("train", "training")
VALIDATION_NAMES = ("val", "valid", "validation")
SPLIT_COLUMN = "split"
MANIFEST = "manifest.csv"  # of a split that was drawn here


@dataclass(frozen=True, kw_only=True)
class Split:
    """The samples of a training.

    Attributes:
        train: To learn from; every class has some.
        validation: To score by.
        classes: In the order of the model's outputs.
        drawn: Whether the split was drawn here.
        warnings: What is worth knowing of it.
    """

    train: Source
    validation: Source
    classes: tuple[str, ...]
    drawn: bool = False

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is worth knowing of it."""
        absent = _absent(self.validation, self.classes)
        if not absent:
            return ()
        return (
            f"{counted(len(absent), 'class', 'classes')} without validation samples, which no "
            f"score speaks of: {some(absent)}",
        )

    def fingerprint(self) -> str:
        """A text that changes with any path or label of a sample; 16 hexadecimal digits."""
        seen = hashlib.sha256(repr(self.classes).encode())
        for source in (self.train, self.validation):
            rows = zip(source.paths, labels_of(source), strict=True)
            seen.update(repr(list(rows)).encode(errors="surrogateescape"))
        return seen.hexdigest()[:16]

    def manifest(self) -> bytes:
        """The split as a CSV file that `open_split` reads."""
        frames = [
            pd.DataFrame(
                {
                    "path": [str(_file(source, path)) for path in source.paths],
                    "label": labels_of(source),
                    SPLIT_COLUMN: name,
                }
            )
            for name, source in (("train", self.train), ("val", self.validation))
        ]
        return pd.concat(frames).to_csv(index=False, lineterminator="\n").encode()


def open_split(
    data: str | Path | Source, *, val_fraction: float | None = None, seed: int = 0
) -> Split:
    """Find the samples to train with and those to validate with.

    Args:
        data: A folder with the folders ``train`` and ``val``, each of class folders; a manifest
            with a column ``split`` that says train or val; or, with *val_fraction*, whatever
            `evalkit.data.open_data` takes.
        val_fraction: Share of every class that validates, in (0, 1); at least one sample of each
            class that has two.
        seed: Decides which.

    Raises:
        InputError: There is no such data, a part of it is empty, a class has no training samples,
            or validation has a class that training does not.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in ("cat", "dog"):
        ...     (root / name).mkdir()
        ...     for number in range(5):
        ...         Image.new("RGB", (8, 8)).save(root / name / f"{number}.png")
        >>> split = open_split(root, val_fraction=0.2)
        >>> len(split.train), len(split.validation), split.classes
        (8, 2, ('cat', 'dog'))
    """
    folders = _split_folders(data)
    if folders is not None:
        if val_fraction is not None:
            raise InputError(
                f"val_fraction must be left out where there are train and val, got {val_fraction} "
                f"for {data}"
            )
        train, validation = (open_data(folder) for folder in folders)
        return _checked(Split(train=train, validation=validation, classes=train.classes))
    source = open_data(data)
    if val_fraction is not None:
        return _checked(_drawn(source, val_fraction, seed))
    if source.columns is not None and SPLIT_COLUMN in source.columns:
        return _checked(_by_column(source))
    raise InputError(
        "data must have the folders train and val or a manifest with the column split, got "
        f"{source.name} without: give val_fraction to draw the validation samples"
    )


def labels_of(source: Source) -> list[str]:
    """The class of every sample; of a Dataset that does not tell, each is loaded for it."""
    if source.labels is not None:
        return list(source.labels)
    return [source.load(position, "RGB").label for position in range(len(source))]


def subset(source: Source, positions: Sequence[int]) -> Source:
    """Some samples of a source, in the order given.

    Example:
        >>> from evalkit.data import Loaded
        >>> def load(position, mode):
        ...     return position
        >>> whole = Source(name="x", paths=("a", "b", "c"), classes=("k",), load=load)
        >>> part = subset(whole, [2, 0])
        >>> part.paths, part.load(0, "RGB")
        (('c', 'a'), 2)
    """
    chosen = [int(position) for position in positions]
    columns, encoded = source.columns, source.encoded
    return replace(
        source,
        paths=tuple(source.paths[position] for position in chosen),
        labels=None if source.labels is None else tuple(source.labels[at] for at in chosen),
        load=lambda position, mode: source.load(chosen[position], mode),
        encoded=None if encoded is None else lambda position: encoded(chosen[position]),
        columns=None if columns is None else columns.iloc[chosen].reset_index(drop=True),
        doubts=(),  # which were of all samples
    )


def _split_folders(data: str | Path | Source) -> tuple[Path, Path] | None:
    if isinstance(data, Source) or not Path(data).is_dir():
        return None
    inside = {entry.name.lower(): entry for entry in Path(data).iterdir() if entry.is_dir()}
    train = next((inside[name] for name in TRAIN_NAMES if name in inside), None)
    validation = next((inside[name] for name in VALIDATION_NAMES if name in inside), None)
    if train is None and validation is None:
        return None
    if train is None or validation is None:
        raise InputError(
            f"data must have both folders train and val, got {data} with only "
            f"{(train or validation).name}"  # type: ignore[union-attr]
        )
    return train, validation


def _by_column(source: Source) -> Split:
    assert source.columns is not None  # noqa: S101 - whoever calls has looked
    said = source.columns[SPLIT_COLUMN].astype(str).str.lower()
    parts = {}
    for name, names in (("train", TRAIN_NAMES), ("val", VALIDATION_NAMES)):
        positions = np.flatnonzero(said.isin(names))
        if not len(positions):
            raise InputError(
                f"manifest must have rows whose split is {name}, got {source.name} with only "
                f"{some(sorted(said.unique()))}"
            )
        parts[name] = subset(source, positions.tolist())
    return Split(train=parts["train"], validation=parts["val"], classes=source.classes)


def _drawn(source: Source, fraction: float, seed: int) -> Split:
    if not 0 < fraction < 1:
        raise InputError(f"val_fraction must be in (0, 1), got {fraction}")
    positions = pd.DataFrame({"label": labels_of(source)}).groupby("label").indices
    generator = np.random.default_rng(seed)
    held_out: set[int] = set()
    for name in source.classes:
        members = generator.permutation(positions.get(name, np.empty(0, dtype=np.int64)))
        wanted = max(1, round(len(members) * fraction))
        held_out.update(members[: min(wanted, len(members) - 1)].tolist() if len(members) else ())
    if not held_out:
        raise InputError(
            f"val_fraction must leave samples to validate with, got none of {len(source)} in "
            f"{source.name}: no class has two"
        )
    learnt = [position for position in range(len(source)) if position not in held_out]
    return Split(
        train=subset(source, learnt),
        validation=subset(source, sorted(held_out)),
        classes=source.classes,
        drawn=True,
    )


def _checked(split: Split) -> Split:
    require_known_classes(split.validation, split.classes)
    absent = _absent(split.train, split.classes)
    if absent:
        raise InputError(
            "every class must have training samples, got "
            f"{counted(len(absent), 'class', 'classes')} without in {split.train.name}: "
            f"{some(absent)}: add images, or remove the class"
        )
    if len(split.classes) < 2:  # noqa: PLR2004
        raise InputError(
            f"data must have at least two classes, got {some(split.classes)} in {split.train.name}"
        )
    return split


def _absent(source: Source, classes: Sequence[str]) -> list[str]:
    counts = Counter(labels_of(source))
    return [name for name in classes if not counts[name]]


def _file(source: Source, path: str) -> Path | str:
    """Where a sample lies, from anywhere; for a Dataset its name."""
    place = Path(source.name)
    if place.is_dir():
        return (place / path).resolve()
    return (place.parent / path).resolve() if place.is_file() else path
