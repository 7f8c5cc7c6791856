"""``gpudiag record``: what a program's GPUs did with their time."""

from __future__ import annotations

from pathlib import Path

import click

from gpudiag.commands import options
from gpudiag.errors import InputError


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--output", type=options.FILE, metavar="DIR", help="A new folder for the record.")
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(min=0.05),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two samples.",
)
def record(*, command: tuple[str, ...], output: Path | None, interval_s: float) -> int:
    """Run a program unchanged and say what its GPUs did with their time.

    The program keeps its standard streams, its signals and its exit code. The record goes to a
    new folder: CSV (and Parquet), a chart (HTML, and PNG), and the verdict, which is also printed
    to standard error.

    \b
    Example:  gpudiag record -- python train.py --epochs 3
    """
    from gpudiag.record import record_command
    from gpudiag.render.as_table import printable

    code, recording, folder = record_command(command, output, interval_s=interval_s)
    click.echo(recording.verdict, err=True)
    try:
        recording.save(folder, title=printable(" ".join(command)))
    except (InputError, OSError) as error:  # the program's exit code is what its caller waits for
        click.echo(f"gpudiag: the record could not be written: {error}", err=True)
    else:
        click.echo(f"record: {folder}", err=True)
    return code
