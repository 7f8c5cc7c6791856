"""Rows -> text, CSV or JSON. A fact that is missing is an empty cell, in JSON its reason."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import msgspec

from gpudiag.snapshot import Missing
from gpudiag.tables import Row

GIB = 2**30
GAP = "  "  # between two columns
NARROWEST = 12  # no text is cut to less, which is as long as the words of the headings
FORMULA = ("=", "+", "-", "@")  # what a spreadsheet computes
UNITS = {"_bytes": "GiB", "_fraction": "%", "_celsius": "°C", "_watts": "W", "_mhz": "MHz"}


def as_text(rows: Sequence[Row], *, empty: str, width: int | None = None) -> str:
    """An aligned table with readable units.

    Args:
        rows: The facts, in one order of columns.
        empty: What is said where there are no rows: why.
        width: Columns of the terminal, None for as many as it takes. What is wider has its
            headings in several lines, then its longest texts cut.
    """
    if not rows:
        return empty
    from tabulate import tabulate  # 40 ms that `diagnose` does not need

    head = [_heading(name) for name in rows[0]]
    cells = [[_cell(name, value) for name, value in row.items()] for row in rows]
    text = tabulate(cells, headers=head, tablefmt="simple", disable_numparse=True)
    lines = [line.rstrip() for line in text.splitlines()]
    if width is not None and max(map(len, lines)) > width:
        lines = _narrow(head, cells, width)
    return "\n".join(lines)


def _narrow(head: list[str], cells: list[list[str]], width: int) -> list[str]:
    """The lines of a table that is at most *width* wide, as far as that can be had."""
    least = [max(map(len, heading.split())) for heading in head]
    longest = [max(map(len, column)) for column in zip(*cells, strict=True)]
    widths = [max(pair) for pair in zip(least, longest, strict=True)]
    while sum(widths) + len(GAP) * (len(widths) - 1) > width and max(widths) > NARROWEST:
        widths[widths.index(max(widths))] -= 1
    headings = [textwrap.wrap(heading, w) for heading, w in zip(head, widths, strict=True)]
    rows = [
        *zip_longest(*headings, fillvalue=""),
        ["-" * w for w in widths],
        *([_cut(cell, w) for cell, w in zip(row, widths, strict=True)] for row in cells),
    ]
    return [
        GAP.join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def as_csv(rows: Sequence[Row], *, columns: Sequence[str]) -> str:
    """CSV with one header row; bytes stay bytes, fractions stay fractions, formulas do nothing."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _inert(value) for name, value in row.items()})
    return text.getvalue().rstrip("\n")


def as_json(rows: Sequence[Row]) -> str:
    """A list of objects; a missing fact is ``{"missing": reason}``."""
    return msgspec.json.format(msgspec.json.encode(rows), indent=2).decode()


def printable(text: object) -> str:
    r"""Text from outside without anything that could steer a terminal.

    Example:
        >>> print(printable("H100\x1b[2J"))
        H100\x1b[2J
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def csv_cell(text: str) -> str:
    """Text on one line that no spreadsheet takes for a formula.

    Example:
        >>> csv_cell("=cmd()"), csv_cell("H100")
        ("'=cmd()", 'H100')
    """
    shown = printable(text)
    return f"'{shown}" if shown.startswith(FORMULA) else shown


def _inert(value: Any) -> Any:
    if isinstance(value, Missing):
        return None
    return csv_cell(value) if isinstance(value, str) else value


def _heading(name: str) -> str:
    for suffix, unit in UNITS.items():
        if name.endswith(suffix):
            return f"{name.removesuffix(suffix).replace('_', ' ')} {unit}"
    return name.replace("_", " ")


def _cell(name: str, value: Any) -> str:
    if isinstance(value, Missing):
        return "?"
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith("_bytes"):
        return f"{value / GIB:.2f}"
    if name.endswith("_fraction"):
        return f"{value:.0%}".removesuffix("%")
    return f"{value:.0f}" if isinstance(value, float) else printable(value)
