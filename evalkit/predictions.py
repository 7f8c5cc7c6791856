"""The table of predictions: its columns, and reading anyone's in batches."""

from __future__ import annotations

import contextlib
import difflib
import functools
import json
import warnings
import zlib
from collections import Counter
from typing import TYPE_CHECKING, Any, BinaryIO

import pandas as pd

from evalkit.csv_faults import fault_in, fault_of_header
from evalkit.errors import InputError
from evalkit.wording import some

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa

COLUMNS = (
    "index",  # position in the data set: every sample is there once
    "path",
    "label",
    "prediction",
    "confidence",  # probability of the prediction, in [0, 1]
    "label_probability",  # probability of the label, in [0, 1]
    "loss",
    "top5",  # the five most probable classes, best first
)
BATCH_ROWS = 1 << 18
OF_SAMPLES = ("index", "path")  # columns that are taken where a table has them
OF_PREDICTIONS = ("confidence", "label_probability", "top5", "probabilities")
LISTS = ("top5", "probabilities")  # which no CSV file can hold
PARQUET_MAGIC = b"PAR1"
NOTES = b"evalkit"  # among the metadata of a Parquet file, with the classes in their order
KEPT = "kept "  # in front of the names of further columns, which may be called anything
INSTALL_PYARROW = "pip install 'gpudiag[report]'"
SHOWN = 10
UNREADABLE_CSV = (
    pd.errors.ParserError,
    pd.errors.ParserWarning,
    UnicodeDecodeError,
    EOFError,  # these two and OSError: damaged compressed files
    zlib.error,
    OSError,
)


def arrange(predictions: pd.DataFrame) -> pd.DataFrame:
    """Put the columns of a predictions table into their order, any others after them.

    Example:
        >>> frame = pd.DataFrame({"label": ["a"], "site": ["north"], "prediction": ["b"]})
        >>> list(arrange(frame))
        ['label', 'prediction', 'site']
    """
    first = [name for name in COLUMNS if name in predictions]
    return predictions[first + [name for name in predictions if name not in COLUMNS]]


