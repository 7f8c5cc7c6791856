"""A table with the columns path and label, and any others."""

from __future__ import annotations

import functools
import re
import warnings
from typing import TYPE_CHECKING, Any

import pandas as pd

from evalkit.csv_faults import fault_in, fault_of_header, twins
from evalkit.data.source import RESERVED, of_files, reserved
from evalkit.errors import InputError
from evalkit.images.reading import read_bytes
from evalkit.wording import counted, natural_order, some

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from evalkit.data.source import Source

_UNREADABLE = (
    pd.errors.EmptyDataError,
    pd.errors.ParserError,
    pd.errors.ParserWarning,
    UnicodeDecodeError,
)
SUFFIXES = (".csv", ".parquet", ".pq")
NEEDED = ("path", "label")
USUAL_NUMBER = re.compile(r"-?(?=[\d.]{1,16}(?:e|$))(?:0|[1-9]\d*)(?:\.\d+)?(?:e[+-]?\d{1,2})?")
# What pandas raises on its own notes in a Parquet file, where these are damaged.
_BAD_METADATA = (ValueError, TypeError, LookupError, AttributeError)


def manifest(path: Path) -> Source:
    """Read the table of samples; images are where it says, relative to the table itself.

    Raises:
        InputError: It is no table, or lacks something.
    """
    table = _read_table(path)
    absent = [name for name in NEEDED if name not in table]
    if absent:
        raise InputError(
            f"manifest must have the columns path and label, got {path} without "
            f"{' and '.join(absent)}: it has {some(list(table.columns))}"
        )
    taken = reserved(table["label"].astype(str).unique()).intersection(map(str, table))
    if taken:
        raise InputError(
            f"manifest must leave the names {', '.join(RESERVED)} and p_CLASS to the predictions, "
            f"got {path} with {some(sorted(taken))}: rename these columns"
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
    if alike := twins(names):
        raise InputError(
            f"manifest must have classes that more than blanks tell apart, got {alike} in {path}: "
            "remove the blanks"
        )
    root = path.parent
    return of_files(
        lambda position: read_bytes(root / paths[position]),
        name=str(path),
        paths=tuple(paths),
        labels=labels,
        classes=tuple(natural_order(names) if all(map(str.isdecimal, names)) else names),
        columns=table.drop(columns=["path", "label"]),
        order_is_a_guess=names != natural_order(names),
        numbered=all(map(str.isdecimal, names)),
        doubts=(*_named_twice(table, path), *_of_several_splits(table, path)),
    )


def _named_twice(table: pd.DataFrame, path: Path) -> Iterator[str]:
    """Say which images are in several rows: each is evaluated as often, as if it were others."""
    again = table[table["path"].duplicated(keep=False)]
    if again.empty:
        return
    labels = again.groupby("path", sort=False)["label"].nunique()
    what = f"{some(list(labels.index))} in {path.name}"
    torn = int((labels > 1).sum())
    under = f", {torn} of them under several labels" if torn else ""
    yield (
        f"{counted(len(labels), 'image is', 'images are')} named by more than one row{under}, and "
        f"counted as often: {what}"
    )


def _of_several_splits(table: pd.DataFrame, path: Path) -> Iterator[str]:
    """Say that rows for training are among those that are evaluated, where a column tells."""
    if "split" not in table:
        return
    splits = table["split"].replace("", None).dropna().astype(str).value_counts()
    if len(splits) > 1:
        counts = [f"{name} ({count:,})" for name, count in splits.items()]
        yield (
            f"all rows of {path.name} were evaluated, whatever its column split says: "
            f"{some(counts)}; make a manifest of those that are meant"
        )


def _read_table(path: Path) -> pd.DataFrame:
    if path.suffix.lower() != ".csv":
        return _read_parquet(path)
    # Class names such as "NA" and "007" are names, not gaps and numbers.
    reader: Callable[..., Any] = pd.read_csv
    read: Callable[..., pd.DataFrame] = functools.partial(
        reader, path, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False
    )
    try:
        with warnings.catch_warnings():  # rows that are longer than the header are no usage of it
            warnings.simplefilter("error", pd.errors.ParserWarning)
            header = read(header=None, nrows=1).iloc[0].tolist()
            fault = fault_of_header(path, header, NEEDED)
            if fault:
                raise InputError(f"manifest {fault}")
            if twice := sorted({name for name in header if name and header.count(name) > 1}):
                raise InputError(
                    f"manifest must have every column once, got {some([*map(repr, twice)])} more "
                    f"than once in {path}: rename the others"
                )
            text = read()
    except _UNREADABLE as error:
        fault = fault_in(path)
        reason = " ".join(str(error).split())
        raise InputError(
            f"manifest {fault}" if fault else f"manifest must be a CSV file, got {path}: {reason}"
        ) from error
    for name in text.columns.difference(["path", "label"]):
        text[name] = _numbers_where_all_are(text[name])
    return text


def _numbers_where_all_are(column: pd.Series[Any]) -> pd.Series[Any]:
    """Return a column as numbers, where none of them is written in two ways or in an unusual one.

    Patients 7, 07 and 7.0 are three, and a double holds fifteen digits.
    """
    texts = pd.Series(column.unique())
    texts = texts[texts != ""]
    if not texts.str.fullmatch(USUAL_NUMBER).all() or pd.to_numeric(texts).duplicated().any():
        return column
    return pd.to_numeric(column)


def _read_parquet(path: Path) -> pd.DataFrame:
    import pyarrow as pa

    try:
        table = pd.read_parquet(path)
    except (pa.ArrowException, OSError, *_BAD_METADATA) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"manifest must be a Parquet file, got {path}: {reason}") from error
    news = [name for name in NEEDED if name in table.index.names and name not in table]
    return table.reset_index(news).reset_index(drop=True)
