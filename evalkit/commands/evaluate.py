"""``evalkit evaluate``: a checkpoint and data -> predictions, scores and report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from evalkit.commands import options


@click.command()
@click.option(
    "--checkpoint",
    required=True,
    type=options.PATH,
    help="File with the weights to evaluate.",
)
@click.option(
    "--data",
    required=True,
    help="Folder with one folder per class, manifest (CSV or Parquet with path and label), "
    "huggingface:PATH[:SPLIT], WebDataset tars (val-{00..12}.tar), or package.module:function "
    "that returns a torch Dataset.",
)
@click.option("--out", required=True, type=options.PATH, help="Folder to write the report to.")
@click.option(
    "--model",
    help="torchvision:NAME, timm:NAME, package.module:function or file.py:function. "
    "[default: the one that the checkpoint names, or that its keys and shapes tell]",
)
@click.option(
    "--classes",
    "classes_file",
    type=options.PATH,
    help="Text file with the class of every output of the model, one per line. "
    "[default: those in the checkpoint, else those of the data]",
)
@click.option(
    "--weights",
    help="Which weights of the checkpoint, such as state_dict_ema. [default: the best fit]",
)
@click.option(
    "--transform",
    "transform_file",
    type=options.PATH,
    help="JSON file that says how images become inputs. "
    "[default: as the checkpoint says, else as the model's authors did, else as for ImageNet]",
)
@options.device
@click.option(
    "--batch-size",
    default="64",
    show_default=True,
    type=options.BATCH_SIZE,
    help="Images per batch; auto takes as many as the device has the memory for.",
)
@options.precision
@click.option(
    "--compile",
    "compiled",
    is_flag=True,
    help="Compile the model first (torch.compile): minutes at the start, faster from then on.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Threads that read images. [default: one per core, at most 8]",
)
@options.on_unreadable("both list them")
@click.option(
    "--on-unknown-class",
    default="fail",
    show_default=True,
    type=click.Choice(["fail", "skip"]),
    help="What to do about samples of classes that the model does not know; skip counts them.",
)
@click.option(
    "--decode",
    default="cpu",
    show_default=True,
    type=click.Choice(["cpu", "gpu"]),
    help="Where to decode JPEG files; a GPU rounds a little differently.",
)
@click.option(
    "--fast-decode",
    is_flag=True,
    help="Decode large JPEG files at a fraction of their size: faster, not the same pixels. "
    "What that does to the accuracy is measured on a sample, and reported.",
)
@click.option(
    "--checks",
    type=click.IntRange(0),
    metavar="N",
    help="Images to run again in other ways, to look for silent errors; 0 for none. "
    "[default: 16 mistakes, and up to 1024 images for what mends these]",
)
@click.option(
    "--verify",
    default=0,
    type=click.IntRange(0),
    metavar="K",
    help="Samples to run again, each alone and in fp32, to count predictions that change.",
)
@click.option(
    "--train-data",
    metavar="PATH",
    help="Data of the training, as --data, to look for the same images in both.",
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
@click.option(
    "--save-probabilities",
    is_flag=True,
    help="Keep the probabilities of all classes, for ranking.csv and for others to use.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with a run in OUT that was killed; begin one where there is none.",
)
@options.thumbnails
@options.plots
@options.statistics
def evaluate(
    *,
    checkpoint: Path,
    data: str,
    out: Path,
    model: str | None,
    classes_file: Path | None,
    weights: str | None,
    transform_file: Path | None,
    device: str,
    batch_size: int | str,
    precision: str,
    workers: int | None,
    on_unreadable: str,
    on_unknown_class: str,
    decode: str,
    fast_decode: bool,
    checks: int | None,
    verify: int,
    train_data: str | None,
    allow_partial: float | None,
    trust: bool,
    thumbnails: bool,
    plots: bool,
    compiled: bool,
    save_probabilities: bool,
    resume: bool,
    **chosen: Any,
) -> None:
    """Evaluate a checkpoint on labelled images.

    \b
    Example:  evalkit evaluate --checkpoint model.pth --data images/val --out my-report
              evalkit evaluate --checkpoint model.pth --model timm:convnext_tiny \\
                --data test.csv --precision bf16 --out my-report
    """
    options.require_torch()
    from evalkit import run
    from evalkit.distributed import PATIENCE, introduced
    from evalkit.images.decoding import Decoding
    from evalkit.predictions import read_classes
    from evalkit.report.tables import check_folder
    from evalkit.report.text import as_text
    from evalkit.transforms import read_transform

    method, group_by = options.method(chosen)
    check_folder(out)
    with (
        introduced(device, patience=PATIENCE) as own_device,
        options.only_the_first_speaks(out),
        options.interruption_told(out),
    ):
        evaluation = run.evaluate_together(
            checkpoint,
            options.open_source(data, method, group_by),
            run.Options(
                model=model,
                classes=read_classes(classes_file) if classes_file else None,
                weights=weights,
                transform=read_transform(transform_file) if transform_file else None,
                device=own_device,
                batch_size=batch_size,
                precision=precision,
                compiled=compiled,
                workers=workers,
                on_unreadable=on_unreadable,
                on_unknown_class=on_unknown_class,
                decoding=Decoding(place=decode, fast=fast_decode),
                checks=checks,
                verify=verify,
                train_data=train_data,
                allow_partial=allow_partial,
                trust=trust,
                save_probabilities=save_probabilities,
                out=out,
                resume=resume,
                thumbnails=thumbnails,
                plots=plots,
                command=options.this_command(without="--resume"),
                method=method,
                group_by=group_by,
            ),
        )
    if evaluation is not None:
        click.echo(as_text(evaluation))
        click.echo(f"\nwritten to {out}")