def read_classes(path: Path) -> list[str]:
    """Class names from a text file, one per line, in class order.

    Raises:
        InputError: The file cannot be read, has no names, an empty line between names or a name
            twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise InputError(
            f"classes must be a text file in UTF-8, got {path}: {error.reason} at byte "
            f"{error.start}"
        ) from error
    except OSError as error:
        raise InputError(
            f"classes must be a text file with one name per line, got {path}: {error.strerror}"
        ) from error
    names = [line.strip() for line in lines]
    fault = "nothing in it" if not names else "an empty line" if "" in names else ""
    if not fault and len(set(names)) < len(names):
        fault = f"{Counter(names).most_common(1)[0][0]!r} more than once"
    if fault:
        raise InputError(
            f"classes must be a text file with one name per line, each once, "
            f"got {path} with {fault}"
        )
    return names


def read_batches(
    table: Path,
    *,
    label_column: str = "label",
    prediction_column: str = "prediction",
    confidence_column: str | None = None,
    keep: Sequence[str] = (),
) -> Iterator[pd.DataFrame]:
    """Read a CSV or Parquet file of predictions, a part at a time.

    In a CSV file classes are text: ``NA``, ``None`` and ``007`` are names as they stand, only an
    empty cell is a missing value. A ``.tsv`` file is read with tabs.

    Args:
        table: The file; which kind it is, its first bytes decide.
        label_column: True class of every sample.
        prediction_column: Class that was given to it.
        confidence_column: Probability of the given class, in [0, 1]. Without it the column
            ``confidence`` is taken where there is one, as are the other figures of a model, unless
            *prediction_column* is another one than the ``prediction`` that they stand beside.
        keep: Further columns, each once.

    Yields:
        At most 262,144 rows with the columns ``label``, ``prediction`` and, where the file has
        them, ``index``, ``path``, ``confidence``, ``label_probability``, ``p_<class>`` and
        (Parquet) ``top5`` and ``probabilities``; and the columns of *keep* with ``KEPT`` in front
        of their names.

    Raises:
        InputError: The file cannot be read, or lacks a column.
    """
    if label_column == prediction_column:
        raise InputError(f"label and prediction must be two columns, got {label_column!r} for both")
    required = {label_column: "label", prediction_column: "prediction"}
    if confidence_column is not None:
        required[confidence_column] = "confidence"
    batches = _parquet_batches if _is_parquet(table) else _csv_batches
    return batches(table, required, tuple(keep))


def column_names(table: Path) -> list[str]:
    """The names of the columns of a CSV or Parquet file of predictions, in their order.

    Raises:
        InputError: The file cannot be read.
    """
    if not _is_parquet(table):
        with _csv_faults(table):
            return _csv_header(_csv_reader(table))
    with _parquet_file(table) as file:
        return [str(name) for name in file.schema_arrow.names]


def recorded_classes(table: Path) -> tuple[str, ...] | None:
    """Return the classes of a table that we wrote, in their order; None of anybody else's.

    Raises:
        InputError: The file cannot be read.
    """
    if not _is_parquet(table):
        return None
    with _parquet_file(table) as file:
        notes = (file.schema_arrow.metadata or {}).get(NOTES)
    return None if notes is None else tuple(json.loads(notes)["classes"])


def with_classes(schema: pa.Schema, classes: Iterable[str]) -> pa.Schema:
    """Add the classes, in their order, to what a Parquet file says of itself."""
    notes = json.dumps({"classes": list(classes)}).encode()
    return schema.with_metadata({**(schema.metadata or {}), NOTES: notes})


def write_parquet(predictions: pd.DataFrame, stream: BinaryIO, classes: Sequence[str] = ()) -> None:
    """Write the table of predictions as Parquet.

    Args:
        predictions: One row per sample.
        stream: Where to.
        classes: All classes, in their order, for whoever reads it.

    Raises:
        InputError: pyarrow is not installed, or a column holds what Parquet cannot.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise InputError(f"writing predictions.parquet needs pyarrow: {INSTALL_PYARROW}") from error
    try:
        table = pa.Table.from_pandas(arrange(predictions), preserve_index=False)
    except (pa.ArrowException, UnicodeEncodeError) as error:
        what = " ".join(str(error).split())
        raise InputError(
            f"predictions must have columns of one type each to be written as Parquet, got {what}"
        ) from error
    if classes:
        table = table.replace_schema_metadata(with_classes(table.schema, classes).metadata)
    pq.write_table(table, stream, compression="zstd")


def _is_parquet(table: Path) -> bool:
    try:
        with table.open("rb") as stream:
            magic = stream.read(len(PARQUET_MAGIC))
    except OSError as error:
        raise InputError(
            f"table must be a CSV or Parquet file, got {table}: {error.strerror}; name the file "
            "with the predictions, such as predictions.parquet"
        ) from error
    if magic == b"\x93NUM" or (magic == b"PK\x03\x04" and table.suffix in {".npz", ".xlsx"}):
        what = "a spreadsheet" if table.suffix == ".xlsx" else "arrays of NumPy"
        raise InputError(
            f"table must be a CSV or Parquet file, got {table}, {what}: write it as CSV with the "
            "columns label and prediction, one row per sample"
        )
    if table.suffix in {".parquet", ".pq"} and magic != PARQUET_MAGIC:
        raise InputError(
            f"a Parquet file must begin with {PARQUET_MAGIC!r}, got {table} beginning with "
            f"{magic!r}: if it is a CSV file, name it .csv"
        )
    return magic == PARQUET_MAGIC


def _parquet_batches(
    table: Path, required: dict[str, str], keep: tuple[str, ...]
) -> Iterator[pd.DataFrame]:
    with _parquet_file(table) as file:
        columns = _choose(table, file.schema_arrow.names, required, keep)
        wanted = list(dict.fromkeys([*columns, *keep]))
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=wanted):
            yield _named(batch.to_pandas(), columns, keep)


