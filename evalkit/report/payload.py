"""What the page of a report draws: an evaluation as compact values that JSON knows."""

from __future__ import annotations

import base64
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from evalkit.report.confused import most_confused
from evalkit.report.diagrams import DIGITS, diagrams
from evalkit.report.order import MOST_CLASSES, similarity_order
from evalkit.report.shown import restricted, shown_classes
from evalkit.report.suspects import found_again, label_suspects
from evalkit.scoring.intervals import CONFIDENCE_LEVEL

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt
    import pandas as pd

    from evalkit.report.headline import Figure
    from evalkit.report.samples import Samples
    from evalkit.scoring.label_errors import LabelErrors
    from evalkit.scoring.sparse import SparseConfusion

MOST_CELLS = 400_000  # 3.2 MB; the smallest beyond are left out, and the page says so
MOST_SAMPLES = 40_000
MOST_TEXT = 3_000_000  # characters of their paths
GALLERY = 48
PAIRS = 50

COLUMNS = (
    *("precision", "precision_low", "precision_high"),
    *("recall", "recall_low", "recall_high"),
    *("f1", "f1_low", "f1_high"),
)


def payload(
    cells: SparseConfusion,
    per_class: pd.DataFrame,
    samples: Samples | None,
    *,
    level: float = CONFIDENCE_LEVEL,
    ece: Figure | None = None,
    label_errors: LabelErrors | None = None,
) -> dict[str, Any]:
    """Everything that is drawn by script; fractions in [0, 1], None for what is undefined.

    Args:
        cells: Counts of C classes; of more than 10,000 the page shows some, see
            `evalkit.report.shown`.
        per_class: See `evalkit.per_class_scores`.
        samples: Samples to look at; None where only counts are known.
        level: Nominal coverage of the intervals.
        ece: The expected calibration error, where it is known.
        label_errors: Suspected labels by the probabilities of all classes, where these are known;
            otherwise they are suspected by the given class and the label alone.

    Returns:
        ``classes`` that are shown, to which all positions refer; ``level`` as text; ``matrix`` (its
        cells that are not zero, row by row, as base64 of little-endian numbers); ``order`` (by
        similarity); ``perClass``; ``pairs`` (true class, given class, samples, the most confused
        first); ``samples`` with ``gallery`` and ``suspects`` as positions in them; and what
        `evalkit.report.diagrams.diagrams` returns.
    """
    galleries = _galleries(samples, label_errors)
    pairs = most_confused(cells, PAIRS)
    position = {str(name): code for code, name in enumerate(cells.classes)}
    first = [code for true, given, _ in pairs for code in (true, given)]
    for rows in galleries.values():
        first += [position[name] for name in (*rows["label"], *rows["prediction"])]
    shown = shown_classes(cells, per_class, first=first)
    part, scores = restricted(cells, shown), per_class.iloc[shown]
    small = len(part) <= MOST_CLASSES
    return {
        "classes": [str(name) for name in part.classes],
        "level": f"{100 * level:g} %",
        "matrix": _matrix(part),
        "order": similarity_order(part.to_frame().to_numpy()) if small else None,
        "perClass": {
            **{name: _rounded(scores[name]) for name in COLUMNS},
            "support": scores["support"].tolist(),
            "predicted": scores["predicted"].tolist(),
        },
        "pairs": [(*np.searchsorted(shown, pair[:2]).tolist(), pair[2]) for pair in pairs],
        **_samples(samples, galleries, part),
        **diagrams(None if samples is None else samples.cells, level=level, ece=ece),
    }


def as_json(values: Mapping[str, Any]) -> str:
    r"""JSON that may stand inside a ``script`` element: nothing in it can end or open one.

    Example:
        >>> as_json({"class": "</script><!--\u2028"})
        '{"class":"\\u003c/script\\u003e\\u003c!--\\u2028"}'
    """
    text = json.dumps(values, allow_nan=False, separators=(",", ":"))  # ASCII, escapes the rest
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _matrix(cells: SparseConfusion) -> dict[str, Any]:
    true, given, values = cells.labels, cells.predictions, cells.counts
    order = np.argsort(-values, kind="stable")
    left_out = values[order[MOST_CELLS:]]
    if len(left_out):
        kept = np.sort(order[:MOST_CELLS])
        true, given, values = true[kept], given[kept], values[kept]
    per_row = np.bincount(true, minlength=len(cells))
    return {
        "perRow": _base64(per_row, "<u4"),
        "columns": _base64(given, "<u4" if len(cells) > 1 << 16 else "<u2"),
        "counts": _base64(values, "<f8" if values.max(initial=0) >= 1 << 32 else "<u4"),
        "leftOut": len(left_out),
        "largestLeftOut": int(left_out.max(initial=0)),
    }


