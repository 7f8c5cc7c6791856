"""What the page of a report draws: an evaluation as compact values that JSON knows."""

from __future__ import annotations

import base64
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from evalkit.calibration import CELLS
from evalkit.intervals import CONFIDENCE_LEVEL, wilson
from evalkit.report.order import similarity_order
from evalkit.report.suspects import label_suspects

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt
    import pandas as pd

    from evalkit.report.samples import Samples

MOST_CELLS = 400_000  # 3.2 MB; the smallest beyond are left out, and the page says so
MOST_SAMPLES = 40_000
MOST_TEXT = 3_000_000  # characters of their paths
GALLERY = 48
PAIRS = 50
DIGITS = 4
BINS = 10  # of the reliability diagram, equally wide
HISTOGRAM_BINS = 32  # a power of two, as the cells they are made of

COLUMNS = (
    *("precision", "precision_low", "precision_high"),
    *("recall", "recall_low", "recall_high"),
    *("f1", "f1_low", "f1_high"),
)


def payload(
    confusion: pd.DataFrame,
    per_class: pd.DataFrame,
    samples: Samples | None,
    *,
    level: float = CONFIDENCE_LEVEL,
) -> dict[str, Any]:
    """Everything that is drawn by script; fractions in [0, 1], None for what is undefined.

    Args:
        confusion: Counts, shape (C, C), rows true and columns given classes.
        per_class: See `evalkit.per_class_scores`.
        samples: Samples to look at; None where only counts are known.
        level: Nominal coverage of the intervals.

    Returns:
        ``classes``; ``level`` as text; ``matrix`` (its cells that are not zero, row by row, as
        base64 of little-endian numbers); ``order`` (by similarity); ``perClass``; ``pairs`` (true
        class, given class, samples, the most confused first); ``samples`` with ``gallery`` and
        ``suspects`` as positions in them; ``reliability`` and ``histogram``.
    """
    counts = confusion.to_numpy()
    names = [str(name) for name in confusion.index]
    return {
        "classes": names,
        "level": f"{100 * level:g} %",
        "matrix": _matrix(counts),
        "order": similarity_order(counts),
        "perClass": {
            **{name: _rounded(per_class[name]) for name in COLUMNS},
            "support": per_class["support"].tolist(),
            "predicted": per_class["predicted"].tolist(),
        },
        "pairs": most_confused(counts, PAIRS),
        **_samples(samples, names, counts),
        **_confidence(samples, level),
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


def most_confused(counts: npt.NDArray[np.int64], most: int) -> list[tuple[int, int, int]]:
    """Position of the true and of the given class and their samples, the most samples first.

    Example:
        >>> most_confused(np.array([[5, 1], [3, 9]]), 5)
        [(1, 0, 3), (0, 1, 1)]
    """
    true, given = np.nonzero(counts)
    mistakes = true != given
    true, given = true[mistakes], given[mistakes]
    samples = counts[true, given]
    first = np.argsort(-samples, kind="stable")[:most]
    return list(
        zip(true[first].tolist(), given[first].tolist(), samples[first].tolist(), strict=True)
    )


def _matrix(counts: npt.NDArray[np.int64]) -> dict[str, Any]:
    true, given = np.nonzero(counts)
    values = counts[true, given]
    order = np.argsort(-values, kind="stable")
    left_out = values[order[MOST_CELLS:]]
    if len(left_out):
        kept = np.sort(order[:MOST_CELLS])
        true, given, values = true[kept], given[kept], values[kept]
    per_row = np.bincount(true, minlength=len(counts))
    return {
        "perRow": _base64(per_row, "<u4"),
        "columns": _base64(given, "<u4" if len(counts) > 1 << 16 else "<u2"),
        "counts": _base64(values, "<f8" if values.max(initial=0) >= 1 << 32 else "<u4"),
        "leftOut": len(left_out),
        "largestLeftOut": int(left_out.max(initial=0)),
    }


def _base64(values: npt.NDArray[Any], kind: str) -> dict[str, str]:
    data = base64.b64encode(values.astype(kind).tobytes()).decode()
    return {"kind": kind.removeprefix("<"), "data": data}


def _rounded(values: pd.Series[Any]) -> list[float | None]:
    return [None if math.isnan(value) else round(value, DIGITS) for value in values.tolist()]


def _samples(
    samples: Samples | None, names: list[str], counts: npt.NDArray[np.int64]
) -> dict[str, Any]:
    if samples is None:
        return {"samples": None, "gallery": [], "suspects": []}
    position = {name: code for code, name in enumerate(names)}
    rows = samples.rows()
    wrong = rows["label"] != rows["prediction"]
    gallery = rows[wrong].sort_values("severity", ascending=False, kind="stable").index[:GALLERY]
    suspects = label_suspects(rows, samples.self_confidence()).index[:GALLERY]
    true = np.array([position[name] for name in rows["label"]], dtype=np.int64)
    given = np.array([position[name] for name in rows["prediction"]], dtype=np.int64)
    chosen = _within_budget(rows, true, given, counts, first=[*gallery, *suspects])
    rows = rows.loc[chosen]
    place = {row: number for number, row in enumerate(chosen)}
    shown: dict[str, Any] = {"label": true[chosen].tolist(), "prediction": given[chosen].tolist()}
    for name, key in (("confidence", "confidence"), ("label_probability", "labelProbability")):
        if name in rows:
            shown[key] = _rounded(rows[name])
    shown["path"] = [_name_of(row) for row in rows.to_dict("records")]
    return {
        "samples": shown,
        "gallery": [place[row] for row in gallery],
        "suspects": [place[row] for row in suspects],
    }


def _within_budget(
    rows: pd.DataFrame,
    true: npt.NDArray[np.int64],
    given: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    *,
    first: list[int],
) -> list[int]:
    """Rows to send: *first*, then the worst of every cell, more of large ones, fewer right ones."""
    by_cell = rows.assign(true=true, given=given).sort_values("severity", ascending=False)
    rank = by_cell.groupby(["true", "given"]).cumcount().sort_index().to_numpy()
    turn = (rank + 1) / np.sqrt(counts[true, given]) * np.where(true == given, 4, 1)
    order = np.argsort(turn, kind="stable")
    wanted = list(dict.fromkeys([*first, *order.tolist()]))[:MOST_SAMPLES]
    if "path" not in rows:
        return wanted
    lengths = rows["path"].astype(str).str.len().to_numpy()[wanted].cumsum()
    return wanted[: int(np.searchsorted(lengths, MOST_TEXT, side="right"))]


def _name_of(row: Mapping[Any, Any]) -> str:
    path = row.get("path")
    return path if isinstance(path, str) else f"sample {row.get('index', '')}"


def _confidence(samples: Samples | None, level: float) -> dict[str, Any]:
    """The diagrams of confidence, or None where it is not known of every sample."""
    if samples is None or samples.cells is None:
        return {"reliability": None, "histogram": None}
    total, confident, right = samples.cells
    fine = np.array([total - right, right])
    histogram = fine.reshape(2, HISTOGRAM_BINS, -1).sum(axis=2).astype(np.int64)
    return {
        "reliability": _reliability(total, confident, right, level),
        "histogram": {"wrong": histogram[0].tolist(), "right": histogram[1].tolist()},
    }


def _reliability(
    total: npt.NDArray[np.float64],
    confident: npt.NDArray[np.float64],
    right: npt.NDArray[np.float64],
    level: float,
) -> list[dict[str, float]]:
    """One entry per bin of equal width that has samples."""
    bin_of_cell = np.arange(CELLS) * BINS // CELLS
    sums = [np.bincount(bin_of_cell, weights=row) for row in (total, confident, right)]
    found = []
    for number, (samples, confidence, hits) in enumerate(zip(*sums, strict=True)):
        if samples:
            low, high = wilson(int(hits), int(samples), level=level)
            found.append(
                {
                    "from": number / BINS,
                    "to": (number + 1) / BINS,
                    "samples": int(samples),
                    "confidence": round(confidence / samples, DIGITS),
                    "accuracy": round(hits / samples, DIGITS),
                    "low": round(float(low), DIGITS),
                    "high": round(float(high), DIGITS),
                }
            )
    return found
