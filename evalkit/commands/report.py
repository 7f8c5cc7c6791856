"""``evalkit report``: a table of predictions -> scores and report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from evalkit.commands import options
from evalkit.errors import InputError


@click.command()
@click.argument("table", type=options.PATH)
@click.option("--out", required=True, type=options.PATH, help="Folder to write the report to.")
@click.option("--label-column", default="label", show_default=True, help="True class.")
@click.option("--prediction-column", default="prediction", show_default=True, help="Given class.")
@click.option(
    "--confidence-column",
    help="Probability of the given class, in [0, 1]. [default: confidence, where there is one]",
)
@click.option(
    "--classes",
    "classes_file",
    type=options.PATH,
    help="Text file with one class name per line, in class order. [default: those in TABLE]",
)
@click.option(
    "--images",
    type=options.PATH,
    help="Folder that the column path is relative to, to show the images. [default: none shown]",
)
@options.plots
@options.statistics
def report(
    *,
    table: Path,
    out: Path,
    label_column: str,
    prediction_column: str,
    confidence_column: str | None,
    classes_file: Path | None,
    images: Path | None,
    plots: bool,
    **chosen: Any,
) -> None:
    """Score a table of predictions.

    TABLE is a CSV or Parquet file with one row per sample; it may be larger than memory.

    \b
    Example:  evalkit report predictions.csv --out my-report
              evalkit report scores.parquet --label-column truth --group-by camera --out my-report
    """
    from evalkit.evaluation import Evaluation
    from evalkit.predictions import read_classes
    from evalkit.report.tables import check_folder
    from evalkit.report.text import as_text

    method, group_by = options.method(chosen)
    check_folder(out)
    other = out / "predictions.parquet"
    if other.exists() and not (table.exists() and other.samefile(table)):
        raise InputError(
            f"out must not hold another evaluation's predictions, got {out} with {other.name}: "
            "choose another folder"
        )
    evaluation = Evaluation.from_table(
        table,
        label_column=label_column,
        prediction_column=prediction_column,
        confidence_column=confidence_column,
        classes=read_classes(classes_file) if classes_file else None,
        method=method,
        group_by=group_by,
        images=images,
    )
    evaluation.summary["command"] = options.this_command()
    evaluation.save(out, plots=plots)
    click.echo(as_text(evaluation))
    click.echo(f"\nwritten to {out}")
