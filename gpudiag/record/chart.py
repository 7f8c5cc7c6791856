"""Rows of a record -> a picture: HTML with SVG from the standard library, PNG by matplotlib."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpudiag.record.samples import Row

WIDTH, HEIGHT, MARGIN = 900, 150, 46
COLOURS = ("#1b6ca8", "#c8553d", "#2e8b57", "#8e5ea2", "#b8860b", "#008b8b", "#a0522d", "#555555")
MOST_POINTS = 1000  # a line of 900 pixels shows no more
PANELS = {  # column -> what its axis says, and the factor to its unit
    "utilization_fraction": ("GPU busy, %", 100.0),
    "memory_used_bytes": ("GPU memory, GiB", 2.0**-30),
    "temperature_celsius": ("temperature, °C", 1.0),
    "power_watts": ("power, W", 1.0),
    "process_cpus": ("processors used", 1.0),
}
OF_THE_PROGRAM = {"process_cpus"}  # the same on the row of every GPU
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "svg{width:100%;height:auto}pre{white-space:pre-wrap}text{font-size:12px;fill:#444}"
)

Line = tuple[str, list[float], list[float]]  # label, seconds, values


def lines(rows: Sequence[Row], column: str, factor: float) -> list[Line]:
    """One line per GPU, thinned to what can be seen; samples without a value are left out."""
    found: list[Line] = []
    gpus = sorted({row["gpu"] for row in rows}, key=lambda gpu: (gpu is None, gpu))
    for gpu in gpus[:1] if column in OF_THE_PROGRAM else gpus:
        told = [row for row in rows if row["gpu"] == gpu and row[column] is not None]
        told = told[:: 1 + len(told) // MOST_POINTS]
        if told:
            label = "program" if column in OF_THE_PROGRAM else f"GPU {gpu}"
            values = [row[column] * factor for row in told]
            found.append((label, [row["time_s"] for row in told], values))
    return found


def as_html(rows: Sequence[Row], *, title: str, verdict: str) -> str:
    """One page that needs nothing else."""
    panels = "\n".join(
        _panel(lines(rows, column, factor), heading)
        for column, (heading, factor) in PANELS.items()
        if lines(rows, column, factor)
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
        f"<h1>{html.escape(title)}</h1><pre>{html.escape(verdict)}</pre>{panels}</html>\n"
    )


def save_png(rows: Sequence[Row], path: Path, *, title: str) -> bool:
    """Write a PNG; whether matplotlib is there to do it."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    shown = {heading: lines(rows, column, factor) for column, (heading, factor) in PANELS.items()}
    shown = {heading: found for heading, found in shown.items() if found}
    figure = Figure(figsize=(9, 1.0 + 1.8 * max(1, len(shown))), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title.replace("$", r"\$"))
    axes: Any = figure.subplots(max(1, len(shown)), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (heading, found) in zip(axes, shown.items(), strict=False):
        for number, (label, seconds, values) in enumerate(found):
            axis.plot(seconds, values, label=label, color=COLOURS[number % len(COLOURS)])
        axis.set_ylabel(heading, fontsize=8)
        axis.set_ylim(0, 1.08 * max(max(values) for _, _, values in found) or 1.0)
    if shown:
        axes[0].legend(fontsize=8, ncols=8, loc="upper left")
    axes[-1].set_xlabel("seconds")
    figure.savefig(path, dpi=110)
    return True


def _panel(found: list[Line], heading: str) -> str:
    last_s = max(seconds[-1] for _, seconds, _ in found) or 1.0
    top = max(max(values) for _, _, values in found) or 1.0
    bottom = HEIGHT - 20
    shapes = [
        f'<text x="0" y="14">{html.escape(heading)}</text>',
        f'<text x="0" y="38">{top:.4g}</text><text x="0" y="{bottom}">0</text>',
        f'<text x="{WIDTH - 60}" y="{HEIGHT - 4}">{last_s:.0f} s</text>',
        f'<path d="M{MARGIN} {bottom}H{WIDTH}" stroke="#bbb"/>',
    ]
    for number, (label, seconds, values) in enumerate(found):
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join(
            f"{MARGIN + (WIDTH - MARGIN) * second / last_s:.1f},"
            f"{bottom - (bottom - 30) * value / top:.1f}"
            for second, value in zip(seconds, values, strict=True)
        )
        shapes.append(f'<polyline points="{points}" fill="none" stroke="{colour}"/>')
        x = MARGIN + 110 + 75 * number
        shapes.append(f'<text x="{x}" y="14" style="fill:{colour}">{html.escape(label)}</text>')
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(shapes)}</svg>'
