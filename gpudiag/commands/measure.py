"""``gpudiag measure``: how fast the GPUs are, and whether they compute right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from gpudiag.commands import options, running
from gpudiag.errors import InputError


@click.command()
@click.option("-i", "devices", type=int, multiple=True, help="Torch's index of a GPU; repeatable.")
@click.option("--quick", is_flag=True, help="A tenth of the time, and a part of the memory.")
@click.option("--minutes", type=click.FloatRange(min=0.1), help="About how long it may take.")
@options.table_form
@options.output
def measure(
    *,
    devices: tuple[int, ...],
    quick: bool,
    minutes: float | None,
    form: str,
    output: Path | None,
) -> int:
    """Measure how fast the GPUs are and whether they compute right; without one, the CPU.

    Products, copies, convolution, a training step, latencies, memory; each compared with the
    data sheet of the part and with the other GPUs. Under torchrun also collectives, of all ranks.

    Exit codes: 0 measured; 1 a result was wrong, or it broke off.

    \b
    Example:  gpudiag measure --quick
              torchrun --nproc-per-node 8 -m gpudiag measure
    """
    if quick and minutes is not None:
        raise InputError("expected --quick or --minutes, got both: leave one of them out")
    from gpudiag.measure import COLUMNS, as_json, as_text, rows
    from gpudiag.measure import measure as measure_now
    from gpudiag.output import refuse_unwritable
    from gpudiag.render import as_table

    if output is not None:
        refuse_unwritable(output)
    found = measure_now(devices=devices, quick=quick, minutes=minutes)
    if found.rank == 0:
        write: dict[str, Callable[[], str]] = {
            "text": lambda: as_text(found),
            "csv": lambda: as_table.as_csv(rows(found), columns=COLUMNS),
            "json": lambda: as_json(found),
        }
        running.deliver(write[form](), output)
        return running.EXIT_FINDINGS if found.faults or found.failure else 0
    return 0  # the first rank tells it for all; torchrun would end it if another one failed first
