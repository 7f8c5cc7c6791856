"""The ``evalkit`` command: the only module here that prints or exits.

Commands import what they need inside their bodies, so that ``evalkit --help`` loads neither torch
nor pandas and ``evalkit report`` works where torch is not installed.

Exit codes: 0 done, 2 usage error or unreadable input, 3 evalkit itself failed, 130 interrupted.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from evalkit.errors import InputError
from gpudiag.command_line import EXIT_BAD_INPUT, run

EXISTING_OR_NOT = click.Path(path_type=Path)  # the commands check themselves and say what to do


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    invoke_without_command=True,
)
@click.version_option(package_name="gpudiag", message="evalkit %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Evaluate any classification checkpoint, or anyone's table of predictions, honestly."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(EXIT_BAD_INPUT)


@cli.command()
@click.argument("table", type=EXISTING_OR_NOT)
@click.option("--out", required=True, type=EXISTING_OR_NOT, help="Folder to write the report to.")
@click.option("--label-column", default="label", show_default=True, help="True class.")
@click.option("--prediction-column", default="prediction", show_default=True, help="Given class.")
@click.option(
    "--confidence-column",
    help="Probability of the given class, in [0, 1]. [default: confidence, where there is one]",
)
@click.option(
    "--classes",
    "classes_file",
    type=EXISTING_OR_NOT,
    help="Text file with one class name per line, in class order. [default: those in TABLE]",
)
def report(
    *,
    table: Path,
    out: Path,
    label_column: str,
    prediction_column: str,
    confidence_column: str | None,
    classes_file: Path | None,
) -> None:
    """Score a table of predictions.

    TABLE is a CSV or Parquet file with one row per sample; it may be larger than memory.
    """
    from evalkit.evaluation import Evaluation
    from evalkit.predictions import read_classes
    from evalkit.report.tables import check_folder
    from evalkit.report.text import as_text

    check_folder(out)
    evaluation = Evaluation.from_table(
        table,
        label_column=label_column,
        prediction_column=prediction_column,
        confidence_column=confidence_column,
        classes=read_classes(classes_file) if classes_file else None,
    )
    evaluation.save(out)
    click.echo(as_text(evaluation))
    click.echo(f"\nwritten to {out}")


def main() -> None:
    """Run the command line and exit: errors are one line on standard error, never a traceback."""
    sys.exit(run(cli, name="evalkit", bad_input=InputError))
