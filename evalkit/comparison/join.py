"""Tables of predictions for the same samples, brought together sample by sample."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from evalkit.errors import InputError
from evalkit.predictions import KEPT, column_names, read_batches
from evalkit.wording import counted, some

KEYS = ("path", "index")
ON_UNMATCHED = ("fail", "skip")


@dataclass(frozen=True, kw_only=True, eq=False)
class Joined:
    """What several models said of the same samples.

    Attributes:
        names: Of the models, different from each other.
        key: Column that names the samples.
        samples: Names of the N samples.
        labels: True class of every sample as a position in *classes*, shape (N,).
        predictions: What every model gave, shape (N, K), in the same way.
        classes: All classes that occur, sorted.
        unmatched: How many samples of every table are not in all others.
    """

    names: tuple[str, ...]
    key: str
    samples: pd.Index
    labels: np.ndarray
    predictions: np.ndarray
    classes: tuple[str, ...]
    unmatched: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class RecordedData:
    """What a run says of its data, see `evalkit.run.identity.data_of`."""

    name: str
    sha256: str


def recorded_data(place: Path | str) -> RecordedData | None:
    """Return what the summary beside the predictions of a run says; None where it says nothing."""
    summary = Path(place) / "summary.json"
    try:
        said = json.loads(summary.read_text())["data"]
        known = said["sha256"] is not None
        return RecordedData(name=said["name"], sha256=said["sha256"]) if known else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def read_run(
    place: Path | str,
    *,
    key: str | None = None,
    label_column: str = "label",
    prediction_column: str = "prediction",
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Read the predictions of a run.

    Args:
        place: Folder that `evalkit.Evaluation.save` wrote, or any table of predictions.
        key: Column that names the samples; otherwise any of ``path`` and ``index``.
        label_column: True class.
        prediction_column: Given class.

    Returns:
        Columns ``label`` and ``prediction`` as text and those that can name samples; and the
        latter's names.

    Raises:
        InputError: There is no such file, or it lacks a column or rows.
    """
    place = Path(place)
    table = place / "predictions.parquet" if place.is_dir() else place
    if place.is_dir() and not table.is_file():
        raise InputError(
            f"a run must be a folder with predictions.parquet, or a table of predictions, got "
            f"{place} without that file"
        )
    present = column_names(table)
    keys = (key,) if key is not None else tuple(name for name in KEYS if name in present)
    if not keys:
        raise InputError(
            f"{table} must name its samples in a column {' or '.join(KEYS)}, got "
            f"{some([*map(repr, present)], 10)}: name the column with key='COLUMN'"
        )
    batches = [
        batch[["label", "prediction", *(KEPT + name for name in keys)]]
        for batch in read_batches(
            table, label_column=label_column, prediction_column=prediction_column, keep=keys
        )
    ]
    if not sum(map(len, batches)):
        raise InputError(f"table must have at least one row, got {table} with none")
    frame = pd.concat(batches, ignore_index=True)
    return as_names(frame, [KEPT + name for name in keys], of=table), keys


def as_names(frame: pd.DataFrame, keys: Iterable[str], *, of: object) -> pd.DataFrame:
    """Return labels, predictions and what names the samples, as text.

    Args:
        frame: Has the columns ``label`` and ``prediction``, and *keys*.
        keys: Columns that can name samples.
        of: Whose it is, for the error.

    Raises:
        InputError: A column or a value is missing, or classes are numbers with a point.
    """
    wanted = ["label", "prediction", *keys]
    absent = [name for name in wanted if name not in frame]
    if absent:
        raise InputError(
            f"predictions must have the columns label and prediction, got {of} without "
            f"{some(absent)}: it has {some([*map(str, frame.columns)], 10)}"
        )
    for column in wanted:
        missing = frame[column].isna()
        if missing.any():
            raise InputError(
                f"every sample must have a {column.removeprefix(KEPT)}, got "
                f"{counted(int(missing.sum()), 'missing value')} in {of}, the first in row "
                f"{int(missing.to_numpy().argmax()) + 1}"
            )
    for column in ("label", "prediction"):
        if pd.api.types.is_float_dtype(frame[column]):
            raise InputError(
                f"column {column} must hold class names or integers, got {frame[column].dtype} in "
                f"{of}: convert it"
            )
    return frame[wanted].astype(str)


