"""Report -> Markdown, as one pastes it into an issue; nothing from outside is taken for markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from gpudiag.diagnose import Report
from gpudiag.finding import Severity
from gpudiag.render.as_table import printable
from gpudiag.render.group import ALTERNATIVE, Group, grouped
from gpudiag.render.summary import GPU_HEADERS, asked, by_reason, gpu_rows, summary, verdict

SIGNS = {Severity.ERROR: "❌", Severity.WARNING: "⚠️", Severity.NOTE: "ℹ️"}  # noqa: RUF001
# GitHub and GitLab notify a person or link an issue wherever @ or # begins a word.
MARKUP = re.compile(r"(?P<mention>(?<!\w)[@#](?=\w))|[\\`*_\[\]<>~&$!]")


def as_markdown(report: Report) -> str:
    """The summary and the findings; the GPUs and what could not be asked are folded away."""
    blocks = [
        f"**gpudiag: {verdict(report)}** ({asked(report)})",
        _table(("", ""), summary(report.snapshot)),
        *(_finding(group) for group in grouped(report.findings)),
    ]
    gpus = gpu_rows(report)
    if gpus:
        blocks.append(_details(f"GPUs ({len(gpus)})", _table(GPU_HEADERS, gpus)))
    for title, reasons in (
        ("Rules that could not be asked", report.skipped),
        ("Rules that crashed", report.crashed),
    ):
        if reasons:
            rows = _table(("rules", "why"), by_reason(reasons))
            blocks.append(_details(f"{title} ({len(reasons)})", rows))
    return "\n\n".join(blocks)


def escape(text: str) -> str:
    r"""Text that Markdown shows as it is.

    Example:
        >>> print(escape("<b>*H100*</b> @ada\x1b"))
        \<b\>\*H100\*\</b\> @&#8203;ada\\x1b
    """

    def shown(found: re.Match[str]) -> str:
        return f"{found[0]}&#8203;" if found["mention"] else f"\\{found[0]}"

    return MARKUP.sub(shown, printable(text))


def cell(text: str) -> str:
    """As `escape`, within a table, where a backslash does not hide a bar everywhere.

    Example:
        >>> cell("a|b")
        'a&#124;b'
    """
    return escape(text).replace("|", "&#124;")


def code(text: str) -> str:
    """Text as a code span, whatever backticks it holds.

    Example:
        >>> print(code("a `tick`"))
        `` a `tick` ``
    """
    shown = printable(text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    pad = " " if "`" in shown else ""
    return f"{fence}{pad}{shown}{pad}{fence}" if shown.strip() else ""


def _finding(group: Group) -> str:
    one = group.first
    about = f" {code(one.subject)}" if one.subject and len(group.findings) == 1 else ""
    title = f"{SIGNS[one.severity]} {one.id} {escape(group.title)}{about}"
    seen = [
        f"* seen: {code(line)}" + (f" ({code(subject)})" if subject else "")
        for line, subject in group.evidence
    ]
    if one.explained_by:
        return "\n".join((f"#### ↳ {title}", "", *seen, f"* follows from {one.explained_by}"))
    fix = ALTERNATIVE.join(group.fixes)
    told = [f"* cause: {escape(one.cause)}", f"* fix: {escape(fix)}"]
    links = [f"* see: <{link}>" for link in one.links]
    return "\n".join((f"### {title}", "", *seen, *told, *links))


def _details(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [_row(headers), _row(["---"] * len(headers))]
    return "\n".join(lines + [_row([cell(text) for text in row]) for row in rows])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