@contextlib.contextmanager
def _parquet_file(table: Path) -> Iterator[Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise InputError(f"reading {table} needs pyarrow: {INSTALL_PYARROW}") from error
    try:
        with pq.ParquetFile(table) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        what = " ".join(str(error).split())
        raise InputError(f"table must be a whole Parquet file, got {table}: {what}") from error


def _csv_batches(
    table: Path, required: dict[str, str], keep: tuple[str, ...]
) -> Iterator[pd.DataFrame]:
    read = _csv_reader(table)
    with _csv_faults(table):
        header = _csv_header(read)
        if fault := fault_of_header(table, header, [*required, *keep]):
            raise InputError(f"table {fault}")
        columns = _choose(table, header, required, keep)
        columns = {column: name for column, name in columns.items() if name not in LISTS}
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a cell lost per row
            # All columns: with usecols pandas lets a row with a comma too many pass, shifted.
            with read(chunksize=BATCH_ROWS) as reader:
                for batch in reader:
                    yield _named(batch, columns, keep)


def _csv_reader(table: Path) -> Callable[..., Any]:
    return functools.partial(
        pd.read_csv,
        table,
        sep=_separator(table),
        dtype=str,
        keep_default_na=False,
        na_values=[""],
        index_col=False,
    )


def _separator(table: Path) -> str:
    return "\t" if ".tsv" in table.suffixes else ","


def _csv_header(read: Callable[..., Any]) -> list[str]:
    header: list[str] = read(header=None, nrows=1).iloc[0].dropna().tolist()
    return header


@contextlib.contextmanager
def _csv_faults(table: Path) -> Iterator[None]:
    try:
        yield
    except pd.errors.EmptyDataError as error:
        raise InputError(
            f"table must have a header and at least one row, got {table} with nothing in it: "
            "write the predictions again"
        ) from error
    except UNREADABLE_CSV as error:
        fault = fault_in(table, separator=_separator(table))
        what = " ".join(str(error).split())
        raise InputError(
            f"table {fault}" if fault else f"table must be a CSV file in UTF-8, got {table}: {what}"
        ) from error


def _named(batch: pd.DataFrame, columns: dict[str, str], keep: tuple[str, ...]) -> pd.DataFrame:
    """The chosen columns under their usual names, and those to keep."""
    named = batch[list(columns)].rename(columns=columns)
    return named.assign(**{KEPT + name: batch[name] for name in keep})


def _choose(
    table: Path, present: list[str], required: dict[str, str], keep: tuple[str, ...]
) -> dict[str, str]:
    """Which columns to read, and the names they get."""
    faults = []
    for column in [*required, *(name for name in keep if name not in required)]:
        if column not in present:
            close = _closest(column, present)
            meant = f"{required[column]}_column='{close}'" if column in required else repr(close)
            hint = f" (did you mean {meant}?)" if close else ""
            faults.append(f"no {column!r}{hint}")
        elif present.count(column) > 1:
            faults.append(f"{column!r} {present.count(column)} times")
    if faults:
        wanted = ", ".join(map(repr, dict.fromkeys([*required, *keep])))
        raise InputError(
            f"{table} must have each of the columns {wanted} once, got {' and '.join(faults)} "
            f"among {some([*map(repr, present)], SHOWN)}"
        )
    taken = set(required.values()) | set(required)
    probable = [name for name in present if name.startswith("p_")]
    # Beside a column prediction, these belong to it and not to another one that was chosen.
    theirs = "prediction" in present and "prediction" not in required
    optional = [*OF_SAMPLES, *([] if theirs else [*OF_PREDICTIONS, *probable])]
    extra = [name for name in optional if present.count(name) == 1 and name not in taken]
    return required | {name: name for name in extra}


def _closest(column: str, present: list[str]) -> str:
    by_lower = {name.lower(): name for name in present}
    close = difflib.get_close_matches(column.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[close[0]] if close else ""
