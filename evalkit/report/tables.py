"""Tables to files: whole or not at all."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import re
import secrets
from typing import TYPE_CHECKING, Any, BinaryIO

from evalkit.errors import InputError
from evalkit.predictions import write_parquet
from evalkit.report.ownership import refuse_strangers
from evalkit.scoring.sparse import SparseConfusion
from evalkit.whole_file import sync_folder, tidied

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import pandas as pd

# Files that not every evaluation has. predictions.parquet is none of them: it may be the input.
OF_SOME_EVALUATIONS = (
    *("slices.csv", "ranking.csv", "reliability.csv", "coverage_risk.csv", "thresholds.csv"),
    *("report.html", "summary.md"),
    *(f"plot_{name}.png" for name in ("confusion_matrix", "reliability", "confidence")),
    *(f"plot_{name}.svg" for name in ("confusion_matrix", "reliability", "confidence")),
)
OF_ANY_EVALUATION = ("summary.json", "per_class.csv", "confusion_matrix.csv", *OF_SOME_EVALUATIONS)
# A folder of such a name would be made, and the file that was meant looked for.
FILE_SUFFIXES = frozenset(
    (".csv", ".html", ".json", ".md", ".onnx", ".parquet", ".pdf", ".png", ".pt", ".pth", ".txt")
)
FORMULA_STARTS = tuple("=+-@\t\r\n＝＋－＠")  # noqa: RUF001 - the wide ones start formulas as well
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


def escape_cell(value: object) -> object:
    """A name as it may stand in a CSV file that somebody opens in a spreadsheet.

    A name that a spreadsheet would run as a formula, and one that begins with an apostrophe, gets
    an apostrophe in front; numbers and all other names stay as they are. `unescape_cell` undoes it.

    Source:
        OWASP, CSV Injection.

    Example:
        >>> [escape_cell(name) for name in ("=cmd()", "-1", "'tis", "cat")]
        ["'=cmd()", '-1', "''tis", 'cat']
    """
    if not isinstance(value, str) or NUMBER.fullmatch(value):
        return value
    return f"'{value}" if value.startswith((*FORMULA_STARTS, "'")) else value


def unescape_cell(value: object) -> object:
    """The name that `escape_cell` was given: one apostrophe less in front, where there is one.

    Example:
        >>> unescape_cell("'=cmd()")
        '=cmd()'
    """
    return value.removeprefix("'") if isinstance(value, str) else value


def write_tables(
    folder: Path,
    *,
    per_class: pd.DataFrame,
    confusion: pd.DataFrame | SparseConfusion,
    summary: Mapping[str, Any],
    predictions: pd.DataFrame | None,
    further: Mapping[str, pd.DataFrame | None] | None = None,
    documents: Mapping[str, bytes] | None = None,
) -> list[Path]:
    """Write the files of an evaluation, see `evalkit.evaluation.Evaluation.save`.

    What a former evaluation left in *folder* and this one does not have is removed: its tables
    would contradict the new ones. Its ``predictions.parquet`` is kept.

    In the CSV files undefined values are empty, and class names are escaped by `escape_cell`.
    *further* are tables that have no names in their index, *documents* any other files, both from
    name to content.

    Raises:
        InputError: *folder* is a file, cannot be written to or holds files of somebody else's
            under these names, or the predictions hold what Parquet cannot.
    """
    writers: dict[str, Callable[[BinaryIO], None]] = {
        "summary.json": lambda stream: _write_json(summary, stream),  # first: it says whose all are
        "per_class.csv": lambda stream: _write_csv(per_class, stream, corner="class"),
        "confusion_matrix.csv": lambda stream: _write_confusion(confusion, stream),
    }
    for name, table in (further or {}).items():
        if table is not None:
            writers[name] = functools.partial(_write_rows, table)
    if predictions is not None:
        writers["predictions.parquet"] = lambda stream: write_parquet(
            predictions, stream, classes=[str(name) for name in per_class.index]
        )
    for name, content in (documents or {}).items():
        writers[name] = functools.partial(_write_bytes, content)
    written = _write_checked(folder, writers, removed=OF_SOME_EVALUATIONS)
    for name in OF_SOME_EVALUATIONS:
        if name not in writers:  # a former evaluation's, which would contradict this one's
            (folder / name).unlink(missing_ok=True)
    return written


def write_files(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write files, from name to content, all whole or none of them.

    Raises:
        InputError: As for `check_folder`.
    """
    return _write_checked(
        folder, {name: functools.partial(_write_bytes, content) for name, content in files.items()}
    )