def _base64(values: npt.NDArray[Any], kind: str) -> dict[str, str]:
    data = base64.b64encode(values.astype(kind).tobytes()).decode()
    return {"kind": kind.removeprefix("<"), "data": data}


def _rounded(values: pd.Series[Any]) -> list[float | None]:
    return [None if math.isnan(value) else round(value, DIGITS) for value in values.tolist()]


def _galleries(
    samples: Samples | None, label_errors: LabelErrors | None
) -> dict[str, pd.DataFrame]:
    """The rows of both galleries, the first ones of each."""
    if samples is None:
        return {}
    rows = samples.rows()
    wrong = rows[rows["label"] != rows["prediction"]]
    worst = wrong.sort_values("severity", ascending=False, kind="stable")
    return {
        "gallery": worst.head(GALLERY),
        "suspects": (
            label_suspects(rows, samples.self_confidence())
            if label_errors is None
            else found_again(rows, label_errors)
        ).head(GALLERY),
    }


def _samples(
    samples: Samples | None, galleries: Mapping[str, pd.DataFrame], cells: SparseConfusion
) -> dict[str, Any]:
    if samples is None:
        return {"samples": None, "gallery": [], "suspects": []}
    position = {str(name): code for code, name in enumerate(cells.classes)}
    rows = samples.rows()
    places = {
        key: rows[key].map(position).fillna(-1).astype(np.int64) for key in ("label", "prediction")
    }
    rows = rows[(places["label"] >= 0) & (places["prediction"] >= 0)]
    true, given = (places[key][rows.index] for key in ("label", "prediction"))
    first = [row for gallery in galleries.values() for row in gallery.index]
    chosen = _within_budget(rows, true, given, cells, first=first)
    place = {row: number for number, row in enumerate(chosen)}
    shown: dict[str, Any] = {"label": true[chosen].tolist(), "prediction": given[chosen].tolist()}
    rows = rows.loc[chosen]
    for name, key in (("confidence", "confidence"), ("label_probability", "labelProbability")):
        if name in rows:
            shown[key] = _rounded(rows[name])
    shown["path"] = [_name_of(row) for row in rows.to_dict("records")]
    return {
        "samples": shown,
        **{name: [place[row] for row in gallery.index] for name, gallery in galleries.items()},
    }


def _within_budget(
    rows: pd.DataFrame,
    true: pd.Series[int],
    given: pd.Series[int],
    cells: SparseConfusion,
    *,
    first: list[int],
) -> list[int]:
    """Rows to send: *first*, then the worst of every cell, more of large ones, fewer right ones."""
    by_cell = rows.assign(true=true, given=given).sort_values("severity", ascending=False)
    rank = by_cell.groupby(["true", "given"]).cumcount()[rows.index].to_numpy()
    size = len(cells)
    cell = np.searchsorted(cells.labels * size + cells.predictions, true * size + given)
    turn = (rank + 1) / np.sqrt(cells.counts[cell]) * np.where(true == given, 4, 1)
    in_turn = rows.index[np.argsort(turn, kind="stable")].tolist()
    wanted = list(dict.fromkeys([*first, *in_turn]))[:MOST_SAMPLES]
    if "path" not in rows:
        return wanted
    lengths = rows["path"].astype(str).str.len()[wanted].to_numpy().cumsum()
    return wanted[: int(np.searchsorted(lengths, MOST_TEXT, side="right"))]


def _name_of(row: Mapping[Any, Any]) -> str:
    path = row.get("path")
    return path if isinstance(path, str) else f"sample {row.get('index', '')}"
