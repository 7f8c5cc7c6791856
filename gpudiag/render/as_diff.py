"""Comparison of two machines -> text, JSON or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import TypeAlias

import msgspec
from tabulate import tabulate

from gpudiag.compare import PASSED, Comparison, Difference, OneSided
from gpudiag.finding import Severity
from gpudiag.render.as_table import csv_cell, printable
from gpudiag.render.summary import gpu_names
from gpudiag.snapshot import SCHEMA_VERSION, Missing, Snapshot
from gpudiag.traits import told, traits_of
from gpudiag.version import __version__

COLUMNS = ("kind", "name", "matters", "a", "b", "why_a_is_not_known", "why_b_is_not_known")
CELL = 34  # characters of a value on a line; with the fact's name, two of them fill 100
TITLES = (("Can matter", True), ("Rarely matters", False))


Machines: TypeAlias = tuple[tuple[str, Snapshot], tuple[str, Snapshot]]


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """What ``gpudiag diff --format json`` prints."""

    schema_version: int
    gpudiag_version: str
    a: str
    b: str
    differences: tuple[Difference, ...]
    rules: tuple[OneSided, ...]


def as_text(comparison: Comparison, machines: Machines) -> str:
    """What differs, for a terminal of 100 columns.

    Args:
        comparison: What differs.
        machines: The two machines by the names under which they are told, A first.
    """
    blocks = ["\n".join(_head(side, *one) for side, one in zip("AB", machines, strict=True))]
    for title, matters in TITLES:
        table = _table(d for d in comparison.differences if d.known and d.matters is matters)
        blocks += [f"{title}\n{table}"] if table else []
    blocks += [_one_sided(comparison.differences), _rules(comparison.rules), _verdict(comparison)]
    return "\n\n".join(block for block in blocks if block)


def as_json(comparison: Comparison, machines: Machines) -> str:
    """The same as one JSON document; a fact that is not known is ``{"missing": reason}``."""
    (a, _), (b, _) = machines
    document = Document(
        schema_version=SCHEMA_VERSION,
        gpudiag_version=__version__,
        a=a,
        b=b,
        differences=comparison.differences,
        rules=comparison.rules,
    )
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()


def as_csv(comparison: Comparison) -> str:
    """One row per difference, then one per rule that fires on one side only."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in comparison.differences:
        writer.writerow(("fact", one.fact, str(one.matters).lower(), *_cells(one), *_reasons(one)))
    writer.writerows(_rule_row(rule) for rule in comparison.rules)
    return text.getvalue().rstrip("\n")


def _rule_row(rule: OneSided) -> list[str]:
    asked = rule.other == PASSED
    here, there = ("found", ""), (PASSED if asked else "", "" if asked else csv_cell(rule.other))
    a, b = (here, there) if rule.side == "a" else (there, here)
    matters = str(rule.severity is not Severity.NOTE).lower()
    return ["rule", rule.id, matters, a[0], b[0], a[1], b[1]]


def _head(side: str, name: str, snapshot: Snapshot) -> str:
    facts = traits_of(snapshot)
    driver, torch = (told(f, facts[f]) for f in ("nvml.driver_version", "torch.version"))
    machine = f"{gpu_names(snapshot)} · driver {driver} · torch {torch}"
    return printable(f"{side}  {name}") + "\n" + printable(f"   {machine}")


def _table(differences: Iterable[Difference]) -> str:
    rows = [
        (one.fact, *(printable(told(one.fact, v)) for v in (one.a, one.b))) for one in differences
    ]
    if not rows:
        return ""
    table = tabulate(
        rows,
        headers=("fact", "A", "B"),
        tablefmt="simple",
        disable_numparse=True,
        maxcolwidths=[None, CELL, CELL],
    )
    return "\n".join(line.rstrip() for line in table.splitlines())


def _one_sided(differences: Iterable[Difference]) -> str:
    """The facts that one side does not know, those of one reason together."""
    facts: dict[tuple[str, str], list[str]] = {}
    for one in differences:
        for side, value in (("A", one.a), ("B", one.b)):
            if isinstance(value, Missing):
                facts.setdefault((side, value.missing), []).append(one.fact)
    if not facts:
        return ""
    lines = [
        f"  {side}: {printable(reason)}\n     {printable(_few(names))}"
        for (side, reason), names in facts.items()
    ]
    return "\n".join(("Not known on one side", *lines))


def _few(names: list[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _rules(rules: Iterable[OneSided]) -> str:
    lines = []
    for rule in rules:
        lines.append(f"  {rule.side.upper()}: {rule.severity} {rule.id}  {rule.title}")
        lines += [f"     {printable(line)}" for line in rule.evidence]
        if rule.other != PASSED:
            other = "B" if rule.side == "a" else "A"
            lines.append(f"     could not be asked of {other}: {printable(rule.other)}")
    return "\n".join(("Rules that fire on one side only", *lines)) if lines else ""


def _verdict(comparison: Comparison) -> str:
    matter = sum(one.matters for one in comparison.differences)
    unasked = sum(not one.asked for one in comparison.differences)
    rest = len(comparison.differences) - matter - unasked
    if not matter and not rest and not comparison.rules:
        return f"no difference{_unasked(unasked)}"
    many = len(comparison.rules)
    return (
        f"{matter} difference{'s' * (matter != 1)} that can matter, {rest} that rarely "
        f"{'do' if rest != 1 else 'does'} · {many} rule{'s' * (many != 1)} on one side only"
        f"{_unasked(unasked)}"
    )


def _unasked(count: int) -> str:
    """One line on what was left out of a snapshot with --no-torch, or by an older gpudiag."""
    were = "fact was" if count == 1 else "facts were"
    return f"\n{count} {were} asked of one side only" if count else ""


def _cells(one: Difference) -> tuple[str, str]:
    a, b = ("" if isinstance(v, Missing) or v is None else csv_cell(v) for v in (one.a, one.b))
    return a, b


def _reasons(one: Difference) -> tuple[str, str]:
    a, b = (csv_cell(v.missing) if isinstance(v, Missing) else "" for v in (one.a, one.b))
    return a, b
