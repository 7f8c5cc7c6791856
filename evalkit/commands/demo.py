"""``evalkit demo``: the whole line on data that comes with the package."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from evalkit.commands import options


@click.command()
@click.option("--out", required=True, type=options.PATH, help="Folder to leave everything in.")
def demo(*, out: Path) -> None:
    """Train on handwritten digits, save as DataParallel does, load on the CPU, evaluate, report.

    \b
    Example:  evalkit demo --out demo-report
    """
    options.require_torch()
    from evalkit.demo import run
    from evalkit.demo.demonstrate import MODEL
    from evalkit.report.text import as_text

    click.echo(as_text(run(out)))
    place = shlex.quote(str(out))
    click.echo(
        f"\nwritten to {out}: images, checkpoint, tables. Next, the same with your own hands:\n"
        f"  evalkit evaluate --checkpoint {place}/checkpoint.pth --model {MODEL} "
        f"--data {place}/val --out my-report\n"
        f"  evalkit report {place}/predictions.parquet --out second-report"
    )
