"""Rows -> text, CSV or JSON. A fact that is missing is an empty cell, in JSON its reason."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import msgspec

from gpudiag.snapshot import Missing
from gpudiag.tables import Row

GIB = 2**30
FORMULA = ("=", "+", "-", "@")  # what a spreadsheet computes
UNITS = {"_bytes": "GiB", "_fraction": "%", "_celsius": "°C", "_watts": "W", "_mhz": "MHz"}


def as_text(rows: Sequence[Row], *, empty: str) -> str:
    """An aligned table with readable units; *empty* says why there are no rows."""
    if not rows:
        return empty
    from tabulate import tabulate  # 40 ms that `diagnose` does not need

    shown = [{_heading(name): _cell(name, value) for name, value in row.items()} for row in rows]
    table = tabulate(shown, headers="keys", tablefmt="simple", disable_numparse=True)
    return "\n".join(line.rstrip() for line in table.splitlines())


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
