"""Report -> str in every form, and snapshot -> tables; nothing here prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpudiag.diagnose import Report

FORMS = ("text", "markdown", "json", "csv", "junit", "html", "prometheus")


def render(
    report: Report,
    form: str,
    *,
    colour: bool = False,
    verbose: bool = False,
    width: int | None = None,
) -> str:
    """A report in one of `FORMS`; colour, passed rules and width are for the terminal alone."""
    match form:
        case "text":
            from gpudiag.render.as_text import WIDTH, as_text

            return as_text(report, colour=colour, verbose=verbose, width=width or WIDTH)
        case "json":
            from gpudiag.render.as_json import as_json

            return as_json(report)
        case "markdown":
            from gpudiag.render.as_markdown import as_markdown

            return as_markdown(report)
        case "csv":
            from gpudiag.render.as_csv import as_csv

            return as_csv(report)
        case "junit":
            from gpudiag.render.as_junit import as_junit

            return as_junit(report)
        case "html":
            from gpudiag.render.as_html import as_html

            return as_html(report)
        case "prometheus":
            from gpudiag.render.as_prometheus import as_prometheus

            return as_prometheus(report)
        case _:
            raise ValueError(f"expected one of {', '.join(FORMS)}, got {form!r}")