def join(tables: Mapping[str, pd.DataFrame], *, key: str, on_unmatched: str = "fail") -> Joined:
    """Bring the predictions of several models together.

    Args:
        tables: By name of the model, each with the columns ``label``, ``prediction`` and *key*.
        key: Column that names the samples.
        on_unmatched: "fail" or "skip": what to do about samples that are not in every table.

    Raises:
        InputError: A sample is there twice, or not in every table, or its label differs, or no
            sample is in all of them.
    """
    if on_unmatched not in ON_UNMATCHED:
        raise InputError(f"on_unmatched must be fail or skip, got {on_unmatched!r}")
    indexed = {}
    for name, table in tables.items():
        frame = table.set_index(key)
        if frame.index.has_duplicates:
            twice = frame.index[frame.index.duplicated()].unique()
            raise InputError(
                f"every sample must be there once, got {counted(len(twice), 'value')} of {key} "
                f"more than once in {name}: {some([*map(repr, twice)])}"
            )
        indexed[name] = frame
    first = next(iter(indexed.values()))
    common = first.index
    for frame in indexed.values():
        common = common[common.isin(frame.index)]
    unmatched = {name: len(frame) - len(common) for name, frame in indexed.items()}
    if not len(common):
        raise InputError(
            f"runs must have samples in common, got none with the same {key} in "
            f"{' and '.join(indexed)}: for example {some([*map(repr, first.index)], 1)}"
        )
    if any(unmatched.values()) and on_unmatched == "fail":
        listed = ", ".join(f"{number} only in {name}" for name, number in unmatched.items())
        raise InputError(
            f"runs must have the same samples, got {len(common)} in common by {key} and {listed}: "
            "leave those out with on_unmatched='skip'"
        )
    matched = {name: frame.loc[common] for name, frame in indexed.items()}
    _refuse_other_labels(matched, key)
    labels = matched[next(iter(matched))]["label"]
    given = [frame["prediction"] for frame in matched.values()]
    codes, found = pd.factorize(pd.concat([labels, *given]), sort=True)
    parts = np.split(codes.astype(np.int64), len(matched) + 1)
    return Joined(
        names=tuple(matched),
        key=key,
        samples=common,
        labels=parts[0],
        predictions=np.stack(parts[1:], axis=1),
        classes=tuple(map(str, found)),
        unmatched=unmatched,
    )


def model_names(places: Sequence[Path | str]) -> tuple[str, ...]:
    """Short names for runs that differ from each other: the last parts of their paths.

    Example:
        >>> model_names(["runs/a/report", "runs/b/report"])
        ('a/report', 'b/report')
    """
    parts = [Path(place).parts for place in places]
    for length in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return tuple(names)
    return tuple(f"{'/'.join(part)} ({number})" for number, part in enumerate(parts, start=1))


def _refuse_other_labels(matched: Mapping[str, pd.DataFrame], key: str) -> None:
    names = list(matched)
    labels = matched[names[0]]["label"].to_numpy()
    for name in names[1:]:
        differs = labels != matched[name]["label"].to_numpy()
        if differs.any():
            where = int(np.flatnonzero(differs)[0])
            sample = matched[name].index[where]
            raise InputError(
                f"runs must have the same label for every sample, got {int(differs.sum())} of "
                f"{len(labels)} that differ between {names[0]} and {name}, the first "
                f"{key} {sample!r}: {labels[where]!r} and "
                f"{matched[name]['label'].iloc[where]!r}"
            )
