"""Report -> the table of GPUs on the first screen, as wide as the terminal allows."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from gpudiag.diagnose import Report
from gpudiag.finding import subject_of
from gpudiag.plausible import plausible
from gpudiag.render.as_table import GIB, printable
from gpudiag.snapshot import Fact, Gpu, Missing, known_or

HEADERS = ("GPU", "name", "memory GiB", "util %", "°C", "W", "processes", "state")
NAME, STATE = HEADERS.index("name"), HEADERS.index("state")
LEFT_ALIGNED = (NAME, STATE)
LONGEST_NAME, SHORTEST_NAME = 28, 12  # of a GPU; longer ones are cut
NARROWEST_STATE = 13  # "GD406, GD408," on one line
# What a narrow terminal does without, first to last.
DISPENSABLE = ("processes", "util %", "W")
GAP = "  "


def gpu_table(report: Report, *, width: int) -> str:
    """One row per GPU with the ids of its findings, at most *width* columns wide."""
    gpus = [plausible(gpu) for gpu in known_or(report.snapshot.nvml.gpus, ())]
    if not gpus:
        return ""
    ids: dict[str | None, list[str]] = {}
    for finding in report.findings:
        ids.setdefault(finding.subject, []).append(finding.id)
    rows = [HEADERS, *((*_cells(gpu), _state(gpu, ids.get(subject_of(gpu), []))) for gpu in gpus)]
    widths = _fitted([max(map(len, column)) for column in zip(*rows, strict=True)], width)
    return "\n".join(line for row in rows for line in _lines(row, widths))


def _fitted(widths: list[int], width: int) -> list[int]:
    """The widths of the columns that fit; 0 for one that is left out.

    Example:
        >>> _fitted([3, 21, 11, 6, 2, 9, 9, 12], 100)
        [3, 21, 11, 6, 2, 9, 9, 12]
        >>> _fitted([3, 21, 11, 6, 2, 9, 9, 12], 60)
        [3, 13, 11, 0, 2, 9, 0, 12]
    """
    fitted = [*widths]
    fitted[NAME] = min(fitted[NAME], LONGEST_NAME)

    def spare() -> int:
        shown = [column for column in fitted if column]
        return width - sum(shown) - len(GAP) * (len(shown) - 1)

    fitted[STATE] = max(min(fitted[STATE], NARROWEST_STATE), fitted[STATE] + min(0, spare()))
    for header in DISPENSABLE:
        if spare() < 0 and fitted[NAME] + spare() < SHORTEST_NAME:
            fitted[HEADERS.index(header)] = 0
    fitted[NAME] = max(SHORTEST_NAME, fitted[NAME] + min(0, spare()))
    return fitted


def _lines(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """A row, in several lines where its state needs them."""
    cells = list(row)
    if len(cells[NAME]) > widths[NAME]:
        cells[NAME] = f"{cells[NAME][: widths[NAME] - 1]}…"
    first, *more = textwrap.wrap(cells[STATE], widths[STATE])
    shown = [
        cell.ljust(width) if column in LEFT_ALIGNED else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells[:STATE], widths, strict=False))
        if width
    ]
    indent = GAP.join(" " * len(cell) for cell in shown)
    return [GAP.join((*shown, first)), *(GAP.join((indent, line)) for line in more)]


def _cells(gpu: Gpu) -> tuple[str, ...]:
    utilization = known_or(gpu.utilization_fraction, None)
    power, limit = known_or(gpu.power_watts, None), known_or(gpu.power_limit_watts, None)
    return (
        str(gpu.index),
        printable(known_or(gpu.name, "does not answer")),
        f"{gib(gpu.memory_used_bytes)} / {gib(gpu.memory_total_bytes)}",
        "?" if utilization is None else f"{utilization * 100:.0f}",
        "?" if isinstance(gpu.temperature_celsius, Missing) else str(gpu.temperature_celsius),
        f"{'?' if power is None else f'{power:.0f}'} / {'?' if limit is None else f'{limit:.0f}'}",
        "?" if isinstance(gpu.processes, Missing) else str(len(gpu.processes)),
    )


def _state(gpu: Gpu, finding_ids: list[str]) -> str:
    if finding_ids:
        return ", ".join(dict.fromkeys(finding_ids))
    return "no answer" if isinstance(gpu.error_codes, Missing) else "ok"


def gib(fact: Fact[int]) -> str:
    """Bytes in GiB.

    Example:
        >>> gib(3 * 2**29)
        '1.5'
    """
    return "?" if isinstance(fact, Missing) else f"{fact / GIB:.1f}"
