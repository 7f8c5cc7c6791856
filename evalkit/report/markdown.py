"""An evaluation as Markdown, short enough for a pull request."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from evalkit.report.confused import most_confused
from evalkit.report.headline import Figure, figures, level_of
from evalkit.report.parts import slice_rows
from evalkit.report.text import one_line
from evalkit.wording import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evalkit.evaluation import Evaluation

WORST_CLASSES = 10
CONFUSIONS = 10
SLICES = 10
NAME_WIDTH = 60
UNDEFINED = "–"  # noqa: RUF001 - an en dash reads as "nothing here", a minus as a number
SPECIAL = re.compile(r"[\\`*_\[\]<>#|~&:$]|(?<=www)\.")
REFERENCE = re.compile(r"(?<=@)(?=\w)|(?<=#)(?=\d)")  # GitHub finds these after all escapes
BACKTICKS = re.compile(r"`+")


def as_markdown(evaluation: Evaluation) -> str:
    """Headline numbers, warnings, the worst classes and the most confused pairs.

    Example:
        >>> from evalkit.evaluation import Evaluation
        >>> import pandas as pd
        >>> pairs = pd.DataFrame({"label": ["cat", "dog"] * 5, "prediction": ["cat"] * 10})
        >>> print(as_markdown(Evaluation.from_predictions(pairs, classes=["cat", "dog"])))
        ## Evaluation
        <BLANKLINE>
        10 samples, 2 classes
        ...
    """
    parts = [
        "## Evaluation",
        "\n".join(f"> ⚠️ {escape(text)}  " for text in evaluation.summary["warnings"]),
        one_line(evaluation),
        _headline(figures(evaluation.summary), level_of(evaluation)),
        _worst_classes(evaluation),
        _confusions(evaluation),
        _slices(evaluation),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def escape(text: object) -> str:
    r"""*text* as it reads, whatever it holds: no markup, no link, no mention, no new line.

    Example:
        >>> print(escape("a|b *c* <img> @me"))
        a\|b \*c\* \<img\> @<!-- -->me
    """
    plain = SPECIAL.sub(lambda match: f"\\{match.group()}", printable(text))
    return REFERENCE.sub("<!-- -->", plain)


def name_in_cell(name: object) -> str:
    r"""A class name as code in a cell of a table: nothing in it is markup.

    Example:
        >>> print(name_in_cell("a|b *c*"), name_in_cell("a`b"))
        `a\|b *c*` `` a`b ``
    """
    plain = printable(name, width=NAME_WIDTH).replace("|", "\\|")
    if not plain.strip():
        return "(empty)"
    fence = "`" * (1 + max(map(len, BACKTICKS.findall(plain)), default=0))
    pad = " " if "`" in plain else ""
    return f"{fence}{pad}{plain}{pad}{fence}"


def _headline(found: Sequence[Figure], level: float) -> str:
    rows = [
        (figure.name, _number(figure.value), _interval(figure.low, figure.high)) for figure in found
    ]
    return _table(("", "value", f"{100 * level:g} % interval"), rows, "lrr")


def _worst_classes(evaluation: Evaluation) -> str:
    """By the upper end of F1's interval, which does not blame a class for having few samples."""
    per_class = evaluation.per_class.dropna(subset="f1_high")
    worst = per_class.sort_values("f1_high", kind="stable").head(WORST_CLASSES)
    rows = [
        (
            name_in_cell(name),
            f"{_number(row['f1'])} {_interval(row['f1_low'], row['f1_high'])}",
            _number(row["precision"]),
            _number(row["recall"]),
            f"{row['support']:,.0f}",
        )
        for name, row in worst.iterrows()
    ]
    title = "Classes" if len(rows) == len(evaluation.per_class) else "Worst classes"
    header = ("class", "F1", "precision", "recall", "samples")
    return f"### {title}\n\n{_table(header, rows, 'lrrrr')}"


def _confusions(evaluation: Evaluation) -> str:
    names, support = evaluation.cells.classes, evaluation.cells.support
    pairs = most_confused(evaluation.cells, CONFUSIONS)
    if not pairs:
        return ""
    rows = [
        (
            name_in_cell(names[true]),
            name_in_cell(names[given]),
            f"{samples:,}",
            _number(samples / support[true]),
        )
        for true, given, samples in pairs
    ]
    header = ("true", "predicted", "samples", "of the true class")
    return f"### Most confused\n\n{_table(header, rows, 'llrr')}"


def _slices(evaluation: Evaluation) -> str:
    rows, more = slice_rows(evaluation.slices, most=SLICES)
    if not rows:
        return ""
    cells = [
        (
            name_in_cell(f"{row.column} = {row.value}"),
            f"{_number(row.accuracy)} {_interval(row.accuracy_low, row.accuracy_high)}",
            f"{_signed(row.difference)}{' **worse**' if row.worse else ''}",
            f"{row.samples:,}",
        )
        for row in rows
    ]
    header = ("slice", "accuracy", "against the rest", "samples")
    note = f"\n\n{more:,} more in slices.csv" if more else ""
    return f"### Slices, the worst first\n\n{_table(header, cells, 'lrrr')}{note}"


def _signed(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:+.3f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], alignment: str) -> str:
    rule = ["---" if side == "l" else "--:" for side in alignment]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))


def _number(value: Any) -> str:
    return UNDEFINED if value is None or math.isnan(value) else f"{value:.3f}"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"
