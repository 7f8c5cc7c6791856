"""Fleet -> text, JSON or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

import msgspec
from tabulate import tabulate

from gpudiag.finding import Severity
from gpudiag.fleet import Count, Fleet, Group, Spread, severities
from gpudiag.render.as_table import csv_cell, printable
from gpudiag.snapshot import SCHEMA_VERSION
from gpudiag.traits import told
from gpudiag.version import __version__

COLUMNS = ("machine", "kind", "name", "matters", "value", "usual")
NAMED = 4  # machines that a cell of the text names; the other forms name all
RULE_WIDTHS = (None, None, None, 38, 26)  # with headers and gaps, 100 columns
FACT_WIDTHS = (24, 22, 26, 22)


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """What ``gpudiag fleet --format json`` prints."""

    schema_version: int
    gpudiag_version: str
    machines: tuple[str, ...]
    rules: tuple[Count, ...]
    spreads: tuple[Spread, ...]
    alike: tuple[str, ...]
    unreadable: dict[str, str]


def as_text(fleet: Fleet, *, verbose: bool = False) -> str:
    """Rules, odd ones out and unreadable files, for a terminal.

    Args:
        fleet: The machines.
        verbose: Whether to tell the facts that rarely matter and those without a usual value, too.
    """
    shown = [s for s in fleet.spreads if verbose or (s.matters and s.usual is not None)]
    rows = [row for spread in shown for row in _rows(spread)]
    blocks = [
        _head(fleet),
        _titled(
            "Rules",
            ("rule", "severity", "machines", "title", "where"),
            [_rule(count) for count in fleet.rules],
            RULE_WIDTHS,
        ),
        _titled("Odd ones out", ("fact", "usual", "odd", "where"), rows, FACT_WIDTHS),
        _unreadable(fleet),
        _rest(fleet, len(fleet.spreads) - len(shown)),
    ]
    return "\n\n".join(block for block in blocks if block)


def as_json(fleet: Fleet) -> str:
    """The whole as one JSON document; a value that is not known is ``{"missing": reason}``."""
    document = Document(
        schema_version=SCHEMA_VERSION,
        gpudiag_version=__version__,
        **{name: getattr(fleet, name) for name in Fleet.__struct_fields__},
    )
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()


def as_csv(fleet: Fleet) -> str:
    """One row per machine and rule that fires, odd value, or reason for not being read."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for count in fleet.rules:
        matters = str(count.severity is not Severity.NOTE).lower()
        writer.writerows(
            (csv_cell(one), "rule", count.id, matters, str(count.severity), "")
            for one in count.machines
        )
    for spread in fleet.spreads:
        usual = csv_cell(told(spread.fact, spread.usual.value)) if spread.usual else ""
        matters = str(spread.matters).lower()
        writer.writerows(
            (
                csv_cell(one),
                "fact",
                csv_cell(spread.fact),
                matters,
                csv_cell(told(spread.fact, group.value)),
                usual,
            )
            for group in spread.odd
            for one in group.machines
        )
    for file, reason in fleet.unreadable.items():
        writer.writerow((csv_cell(file), "unreadable", "", "true", csv_cell(reason), ""))
    return text.getvalue().rstrip("\n")


def _head(fleet: Fleet) -> str:
    counts = severities(fleet)
    clean = len(fleet.machines) - counts[Severity.ERROR] - counts[Severity.WARNING]
    return (
        f"{_many(len(fleet.machines), 'machine')}: {counts[Severity.ERROR]} with errors, "
        f"{counts[Severity.WARNING]} with warnings, {clean} with neither"
    )


def _rule(count: Count) -> tuple[str, ...]:
    machines = str(len(count.machines))
    return (count.id, str(count.severity), machines, count.title, _few(count.machines))


def _rows(spread: Spread) -> list[tuple[str, ...]]:
    """One row per odd value; the fact and its usual value stand in the first alone."""

    def value(group: Group) -> str:
        return f"{printable(told(spread.fact, group.value))} ({len(group.machines)})"

    usual = value(spread.usual) if spread.usual else "no value prevails"
    groups = spread.odd if spread.usual else tuple(reversed(spread.odd))
    rows = [("", "", value(group), _few(group.machines)) for group in groups[:NAMED]]
    if len(groups) > NAMED:
        rows.append(("", "", f"and {len(groups) - NAMED} more values", ""))
    return [(printable(spread.fact), usual, *rows[0][2:]), *rows[1:]]


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return printable(", ".join(names[:NAMED])) + more


def _titled(
    title: str,
    headers: Sequence[str],
    rows: Iterable[Sequence[str]],
    widths: Sequence[int | None],
) -> str:
    body = list(rows)
    if not body:
        return ""
    table = tabulate(
        body,
        headers=headers,
        tablefmt="simple",
        disable_numparse=True,
        maxcolwidths=list(widths),
    )
    return "\n".join((title, *(line.rstrip() for line in table.splitlines())))


def _unreadable(fleet: Fleet) -> str:
    lines = [f"  {printable(file)}: {printable(why)}" for file, why in fleet.unreadable.items()]
    return "\n".join(("Not read", *lines)) if lines else ""


def _rest(fleet: Fleet, untold: int) -> str:
    text = f"{_many(len(fleet.alike), 'fact')} alike on all"
    hint = " (-v lists them)"
    return f"{text} · {_many(untold, 'other difference')}{hint}" if untold else text


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
