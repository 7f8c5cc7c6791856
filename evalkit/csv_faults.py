"""What is wrong with a CSV file, and in which line, where pandas says that something is."""

from __future__ import annotations

import bz2
import csv
import gzip
import lzma
import zlib
from collections import defaultdict
from typing import IO, TYPE_CHECKING, Any

from evalkit.wording import counted, some

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
_OPENERS: dict[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}
_DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError)


def fault_in(path: Path, *, separator: str = ",") -> str:
    r"""Return the first line that cannot be read and what to do, or "" where none is found.

    Args:
        path: The file; compressed ones are read by their suffix.
        separator: Between the fields.

    Example:
        >>> import tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "t.csv"
        >>> _ = path.write_text("path,label\na.png,cat\nb.png,cat,tabby\n")
        >>> fault_in(path).partition(", line ")[2].partition(": put")[0]
        '3: expected 2 fields as in its header, got 3'
    """
    try:
        return _undecodable(path) or _ragged(path, separator)
    except _DAMAGE:
        return ""


def fault_of_header(path: Path, header: Sequence[str], wanted: Iterable[str]) -> str:
    """Return what hides columns that are wanted and not there, or "" where nothing is seen.

    Args:
        path: The file, for the line.
        header: The names of its columns, as they were read.
        wanted: Names of columns.

    Example:
        >>> from pathlib import Path
        >>> fault_of_header(Path("t.csv"), ["path;label"], ["path", "label"])
        't.csv, line 1: expected names between commas, got semicolons: save it with commas'
        >>> fault_of_header(Path("t.csv"), ["path", " label"], ["path", "label"])
        "t.csv, line 1: expected names without blanks around them, got ' label': remove the blanks"
    """
    absent = [name for name in wanted if name not in header]
    for separator, name in SEPARATORS.items():
        if len(header) == 1 and absent and separator in header[0]:
            return f"{path}, line 1: expected names between commas, got {name}: save it with commas"
    padded = [repr(name) for name in header if name != name.strip() and name.strip() in absent]
    if padded:
        return (
            f"{path}, line 1: expected names without blanks around them, got {some(padded)}: "
            "remove the blanks"
        )
    return ""


def twins(names: Iterable[str]) -> str:
    """Return the names that only blanks around them tell apart, or "" where there are none.

    Example:
        >>> twins(["cat", "cat ", "dog"]), twins(["cat", " dog"])
        ("'cat' and 'cat '", '')
    """
    alike = defaultdict(list)
    for name in names:
        alike[name.strip()].append(name)
    return some([" and ".join(map(repr, sorted(same))) for same in alike.values() if len(same) > 1])


def _undecodable(path: Path) -> str:
    with _opened(path) as lines:
        for number, line in enumerate(lines, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return (
                    f"{path}, line {number}: expected text in UTF-8, got the byte "
                    f"0x{line[error.start]:02x}: save it as UTF-8"
                )
    return ""


def _ragged(path: Path, separator: str) -> str:
    with _opened(path) as lines:
        text = (line.decode("utf-8-sig") for line in lines)
        rows = csv.reader(text, delimiter=separator, strict=True)
        begun = 1
        try:
            header = len(next(rows))
            while True:
                begun = rows.line_num + 1
                if len(row := next(rows)) > header:
                    return (
                        f"{path}, line {begun}: expected {counted(header, 'field')} as in its "
                        f"header, got {len(row)}: put a field that holds a comma into quotation "
                        "marks"
                    )
        except StopIteration:
            return ""
        except csv.Error as error:
            if "unexpected end" not in str(error):
                return ""
            return (
                f"{path}, from line {begun}: expected a quotation mark at the end of a field, got "
                "the end of the file: close it, or write the file again"
            )


def _opened(path: Path) -> IO[bytes]:
    opened: IO[bytes] = _OPENERS.get(path.suffix, open)(path, "rb")
    return opened
