"""An inspection as tables for the terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tabulate import tabulate

from evalkit.wording import counted, printable, some

if TYPE_CHECKING:
    from collections.abc import Iterator

    from evalkit.checkpoint.convert import Conversion
    from evalkit.checkpoint.inspection import Inspection, WeightSet

SHOWN_ENTRIES = 20
SHOWN_TENSORS = 4  # at either end of a set of weights
LARGE = 1024
UNITS = ("KiB", "MiB", "GiB")


def as_text(found: Inspection) -> str:
    """Return what is in a checkpoint: facts, names at its top, sets of weights, first tensors."""
    parts = [
        "\n".join(f"warning: {warning}" for warning in found.warnings),
        tabulate(list(_facts(found)), tablefmt="plain"),
        _top(found),
        _sets(found),
        _tensors(found),
    ]
    return "\n\n".join(part for part in parts if part)


def conversion_text(made: Conversion) -> str:
    """Return what a clean file was made of, in a line or two."""
    taken_off = f", without {some(made.prefixes)}" if made.prefixes else ""
    lines = [
        f"{counted(made.tensors, 'tensor')} with {counted(made.values, 'value')} of "
        f"'{made.weights}'{taken_off}"
    ]
    if made.spec:
        lines.append(f"they have the names and shapes of {made.spec}")
    if made.dropped:
        lines.append(f"left out: {some(made.dropped)}")
    if made.others:
        lines.append(f"other sets of weights, not taken: {some(made.others)}")
    lines += [f"warning: {warning}" for warning in made.warnings]
    return "\n".join(map(printable, lines))


def size_text(size_bytes: int) -> str:
    """Return a size with its unit.

    Example:
        >>> size_text(46_830_571), size_text(512)
        ('44.7 MiB', '512 bytes')
    """
    if size_bytes < LARGE:
        return f"{size_bytes} bytes"
    steps = min(int(math.log(size_bytes, LARGE)), len(UNITS))
    return f"{size_bytes / LARGE**steps:.1f} {UNITS[steps - 1]}"


def _facts(found: Inspection) -> Iterator[tuple[str, str]]:
    yield "file", found.path
    yield "kind", f"{found.kind}, {size_text(found.size_bytes)}"
    yield "sha256", found.sha256
    if found.model_spec:
        yield "model", f"{found.model_spec}, as the file says"
    elif found.guess:
        yield "model", f"{found.guess}: {found.guess_reason}"
    elif found.weights:
        yield "model", f"unknown: {found.guess_reason} (evalkit evaluate --model)"
    if found.num_classes is not None:
        yield "outputs", f"{found.num_classes:,}"
    if found.classes:
        yield "classes", f"{counted(len(found.classes), 'name')}: {some(found.classes)}"
    if found.transform:
        yield "transform", some([f"{key} {value}" for key, value in found.transform.items()], 8)
    if found.unknown_classes:
        yield "unknown", f"{some(found.unknown_classes)} (neither imported nor run)"


def _top(found: Inspection) -> str:
    if found.weights and found.weights[0].name == ".":
        return ""
    rows = [(some([name]), what) for name, what in found.holds.items()][:SHOWN_ENTRIES]
    more = len(found.holds) - len(rows)
    table = tabulate(rows, headers=("holds", ""), tablefmt="simple", disable_numparse=True)
    return f"{table}\n… {more} more" if more else table


def _sets(found: Inspection) -> str:
    if not found.weights:
        return "no weights"
    rows = [
        (
            some([one.name]),
            f"{one.tensors:,}",
            f"{one.values:,}",
            size_text(one.size_bytes),
            ", ".join(one.dtypes),
            _remarks(one),
        )
        for one in found.weights
    ]
    headers = ("weights", "tensors", "values", "size", "types", "")
    align = ("left", "right", "right", "right", "left", "left")
    return tabulate(
        rows,
        headers=headers,
        tablefmt="simple",
        colalign=align,
        disable_numparse=True,
    )


def _remarks(one: WeightSet) -> str:
    remarks = {
        f"below '{one.prefix}'": one.prefix,
        "averaged": one.is_averaged,
        "a whole module": one.is_module,
        "quantised": one.is_quantised,
    }
    return ", ".join(text for text, applies in remarks.items() if applies)


def _tensors(found: Inspection) -> str:
    if not found.weights:
        return ""
    largest = max(found.weights, key=lambda one: one.values)
    rows = [(some([key]), str(shape)) for key, shape in largest.shapes.items()]
    if len(rows) > 2 * SHOWN_TENSORS + 1:
        between = f"… {len(rows) - 2 * SHOWN_TENSORS} more"
        rows = [*rows[:SHOWN_TENSORS], (between, ""), *rows[-SHOWN_TENSORS:]]
    headers = (f"tensors of '{some([largest.name])}'", "shape")
    return tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True)