def csv_bytes(frame: pd.DataFrame) -> bytes:
    """A table that has no names in its index as CSV, escaped by `escape_cell`."""
    stream = io.BytesIO()
    _write_rows(frame, stream)
    return stream.getvalue()


def check_folder(folder: Path, *, names: tuple[str, ...] = OF_ANY_EVALUATION) -> None:
    """Find out before hours of work whether the results can be written; writes nothing.

    Args:
        folder: Where the results will go; it need not exist.
        names: Files that will be written, or removed where a former result left them.

    Raises:
        InputError: *folder* is a file, cannot be written to or made, one of *names* is a folder
            in it, or some of *names* are there and evalkit did not write them.
    """
    if folder.suffix.lower() in FILE_SUFFIXES and not folder.exists():
        raise InputError(
            f"out must be a folder for several files, got {folder}, the name of one: leave "
            f"'{folder.suffix}' out"
        )
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise InputError(
            f"out must be a folder, got {folder}: {existing} is a file; choose another name"
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(
            f"out must be a folder that can be written to, got {folder}: no permission for "
            f"{existing}"
        )
    for name in names:
        if (folder / name).is_dir():
            raise InputError(f"out must be free for a file {name}, got a folder {folder / name}")
    refuse_strangers(folder, names)


def _write_confusion(confusion: pd.DataFrame | SparseConfusion, stream: BinaryIO) -> None:
    """As a square; as one row per cell that is not 0 where the square would be too large."""
    if isinstance(confusion, SparseConfusion):
        _write_rows(confusion.to_long(), stream)
    else:
        _write_csv(confusion.rename(columns=escape_cell), stream, corner="true")


def _write_rows(frame: pd.DataFrame, stream: BinaryIO) -> None:
    """A table that has no names in its index."""
    names = [str(name) for name in frame]
    text = [name for name in names if frame[name].dtype.kind not in "biuf"]
    escaped = frame.assign(**{name: frame[name].map(escape_cell) for name in text[1:]})
    _write_csv(escaped.set_index(names[0]), stream, corner=names[0])


def _write_csv(frame: pd.DataFrame, stream: BinaryIO, *, corner: str) -> None:
    escaped = frame.rename(index=escape_cell)
    text = escaped.to_csv(index_label=corner, lineterminator="\n")
    if "\r" in text:  # Python's csv quotes it only where it is part of the line's end
        text = escaped.to_csv(index_label=corner, lineterminator="\r\n")
    stream.write(text.encode(errors="backslashreplace"))


def _write_json(values: Mapping[str, Any], stream: BinaryIO) -> None:
    text = json.dumps(values, ensure_ascii=False, allow_nan=False, indent=2)
    stream.write(text.encode(errors="backslashreplace") + b"\n")  # JSON's own escape, as it happens


def _write_bytes(content: bytes, stream: BinaryIO) -> None:
    stream.write(content)


def _write_checked(
    folder: Path,
    writers: Mapping[str, Callable[[BinaryIO], None]],
    *,
    removed: Sequence[str] = (),
) -> list[Path]:
    check_folder(folder, names=(*writers, *removed))
    try:
        return _write_whole(folder, writers)
    except OSError as error:
        raise InputError(
            f"out must be a folder that can be written to, got {folder}: {error.strerror}"
        ) from error


def _write_whole(folder: Path, writers: Mapping[str, Callable[[BinaryIO], None]]) -> list[Path]:
    """Write every file beside its place and move them there once all are on the disk."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(4)
    parts = {name: folder / f".{name}.{token}.tmp" for name in writers}
    try:
        with tidied(folder, writers):
            for name, write in writers.items():
                with parts[name].open("xb") as stream:  # mode as the umask says
                    write(stream)
                    stream.flush()
                    os.fsync(stream.fileno())
            for name, part in parts.items():
                part.replace(folder / name)
    except BaseException:
        for part in parts.values():
            part.unlink(missing_ok=True)
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise
    sync_folder(folder)
    return [folder / name for name in writers]
