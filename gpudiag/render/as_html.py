"""Report -> one HTML file: offline, without a script, readable on a phone, light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape as escape_html

from gpudiag.diagnose import Report
from gpudiag.render.as_table import printable
from gpudiag.render.group import ALTERNATIVE, Group, grouped
from gpudiag.render.summary import (
    GPU_HEADERS,
    asked,
    by_reason,
    gpu_names,
    gpu_rows,
    summary,
    verdict,
)
from gpudiag.snapshot import Snapshot

# Whatever slips through the escaping cannot load or run anything.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
STYLE = """
.gpudiag{--ink:#1b1f24;--soft:#59636e;--paper:#fff;--card:#f6f8fa;--rule:#d1d9e0;
--error:#b3261e;--warning:#8a5a00;--note:#0b57d0;--good:#1a7f37;
color:var(--ink);background:var(--paper);font:16px/1.5 system-ui,sans-serif;
max-width:60rem;margin:0 auto;padding:1rem;overflow-wrap:anywhere}
@media (prefers-color-scheme:dark){.gpudiag{--ink:#e6edf3;--soft:#9aa4af;--paper:#0d1117;
--card:#161b22;--rule:#30363d;--error:#ff8a80;--warning:#f0b429;--note:#8ab4f8;--good:#56d364}}
.gpudiag h1{font-size:1.4rem;margin:0}
.gpudiag h2{font-size:1.05rem;margin:0 0 .5rem}
.gpudiag p{margin:.25rem 0 1rem;color:var(--soft)}
.gpudiag dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1rem;margin:0 0 1rem}
.gpudiag dt{color:var(--soft)}
.gpudiag dd{margin:0}
.gpudiag article{background:var(--card);border-left:.3rem solid var(--rule);
border-radius:.3rem;padding:.8rem 1rem;margin:0 0 1rem}
.gpudiag .error{border-color:var(--error)}
.gpudiag .warning{border-color:var(--warning)}
.gpudiag .note{border-color:var(--note)}
.gpudiag .error b{color:var(--error)}
.gpudiag .warning b{color:var(--warning)}
.gpudiag .note b{color:var(--note)}
.gpudiag .good{color:var(--good)}
.gpudiag .consequence{margin-left:1.5rem}
.gpudiag article dl{margin:0}
.gpudiag a{color:var(--note)}
.gpudiag .wide{overflow-x:auto;overflow-wrap:normal;margin:0 0 1rem}
.gpudiag table{border-collapse:collapse;font-size:.9rem}
.gpudiag th,.gpudiag td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid var(--rule)}
.gpudiag summary{cursor:pointer;margin:.5rem 0}
""".strip()
PAGE_STYLE = """
:root{color-scheme:light dark}
body{margin:0;background:#fff}
@media (prefers-color-scheme:dark){body{background:#0d1117}}
""".strip()


def as_html(report: Report) -> str:
    """A whole page; open it with any browser, without a network."""
    return "\n".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>gpudiag: {escape(verdict(report))}</title>",
            f"<style>{PAGE_STYLE}</style>",
            "</head>",
            "<body>",
            fragment(report),
            "</body>",
            "</html>",
        )
    )


def fragment(report: Report) -> str:
    """The report without a page around it, as a notebook shows it."""
    gpus = gpu_rows(report)
    blocks = [
        _header(report),
        _facts(summary(report.snapshot)),
        *(_finding(group) for group in grouped(report.findings)),
        f"<h2>GPUs</h2>\n{_table(GPU_HEADERS, gpus)}" if gpus else "",
        _folded("Rules that could not be asked", ("rules", "why"), by_reason(report.skipped)),
        _folded("Rules that crashed", ("rules", "error"), by_reason(report.crashed)),
        _folded("Rules that passed", ("rules",), [(" ".join(report.passed),)]),
    ]
    inside = "\n".join(block for block in blocks if block)
    return f'<style>{STYLE}</style>\n<main class="gpudiag">\n{inside}\n</main>'


def snapshot_fragment(snapshot: Snapshot) -> str:
    """What one must know of a machine, as a notebook shows a snapshot."""
    head = f"<h1>Snapshot: {escape(gpu_names(snapshot))}</h1>"
    inside = f"{head}\n{_facts(summary(snapshot))}"
    return f'<style>{STYLE}</style>\n<main class="gpudiag">\n{inside}\n</main>'


def escape(text: str) -> str:
    r"""Text from outside, in an element as in an attribute.

    Example:
        >>> print(escape('<script>"\x1b'))
        &lt;script&gt;&quot;\x1b
    """
    return escape_html(printable(text))


def _header(report: Report) -> str:
    severities = [finding.severity for finding in report.findings]
    kind = min(severities, key=lambda severity: severity.rank, default="good")
    return f'<h1 class="{kind}">{escape(verdict(report))}</h1>\n<p>{escape(asked(report))}</p>'


def _finding(group: Group) -> str:
    one = group.first
    alone = len(group.findings) == 1
    about = f" <small>{escape(one.subject)}</small>" if one.subject and alone else ""
    seen = [f"{line} ({subject})" if subject else line for line, subject in group.evidence]
    rows = [
        *(("seen" if number == 0 else "", line) for number, line in enumerate(seen)),
        ("cause", one.cause),
        ("fix", ALTERNATIVE.join(group.fixes)),
        *([("root", f"follows from {one.explained_by}")] if one.explained_by else []),
    ]
    kind = f"{one.severity} consequence" if one.explained_by else one.severity
    links = " · ".join(_link(link) for link in one.links)
    return "\n".join(
        (
            f'<article class="{kind}">',
            f"<h2><b>{one.severity} {escape(one.id)}</b> {escape(group.title)}{about}</h2>",
            _facts(rows),
            *([f"<small>{links}</small>"] if links else []),
            "</article>",
        )
    )


def _link(address: str) -> str:
    return f'<a href="{escape(address)}" rel="noreferrer">{escape(address)}</a>'


def _facts(rows: Iterable[tuple[str, str]]) -> str:
    pairs = [f"<dt>{escape(label)}</dt><dd>{escape(text)}</dd>" for label, text in rows]
    return "\n".join(("<dl>", *pairs, "</dl>"))


def _folded(title: str, headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    body = list(rows)
    if not body:
        return ""
    count = sum(len(row[0].split()) for row in body)
    head = f"<summary>{escape(title)} ({count})</summary>"
    return f"<details>{head}\n{_table(headers, body)}\n</details>"


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [_row("th", headers), *(_row("td", row) for row in rows)]
    return "\n".join(('<div class="wide"><table>', *lines, "</table></div>"))


def _row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"
