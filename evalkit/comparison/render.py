"""A comparison as text, JSON, CSV and one offline page, and as a folder of files."""

from __future__ import annotations

import html
import io
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.report.tables import csv_bytes, write_files
from evalkit.report.text import columns
from evalkit.wording import counted, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd

    from evalkit.comparison import Comparison
    from evalkit.comparison.pair import Pair

FILES = (
    *("comparison.json", "comparison.html", "scores.csv", "per_class_differences.csv"),
    "flips.csv",
)
CLASSES_SHOWN = 10
FLIPS_SHOWN = 500
NAME_WIDTH = 30
LIMITS = (
    "Intervals and tests cover the choice of the samples, not that of the seed: training one of "
    "the models again may change more than this."
)
STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:.5rem 0 1.5rem;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .75rem;border-bottom:1px solid #8884;text-align:right}
th:first-child,td:first-child{text-align:left}
div{overflow-x:auto}
.note{color:#777}
"""


def as_text(comparison: Comparison) -> str:
    """A screen: accuracy of every model, then every pair in words and tables."""
    head = [f"{counted(comparison.samples, 'sample')} in common by {comparison.key}"]
    left_out = {name: number for name, number in comparison.unmatched.items() if number}
    if left_out:
        listed = ", ".join(f"{number:,} only in {name}" for name, number in left_out.items())
        head.append(f"! left out: {printable(listed)}")
    head += [f"! {printable(warning)}" for warning in comparison.warnings]
    rows = [
        (printable(name, width=NAME_WIDTH), f"{value:.4f}")
        for name, value in comparison.accuracy.items()
    ]
    parts = ["\n".join(head), columns([("model", "accuracy"), *rows], "<>")]
    if comparison.cochran_q is not None:
        statistic, p_value = comparison.cochran_q
        parts.append(
            f"Cochran's Q {statistic:.2f}, p = {_p(p_value)}: "
            f"{'some model is' if p_value < 1 - comparison.level else 'no model is clearly'} "
            "better than another"
        )
    for pair, corrected in zip(comparison.pairs, comparison.p_values_holm, strict=True):
        parts += [*_pair_as_text(pair, corrected, comparison)]
    return "\n\n".join([*parts, LIMITS])


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """Everything but the samples that flipped, as JSON knows it; None where undefined."""
    return {
        "samples": comparison.samples,
        "key": comparison.key,
        "models": list(comparison.names),
        "unmatched": dict(comparison.unmatched),
        "warnings": list(comparison.warnings),
        "accuracy": dict(comparison.accuracy),
        "level": comparison.level,
        "seed": comparison.seed,
        "margin": comparison.margin,
        "cochran_q": None
        if comparison.cochran_q is None
        else dict(zip(("statistic", "p_value"), comparison.cochran_q, strict=True)),
        "pairs": [
            {
                "first": pair.first,
                "second": pair.second,
                "flips": pair.flips,
                "mcnemar_p_value": pair.p_value,
                "mcnemar_p_value_holm": corrected,
                "equivalence_p_value": _plain(pair.equivalence_p_value),
                "scores": _records(pair.scores),
                "per_class": _records(pair.per_class),
                "methods": {
                    "accuracy": "Tango's score interval",
                    "other scores": pair.method,
                    "test": "McNemar: exact below 25 discordant pairs, mid-p from there on",
                },
            }
            for pair, corrected in zip(comparison.pairs, comparison.p_values_holm, strict=True)
        ],
        "limits": LIMITS,
    }


def as_json(comparison: Comparison) -> str:
    """The comparison as JSON."""
    return json.dumps(as_dict(comparison), ensure_ascii=False, allow_nan=False, indent=2)


def as_csv(comparison: Comparison) -> str:
    """One row per pair and score."""
    return csv_bytes(_all(comparison, lambda pair: pair.scores.reset_index())).decode()


def as_html(comparison: Comparison) -> str:
    """One page without scripts that needs no network; everything in it is escaped."""
    page = io.StringIO()
    title = html.escape(" or ".join(comparison.names))
    page.write(
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width'>"
        "<meta http-equiv=Content-Security-Policy "
        "content=\"default-src 'none';style-src 'unsafe-inline'\">"
        f"<title>{title}</title><style>{STYLE}</style><h1>{title}</h1>"
    )
    page.write(
        f"<p>{counted(comparison.samples, 'sample')} in common by {html.escape(comparison.key)}"
    )
    for name, number in comparison.unmatched.items():
        if number:
            page.write(f"; <b>{number:,} only in {html.escape(name)}, left out</b>")
    page.write("</p>")
    for warning in comparison.warnings:
        page.write(f"<p><b>{html.escape(warning)}</b></p>")
    page.write(_html_table(("model", "accuracy"), comparison.accuracy.items()))
    if comparison.cochran_q is not None:
        statistic, p_value = comparison.cochran_q
        page.write(f"<p>Cochran's Q {statistic:.2f}, p = {_p(p_value)}</p>")
    for pair, corrected in zip(comparison.pairs, comparison.p_values_holm, strict=True):
        page.write(f"<h2>{html.escape(pair.second)} against {html.escape(pair.first)}</h2>")
        page.write(f"<p>{html.escape(_verdict(pair, corrected, comparison))}</p>")
        page.write(_html_table(("sample", "number"), pair.flips.items()))
        page.write(_html_frame(pair.scores.reset_index()))
        page.write("<h3>Classes</h3>" + _html_frame(_worst_classes(pair).reset_index()))
        page.write("<h3>Samples that flipped</h3>" + _html_frame(pair.changed.head(FLIPS_SHOWN)))
        if len(pair.changed) > FLIPS_SHOWN:
            page.write(f"<p class=note>The first {FLIPS_SHOWN} of {len(pair.changed):,}.</p>")
        page.write(f"<p class=note>{html.escape(pair.method)}</p>")
    page.write(f"<p class=note>{html.escape(LIMITS)}</p></html>\n")
    return page.getvalue()


FORMATS: dict[str, Callable[[Comparison], str]] = {
    "text": as_text,
    "json": as_json,
    "csv": as_csv,
    "html": as_html,
}


def save(comparison: Comparison, folder: Path | str) -> list[Path]:
    """Write everything, all files or none of them.

    Returns:
        The files of `FILES`.

    Raises:
        InputError: *folder* is a file, cannot be written to, or holds files of somebody else's
            under these names.
    """
    tables = {
        "scores.csv": lambda pair: pair.scores.reset_index(),
        "per_class_differences.csv": lambda pair: pair.per_class.reset_index(),
        "flips.csv": lambda pair: pair.changed,
    }
    files = {
        "comparison.json": as_json(comparison).encode(errors="backslashreplace") + b"\n",
        "comparison.html": as_html(comparison).encode(errors="xmlcharrefreplace"),
        **{name: csv_bytes(_all(comparison, of_pair)) for name, of_pair in tables.items()},
    }
    return write_files(Path(folder), files)


def _all(comparison: Comparison, of_pair: Callable[[Pair], pd.DataFrame]) -> pd.DataFrame:
    """The same table of every pair under each other, with the names of the models in front."""
    import pandas as pd

    parts = [
        pd.concat(
            {(pair.first, pair.second): of_pair(pair)}, names=["first_model", "second_model"]
        ).reset_index(["first_model", "second_model"])
        for pair in comparison.pairs
    ]
    return pd.concat(parts, ignore_index=True)


def _pair_as_text(pair: Pair, corrected: float, comparison: Comparison) -> Iterator[str]:
    yield printable(_verdict(pair, corrected, comparison))
    yield columns(
        [("sample", "number"), *((name, f"{number:,}") for name, number in pair.flips.items())],
        "<>",
    )
    rows = [
        (str(name), *(_number(row[side]) for side in ("first", "second")), _difference(row))
        for name, row in pair.scores.iterrows()
    ]
    yield columns([("score", "first", "second", "difference"), *rows], "<>><")
    worst = _worst_classes(pair)
    shown = [
        (
            printable(name, width=NAME_WIDTH),
            f"{row['support']:.0f}",
            _difference(row),
            _p(row["p_value_holm"]),
        )
        for name, row in worst.iterrows()
    ]
    more = len(pair.per_class) - len(worst)
    note = f"\nthe {len(worst)} most changed of {len(pair.per_class):,} classes" if more else ""
    yield columns([("class", "support", "recall", "p (Holm)"), *shown], "<><>") + note


def _verdict(pair: Pair, corrected: float, comparison: Comparison) -> str:
    row = pair.scores.iloc[0]  # accuracy
    better = corrected < 1 - comparison.level
    gain = "better" if row["difference"] > 0 else "worse"
    words = f"{gain} than" if better else "not clearly different from"
    holm = ", after Holm" if len(comparison.pairs) > 1 else ""
    verdict = (
        f"{pair.second} is {words} {pair.first}: accuracy {_difference(row)}, "
        f"McNemar p = {_p(corrected)}{holm}"
    )
    if pair.equivalence_p_value is None:
        return verdict
    equal = pair.equivalence_p_value < 1 - comparison.level
    return (
        f"{verdict}; {'' if equal else 'not '}shown to be within {comparison.margin:g} of each "
        f"other (p = {_p(pair.equivalence_p_value)})"
    )


def _worst_classes(pair: Pair) -> pd.DataFrame:
    """The classes whose recall changed most surely."""
    return pair.per_class.sort_values(["p_value", "support"], kind="stable").head(CLASSES_SHOWN)


def _difference(row: pd.Series[Any]) -> str:
    if math.isnan(row["difference"]):
        return "undefined"
    text = f"{row['difference']:+.4f}"
    if math.isnan(row["difference_low"]):
        return text
    return f"{text} [{row['difference_low']:+.4f}, {row['difference_high']:+.4f}]"


def _number(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.4f}"


def _p(value: float) -> str:
    return f"{value:.4f}" if value >= 1e-4 else f"{value:.1e}"  # noqa: PLR2004


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value.item() if hasattr(value, "item") else value


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    rows = frame.reset_index().to_dict(orient="records")
    return [{str(name): _plain(_plain(value)) for name, value in row.items()} for row in rows]


def _html_table(header: tuple[str, ...], rows: Any) -> str:
    cells = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(_cell(value))}</td>" for value in row) + "</tr>"
        for row in rows
    )
    return f"<div><table><tr>{cells}</tr>{body}</table></div>"


def _html_frame(frame: pd.DataFrame) -> str:
    header = tuple(map(str, frame.columns))
    return _html_table(header, frame.itertuples(index=False))


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4f}"
    return str(value)
