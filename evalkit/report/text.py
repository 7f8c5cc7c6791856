"""An evaluation in words: for the terminal, for a notebook, in one line."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

from evalkit.report.confused import most_confused
from evalkit.wording import counted, display_width, printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from evalkit.evaluation import Evaluation
    from evalkit.scoring.sparse import SparseConfusion

WIDTH = 100
ALL_CLASSES_UP_TO = 20  # more of them do not fit a screen: then only the worst
CONFUSIONS = 5
SLICES = 10
NAME_WIDTH = 24  # leaves room for three fractions with intervals and two counts
UNDEFINED = "–"  # noqa: RUF001 - an en dash reads as "nothing here", a minus as a number


def as_text(evaluation: Evaluation) -> str:
    """A screen of at most 100 columns: warnings, the main numbers, classes, confusions.

    Undefined values are shown as an en dash. More than 20 classes are cut down to the 20 worst
    by the upper end of their F1's interval, which does not blame a class for having few samples.

    Example:
        >>> from evalkit.evaluation import Evaluation
        >>> import pandas as pd
        >>> pairs = pd.DataFrame({"label": ["cat", "dog"] * 5, "prediction": ["cat"] * 10})
        >>> print(as_text(Evaluation.from_predictions(pairs, classes=["cat", "dog"])))
        10 samples, 2 classes
        <BLANKLINE>
        accuracy           0.500  [0.237, 0.763]
        ...
    """
    summary = evaluation.summary
    parts = [
        "\n".join(map(_warning, summary["warnings"])),
        one_line(evaluation),
        _headline(summary),
        _class_table(evaluation.per_class),
        _slices(evaluation.slices),
        _confusions(evaluation.cells),
    ]
    return "\n\n".join(part for part in parts if part)


def one_line(evaluation: Evaluation) -> str:
    """How much was evaluated."""
    summary = evaluation.summary
    unreadable = summary["unreadable"]
    count = len(unreadable) if isinstance(unreadable, list) else unreadable
    classes = counted(summary["classes"], "class", "classes")
    line = f"{counted(summary['samples'], 'sample')}, {classes}"
    return f"{line}, {count:,} more could not be read" if count else line


def as_html_table(evaluation: Evaluation) -> str:
    """The per-class table as HTML, names escaped, undefined values as a dash."""
    summary = evaluation.summary
    accuracy = _fraction(summary["accuracy"])
    interval = _interval(summary["accuracy_low"], summary["accuracy_high"])
    table = evaluation.per_class.to_html(float_format="{:.3f}".format, na_rep=UNDEFINED)
    return f"<p>{one_line(evaluation)}: accuracy {accuracy} {interval}</p>{table}"


def _warning(text: str) -> str:
    return textwrap.fill(f"! {printable(text)}", width=WIDTH, subsequent_indent="  ")


def _headline(summary: dict[str, Any]) -> str:
    rows: list[tuple[str, float | None, str]] = [
        (
            "accuracy",
            summary["accuracy"],
            _interval(summary["accuracy_low"], summary["accuracy_high"]),
        )
    ]
    for k in summary["top_k"]:
        bounds = _interval(summary["top_k_low"][k], summary["top_k_high"][k])
        rows += [(f"top-{k} accuracy", summary["top_k"][k], bounds)] if k != "1" else []
    rows += [
        ("balanced accuracy", *_scored(summary, "balanced_accuracy")),
        ("macro F1", *_scored(summary["macro"], "f1")),
        ("weighted F1", *_scored(summary["weighted"], "f1")),
        ("MCC", *_scored(summary, "mcc")),
        ("Cohen's kappa", *_scored(summary, "kappa")),
    ]
    rows += [
        (name, *_scored(summary, name.lower()))
        for name in ("NLL", "Brier", "ECE")
        if summary[name.lower()] is not None
    ]
    return "\n".join(
        f"{name:<18} {_fraction(value):>5}  {note}".rstrip() for name, value, note in rows
    )


def _scored(scores: Mapping[str, Any], name: str) -> tuple[float | None, str]:
    return scores[name], _interval(scores.get(f"{name}_low"), scores.get(f"{name}_high"))


def _class_table(per_class: pd.DataFrame) -> str:
    shown, note = per_class, ""
    if len(per_class) > ALL_CLASSES_UP_TO:
        shown = per_class.sort_values("f1_high", kind="stable").head(ALL_CLASSES_UP_TO)
        note = f"the {len(shown)} worst of {len(per_class):,} classes; all are in per_class.csv"
    rows = [
        (
            printable(name, width=NAME_WIDTH),
            *(_with_interval(row, score) for score in ("precision", "recall", "f1")),
            f"{row['support']:.0f}",
            f"{row['predicted']:.0f}",
        )
        for name, row in shown.iterrows()
    ]
    header = ("class", "precision", "recall", "F1", "support", "predicted")
    return f"{columns([header, *rows], '<<<<>>')}\n{note}".rstrip()


def _slices(slices: pd.DataFrame | None) -> str:
    """The worst slices, by the upper end of their accuracy."""
    if slices is None:
        return ""
    rows = [
        (
            printable(row["column"], width=NAME_WIDTH),
            printable(row["value"], width=NAME_WIDTH),
            _with_interval(row, "accuracy"),
            _with_interval(row, "macro_f1"),
            f"{row['samples']:,}",
        )
        for _, row in slices.head(SLICES).iterrows()
    ]
    header = ("slice: column", "value", "accuracy", "macro F1", "samples")
    more = len(slices) - SLICES
    note = f"{more:,} more {'is' if more == 1 else 'are'} in slices.csv" if more > 0 else ""
    return f"{columns([header, *rows], '<<<<>')}\n{note}".rstrip()


def _confusions(cells: SparseConfusion) -> str:
    pairs = most_confused(cells, CONFUSIONS)
    if not pairs:
        return ""
    support = cells.support
    rows = [
        (
            printable(cells.classes[true], width=NAME_WIDTH),
            printable(cells.classes[given], width=NAME_WIDTH),
            f"{count:,}",
            _fraction(count / support[true]),
        )
        for true, given, count in pairs
    ]
    header = ("most confused: true", "predicted", "samples", "of the true class")
    return columns([header, *rows], "<<>>")


def columns(rows: Sequence[Sequence[str]], alignment: str) -> str:
    """Cells under each other, two blanks apart; *alignment* has ``<`` or ``>`` per column.

    Example:
        >>> print(columns([("model", "accuracy"), ("a", "0.9")], "<>"))
        model  accuracy
        a           0.9
    """
    widths = [max(map(display_width, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = []
        for text, width, side in zip(row, widths, alignment, strict=True):
            blanks = " " * (width - display_width(text))
            cells.append(text + blanks if side == "<" else blanks + text)
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _with_interval(row: pd.Series[Any], name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    if math.isnan(row[name]):
        return UNDEFINED
    if math.isnan(low):
        return _fraction(row[name])
    return f"{_fraction(row[name])} [{_short(low)}, {_short(high)}]"


def _short(fraction: float) -> str:
    """Three characters: .07, .98, 1.0."""
    return f"{fraction:.2f}".removeprefix("0")[:3]


def _fraction(value: float | None) -> str:
    return UNDEFINED if value is None or math.isnan(value) else f"{value:.3f}"


def _interval(low: float | None, high: float | None) -> str:
    return f"[{low:.3f}, {high:.3f}]" if low is not None else ""
