"""The ``evalkit`` command: the only module here that prints or exits.

Commands import what they need inside their bodies, so that ``evalkit --help`` loads neither torch
nor pandas and ``evalkit report`` works where torch is not installed.

Exit codes: 0 done, 2 usage error or unreadable input, 3 evalkit itself failed, 130 interrupted.
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from evalkit import options
from evalkit.errors import InputError
from gpudiag.command_line import EXIT_BAD_INPUT, run

EXISTING_OR_NOT = click.Path(path_type=Path)  # the commands check themselves and say what to do

thumbnails_option = click.option(
    "--thumbnails/--no-thumbnails",
    default=True,
    help="Whether report.html shows images of the samples.  [default: thumbnails]",
)
plots_option = click.option(
    "--plots", is_flag=True, help="Draw the matrix and the diagrams as PNG and SVG files as well."
)


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
@click.option(
    "--images",
    type=EXISTING_OR_NOT,
    help="Folder that the column path is relative to, to show the images. [default: none shown]",
)
@plots_option
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
    evaluation.summary["command"] = _command()
    evaluation.save(out, plots=plots)
    click.echo(as_text(evaluation))
    click.echo(f"\nwritten to {out}")


@cli.command()
@click.option(
    "--checkpoint", required=True, type=EXISTING_OR_NOT, help="File with the weights to evaluate."
)
@click.option(
    "--data",
    required=True,
    help="Folder with one folder per class, manifest (CSV or Parquet with path and label), or "
    "package.module:function that returns a torch Dataset.",
)
@click.option("--out", required=True, type=EXISTING_OR_NOT, help="Folder to write the report to.")
@click.option(
    "--model",
    help="torchvision:NAME, timm:NAME, package.module:function or file.py:function. "
    "[default: the one that the checkpoint names, or that its keys and shapes tell]",
)
@click.option(
    "--classes",
    "classes_file",
    type=EXISTING_OR_NOT,
    help="Text file with the class of every output of the model, one per line. "
    "[default: those in the checkpoint, else those of the data]",
)
@click.option(
    "--weights",
    help="Which weights of the checkpoint, such as state_dict_ema. [default: the best fit]",
)
@click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N, mps or xpu."
)
@click.option(
    "--batch-size", default=64, show_default=True, type=click.IntRange(1), help="Images per batch."
)
@click.option(
    "--precision",
    default="fp32",
    show_default=True,
    type=click.Choice(["fp32", "tf32", "bf16", "fp16"]),
    help="How exactly to compute.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Threads that read images. [default: one per core, at most 8]",
)
@click.option(
    "--on-unreadable",
    default="fail",
    show_default=True,
    type=click.Choice(["fail", "skip"]),
    help="What to do about images that cannot be read; both list them.",
)
@click.option(
    "--allow-partial",
    type=float,
    metavar="FRACTION",
    help="Share of the model that the checkpoint must fill, in (0, 1]. [default: all of it]",
)
@click.option(
    "--trust",
    is_flag=True,
    help="Import the checkpoint's own classes and run their code. Only for files that you wrote.",
)
@thumbnails_option
@plots_option
@options.statistics
def evaluate(
    *,
    checkpoint: Path,
    data: str,
    out: Path,
    model: str | None,
    classes_file: Path | None,
    weights: str | None,
    device: str,
    batch_size: int,
    precision: str,
    workers: int | None,
    on_unreadable: str,
    allow_partial: float | None,
    trust: bool,
    thumbnails: bool,
    plots: bool,
    **chosen: Any,
) -> None:
    """Evaluate a checkpoint on labelled images."""
    _require_torch()
    from evalkit import run
    from evalkit.predictions import read_classes
    from evalkit.report.tables import check_folder
    from evalkit.report.text import as_text

    method, group_by = options.method(chosen)
    check_folder(out)
    source = options.open_source(data, method, group_by)
    evaluation = run.evaluate(
        checkpoint,
        source,
        model=model,
        classes=read_classes(classes_file) if classes_file else None,
        weights=weights,
        device=device,
        batch_size=batch_size,
        precision=precision,
        workers=workers,
        on_unreadable=on_unreadable,
        allow_partial=allow_partial,
        trust=trust,
    )
    evaluation = options.rescored(evaluation, method, group_by)
    evaluation.summary["command"] = _command()
    evaluation.save(out, thumbnails=thumbnails, plots=plots)
    click.echo(as_text(evaluation))
    click.echo(f"\nwritten to {out}")


@cli.command()
@click.argument("file", type=EXISTING_OR_NOT)
@click.option(
    "--format",
    "output_format",
    default="text",
    show_default=True,
    type=click.Choice(["text", "json"]),
    help="Tables for people, or JSON for programs.",
)
def inspect(*, file: Path, output_format: str) -> None:
    """Say what a checkpoint holds, without running any of it.

    FILE is a checkpoint of any kind, an index of sharded weights, or a directory of
    torch.distributed.checkpoint.
    """
    _require_torch()
    from evalkit.checkpoint import inspect_checkpoint
    from evalkit.checkpoint.inspection_text import as_text

    found = inspect_checkpoint(file)
    if output_format == "json":
        click.echo(json.dumps(found.as_dict(), indent=2, default=str))
    else:
        click.echo(as_text(found))


@cli.command()
@click.argument("source", metavar="IN", type=EXISTING_OR_NOT)
@click.argument("target", metavar="OUT", type=EXISTING_OR_NOT)
@click.option(
    "--weights",
    help="Which weights of IN, such as state_dict_ema. [default: the largest, raw before averaged]",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    help="Type of all floating point weights. [default: as they are]",
)
def convert(*, source: Path, target: Path, weights: str | None, dtype: str | None) -> None:
    """Write the weights of any readable checkpoint into a clean file.

    OUT holds one set of weights under plain names, class names and transform, and nothing else:
    safetensors if it ends in .safetensors, else a file for torch.load.
    """
    _require_torch()
    from evalkit.checkpoint import convert_checkpoint
    from evalkit.checkpoint.inspection_text import conversion_text

    made = convert_checkpoint(source, target, weights=weights, dtype=dtype)
    click.echo(conversion_text(made))
    click.echo(f"written to {target}")


@cli.command()
@click.option("--out", required=True, type=EXISTING_OR_NOT, help="Folder to leave everything in.")
def demo(*, out: Path) -> None:
    """Train on handwritten digits, save as DataParallel does, load on the CPU, evaluate, report."""
    _require_torch()
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


@cli.command()
@click.argument("runs", nargs=-1, required=True, type=EXISTING_OR_NOT)
@options.comparison
def compare(*, runs: tuple[Path, ...], output_format: str, out: Path | None, **chosen: Any) -> None:
    """Compare models that were given the same samples.

    RUNS are two or more folders that evaluate wrote, or tables of predictions. They are joined
    sample by sample; differences are the later one less the earlier one.
    """
    from evalkit.comparison import compare, render
    from evalkit.report.tables import check_folder

    if out is not None:
        check_folder(out)
    found = compare(runs, **options.comparison_choices(chosen))
    if out is not None:
        render.save(found, out)
    click.echo(render.FORMATS[output_format](found))
    if out is not None:
        click.echo(f"\nwritten to {out}", err=output_format != "text")


def _command() -> str:
    """Return this command line, to be run again."""
    return shlex.join(["evalkit", *sys.argv[1:]])


def _require_torch() -> None:
    try:
        import torch  # noqa: F401
    except (ImportError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"this command needs torch, got '{reason}' when it was imported: "
            "pip install 'gpudiag[eval]', or run 'gpudiag diagnose' if it is installed"
        ) from error


def main() -> None:
    """Run the command line and exit: errors are one line on standard error, never a traceback."""
    sys.exit(run(cli, name="evalkit", bad_input=InputError))
