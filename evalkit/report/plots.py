"""The confusion matrix and the diagrams of confidence as PNG and SVG files."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from evalkit.errors import InputError
from evalkit.report.diagrams import diagrams
from evalkit.report.headline import calibration_error, level_of
from evalkit.scoring.sparse import DENSE_CLASSES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from evalkit.evaluation import Evaluation

FORMATS = ("png", "svg")
DOTS_PER_INCH = 160
NAMED_UP_TO = 40  # classes; more names cannot be read on a page
NUMBERED_UP_TO = 20
RIGHT, WRONG, SOFT = "#1f5fae", "#c2560a", "#5b616b"  # told apart by colour-blind people as well
NAME_LENGTH = 24


def plots(evaluation: Evaluation) -> dict[str, bytes]:
    """Draw what is known of an evaluation.

    Returns:
        From file name to content, PNG and SVG of each: up to 10,000 classes
        ``plot_confusion_matrix``, and where every sample has a confidence ``plot_reliability``
        and ``plot_confidence``.

    Raises:
        InputError: matplotlib is not installed.
    """
    files: dict[str, bytes] = {}
    if len(evaluation.cells) <= DENSE_CLASSES:
        counts, names = evaluation.confusion.to_numpy(), [*map(str, evaluation.cells.classes)]
        files |= _files("plot_confusion_matrix", lambda axes: _draw_matrix(axes, counts, names))
    drawn = diagrams(
        evaluation.confidences,
        level=level_of(evaluation),
        ece=calibration_error(evaluation.summary),
    )
    if drawn["reliability"]:
        files |= _files(
            "plot_reliability", lambda axes: _draw_reliability(axes, drawn, level_of(evaluation))
        )
        files |= _files("plot_confidence", lambda axes: _draw_confidence(axes, drawn["histogram"]))
    return files


def _files(name: str, draw: Callable[[Axes], None]) -> dict[str, bytes]:
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("plots need matplotlib: pip install 'gpudiag[report]'") from error
    # No pyplot: it would keep the figure and choose a backend for the whole process.
    with rc_context({"svg.hashsalt": "evalkit", "font.size": 9}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # not in every font
        figure = Figure(figsize=(6.4, 5.6), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure.add_subplot())
        return {f"{name}.{kind}": _saved(figure, kind) for kind in FORMATS}


def _saved(figure: Figure, kind: str) -> bytes:
    stream = io.BytesIO()
    undated: Mapping[str, Any] = {"Date": None} if kind == "svg" else {}
    figure.savefig(stream, format=kind, dpi=DOTS_PER_INCH, metadata=dict(undated))
    return stream.getvalue()


def _draw_matrix(axes: Axes, counts: npt.NDArray[np.int64], names: Sequence[str]) -> None:
    """Shares of the true class, so that rare classes are seen as well as frequent ones."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # Square roots, as in report.html, keep the few visible beside the many.
    image = axes.imshow(np.sqrt(shares), cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xlabel="predicted class", ylabel="true class", title="Confusion matrix")
    if len(names) <= NAMED_UP_TO:
        short = [name if len(name) <= NAME_LENGTH else f"{name[:NAME_LENGTH]}…" for name in names]
        axes.set_xticks(range(len(names)), short, rotation=90, parse_math=False)
        axes.set_yticks(range(len(names)), short, parse_math=False)
    if len(names) <= NUMBERED_UP_TO:
        for (true, given), count in np.ndenumerate(counts):
            bright = shares[true, given] > 0.25  # noqa: PLR2004 - the middle of the scale
            colour = "black" if bright else "white"
            if count:
                axes.text(given, true, f"{count:,}", ha="center", va="center", color=colour)
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.8)
    ticks = np.array([0, 0.01, 0.1, 0.25, 0.5, 1])
    bar.set_ticks(np.sqrt(ticks).tolist(), labels=[f"{tick:g}" for tick in ticks])
    bar.set_label("share of the true class")


def _draw_reliability(axes: Axes, drawn: Mapping[str, Any], level: float) -> None:
    bins, ece = drawn["reliability"], drawn["ece"]
    confidence = np.array([one["confidence"] for one in bins])
    accuracy = np.array([one["accuracy"] for one in bins])
    low = np.array([one["low"] for one in bins])
    high = np.array([one["high"] for one in bins])
    axes.plot([0, 1], [0, 1], linestyle="--", color=SOFT, linewidth=1)
    axes.errorbar(
        confidence,
        accuracy,
        xerr=[
            np.maximum(confidence - [one["from"] for one in bins], 0),
            np.maximum([one["to"] for one in bins] - confidence, 0),
        ],
        yerr=np.maximum([accuracy - low, high - accuracy], 0),
        fmt="o",
        color=RIGHT,
        markersize=4,
        linewidth=1,
        capsize=2,
    )
    title = "Reliability"
    if ece is not None:
        title += f", ECE {ece['value']:.3f}"
        title += f" [{ece['low']:.3f}, {ece['high']:.3f}]" if ece["low"] is not None else ""
    axes.set(
        xlim=(0, 1),
        ylim=(0, 1.02),
        xlabel="confidence, in bins of equally many samples",
        ylabel=f"accuracy, with {100 * level:g} % intervals",
        title=title,
    )


def _draw_confidence(axes: Axes, histogram: Mapping[str, Sequence[int]]) -> None:
    edges = np.linspace(0, 1, len(histogram["right"]) + 1)
    for kind, name, color in (("right", "right", RIGHT), ("wrong", "mistakes", WRONG)):
        values = np.array(histogram[kind])
        total = max(int(values.sum()), 1)
        axes.stairs(
            values / total, edges, fill=True, color=color, alpha=0.55, label=f"{name}: {total:,}"
        )
    axes.set(xlim=(0, 1), xlabel="confidence", ylabel="share of each", title="Confidence")
    axes.legend(loc="upper left", frameon=False)
