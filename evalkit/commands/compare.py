"""``evalkit compare``: who of several models is better, with which certainty."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from evalkit.commands import options


@click.command()
@click.argument("runs", nargs=-1, required=True, type=options.PATH)
@options.comparison
def compare(*, runs: tuple[Path, ...], output_format: str, out: Path | None, **chosen: Any) -> None:
    """Compare models that were given the same samples.

    RUNS are two or more folders that evaluate wrote, or tables of predictions. They are joined
    sample by sample; differences are the later one less the earlier one.

    \b
    Example:  evalkit compare old-report new-report
              evalkit compare old-report new-report --margin 0.01 --out old-and-new
    """
    from evalkit.comparison import compare, render
    from evalkit.report.tables import check_folder

    if out is not None:
        check_folder(out, names=render.FILES)
    found = compare(runs, **options.comparison_choices(chosen))
    if out is not None:
        render.save(found, out)
    click.echo(render.FORMATS[output_format](found))
    if out is not None:
        click.echo(f"\nwritten to {out}", err=output_format != "text")
