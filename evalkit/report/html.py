"""An evaluation as one HTML file that needs nothing else: no network, no fonts, no libraries."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from evalkit.errors import InputError
from evalkit.report.headline import calibration_error, figures, level_of, scale_from
from evalkit.report.origin import UNDEFINED, origins
from evalkit.report.parts import slice_rows
from evalkit.report.payload import as_json, payload
from evalkit.report.text import one_line
from evalkit.wording import counted
from gpudiag.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from evalkit.evaluation import Evaluation
    from evalkit.scoring.label_errors import LabelErrors

SCRIPTS = ("base.js", "matrix.js", "tables.js", "charts.js", "report.js")
LISTED_FILES = 500


def as_html(evaluation: Evaluation, *, images: Path | None = None) -> str:
    """The report: everything in one page that works offline, on any screen and on paper.

    Whatever comes from outside is escaped, and the page's own policy runs no script but its own.

    Args:
        evaluation: What to show.
        images: Folder that the paths of its samples are relative to; None leaves out thumbnails.

    Raises:
        InputError: A library that the report needs is not installed.

    Example:
        >>> from evalkit.evaluation import Evaluation
        >>> import pandas as pd
        >>> pairs = pd.DataFrame({"label": ["<b>", "dog"], "prediction": ["dog", "dog"]})
        >>> page = as_html(Evaluation.from_predictions(pairs, classes=["<b>", "dog"]))
        >>> page[:15], "<b>" in page.split("data")[-1]
        ('<!doctype html>', False)
    """
    template, summary = _template(), evaluation.summary
    drawn = payload(
        evaluation.cells,
        evaluation.per_class,
        evaluation.samples,
        level=level_of(evaluation),
        ece=calibration_error(summary),
        label_errors=evaluation.label_errors,
    )
    _add_thumbnails(drawn, images)
    slices, more_slices = slice_rows(evaluation.slices)
    unreadable, note = _unreadable(summary.get("unreadable"))
    sections = {
        "numbers": "Numbers",
        "confusion": "Confusion matrix",
        "pairs": "Most confused" if drawn["pairs"] else "",
        "classes": "Classes",
        "slices": "Slices" if slices else "",
        "confidence": "Confidence" if drawn["reliability"] else "",
        "mistakes": "Mistakes" if drawn["gallery"] else "",
        "suspects": "Suspected labels" if drawn["suspects"] else "",
        "unreadable": "Unreadable" if unreadable else "",
        "origin": "How it was made",
    }
    found = figures(summary)
    start = scale_from(found)
    style, script = _assets()
    page: str = template.render(
        title=_title(summary),
        lede=one_line(evaluation),
        sections=[(id_, name) for id_, name in sections.items() if name],
        warnings=summary.get("warnings", []),
        figures=found,
        along=lambda value: round(200 * (value - start) / (1 - start), 2),
        scale_from=f"{start:g}",
        intervals=_intervals(summary),
        some_classes=_some_classes(len(drawn["classes"]), len(evaluation.cells)),
        slices=slices,
        number=lambda value: UNDEFINED if value is None else f"{value:.3f}",
        more_slices=more_slices,
        unreadable=unreadable,
        unreadable_note=note,
        suspects_by=_suspects_by(evaluation.label_errors),
        command=summary.get("command"),
        origins=origins(summary),
        version=__version__,
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        data=_markup(as_json(drawn)),
    )
    return page


def _intervals(summary: Mapping[str, Any]) -> str:
    """How the intervals are made, in words."""
    resampled = (summary.get("resampling") or {}).get("method")
    words = str(summary.get("interval", ""))
    return f"{words}; of averages, MCC and kappa {resampled}" if resampled else words


def _some_classes(shown: int, classes: int) -> str:
    """Which classes of too many are shown; nothing where all are."""
    if shown == classes:
        return ""
    return (
        f"Shown are {shown:,} of {classes:,} classes: those of the most confused pairs and of the "
        "worst mistakes, the worst by F1, and those with the most mistakes. Shares count all "
        "samples of a class. The others are in per_class.csv and confusion_matrix.csv."
    )


def _suspects_by(label_errors: LabelErrors | None) -> str:
    """How labels came to be suspected, in words."""
    if label_errors is None:
        return "confident learning on the given class and the label"
    return label_errors.method


def _title(summary: Mapping[str, Any]) -> str:
    """The name of the checkpoint file, where there is one."""
    checkpoint = summary.get("checkpoint")
    path = checkpoint.get("path") if isinstance(checkpoint, dict) else None
    return PurePath(path).name if path else "Predictions"


def _thumbnails(paths: Iterable[str], folder: Path) -> dict[str, str]:
    from evalkit.report.thumbnails import thumbnails  # Pillow, which a report without images lacks

    return thumbnails(paths, folder)


def _add_thumbnails(drawn: dict[str, Any], images: Path | None) -> None:
    """Add to the samples what can be shown of them, those in the galleries first."""
    if drawn["samples"] is None:
        return
    paths = drawn["samples"]["path"]
    first = [*drawn["gallery"], *drawn["suspects"], *range(len(paths))]
    found = _thumbnails((paths[position] for position in first), images) if images else {}
    drawn["samples"]["thumbnail"] = {
        str(position): found[path] for position, path in enumerate(paths) if path in found
    }


def _unreadable(unreadable: Any) -> tuple[list[tuple[str, str]], str]:
    """Files that could not be read with the reason, and how many there are."""
    if not isinstance(unreadable, list) or not unreadable:
        return [], ""
    files = [
        (str(one.get("path", "")), str(one.get("reason", "")))
        if isinstance(one, dict)
        else (str(one), "")
        for one in unreadable
    ]
    note = f"{counted(len(files), 'file')} could not be read and do not count above."
    more = len(files) - LISTED_FILES
    return files[:LISTED_FILES], note + (f" Not listed here: {more:,}." if more > 0 else "")


@cache
def _template() -> Any:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise InputError(
            "writing report.html needs jinja2: pip install 'gpudiag[report]'"
        ) from error
    loader = PackageLoader("evalkit.report")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    return environment.get_template("report.html.j2")


@cache
def _assets() -> tuple[Any, Any]:
    """The style sheet and the script, as markup."""
    folder = resources.files("evalkit.report") / "templates"
    parts = [(folder / name).read_text(encoding="utf-8") for name in SCRIPTS]
    script = "(() => {\n'use strict';\n" + "\n".join(parts) + "})();"
    return _markup((folder / "report.css").read_text(encoding="utf-8")), _markup(script)


def _markup(text: str) -> Any:
    """*text* as it is: only for what is written here, and for JSON that `as_json` made safe."""
    from markupsafe import Markup

    return Markup(text)  # noqa: S704 - see above


def _hash(text: str) -> str:
    """As a content security policy names a script or a style sheet."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
