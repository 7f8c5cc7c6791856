"""Rows of measurements -> text and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

COLUMNS = ("comparison", "ours_s", "peer_s", "ratio", "spread", "target")


def as_text(rows: Sequence[dict[str, Any]], *, form: str = "simple") -> str:
    """One line per comparison; a figure that does not apply is empty."""
    shown = [[row["comparison"], *(_cell(row.get(name)) for name in COLUMNS[1:])] for row in rows]
    return tabulate(shown, headers=COLUMNS, tablefmt=form, disable_numparse=True)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple | list):
        return " to ".join(_cell(part) for part in value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)
