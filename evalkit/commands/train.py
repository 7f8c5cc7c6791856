"""``evalkit train``: data and a model -> checkpoints, a log, and a report on the best."""

from __future__ import annotations

import os
import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.commands import options
from evalkit.commands.recipe import recipe_options
from evalkit.wording import counted

if TYPE_CHECKING:
    from evalkit.training.job import Job
    from evalkit.training.records import EpochRecord
    from evalkit.training.stopping import StopRequest


@click.command()
@click.option(
    "--data",
    required=True,
    help="Folder with train and val, or manifest with a column split; with --val-fraction whatever "
    "evaluate takes.",
)
@click.option(
    "--model",
    help="torchvision:NAME, timm:NAME, package.module:function or file.py:function. "
    "[default: that of --init-from]",
)
@click.option(
    "--out", required=True, type=options.PATH, help="Folder for checkpoints, log and report."
)
@click.option(
    "--val-fraction",
    type=float,
    metavar="FRACTION",
    help="Share of every class to validate with, where the data is not split.",
)
@click.option("--resume", is_flag=True, help="Go on where the training in --out was broken off.")
@click.option("--pretrained", is_flag=True, help="Start from the library's weights for ImageNet.")
@click.option(
    "--init-from", type=options.PATH, help="Start from the weights of a checkpoint of any kind."
)
@click.option("--weights", help="Which weights of it, such as state_dict_ema. [default: best fit]")
@click.option("--new-head", is_flag=True, help="Replace the last layer of --init-from.")
@options.device
@click.option(
    "--workers",
    type=click.IntRange(0),
    help="Processes that load images; 0 loads within this one. [default: one per core, at most 8]",
)
@options.on_unreadable("skip reads all of them once before")
@click.option(
    "--keep",
    default=2,
    show_default=True,
    type=click.IntRange(0),
    help="Checkpoints of the newest epochs to keep beside best.pth and last.pth.",
)
@click.option(
    "--checkpoint-every",
    type=click.IntRange(1),
    metavar="STEPS",
    help="Also write last.pth within epochs. [default: after each epoch]",
)
@click.option(
    "--tensorboard", is_flag=True, help="Write the log for TensorBoard too, into --out/tensorboard."
)
@recipe_options
def train(
    *,
    data: str,
    model: str | None,
    out: Path,
    tensorboard: bool,
    **chosen: Any,
) -> int:
    """Train a classifier, keep the best checkpoint, and report on it.

    Writes last.pth, best.pth, log.csv and the report of `evalkit evaluate` on best.pth into --out.
    SIGTERM and Ctrl-C finish the step, save and exit with 143 and 130; --resume goes on exactly.

    \b
    Example:  evalkit train --data images --model torchvision:resnet18 --pretrained --out run
              evalkit train --data images --model torchvision:resnet18 --pretrained --out run \\
                --resume
              torchrun --nproc-per-node 4 -m evalkit train --data images \\
                --model timm:convnext_tiny --precision bf16 --batch-size 256 --out run
    """
    options.require_torch()
    from dataclasses import fields

    from evalkit.distributed import introduced, processes
    from evalkit.training.job import prepare
    from evalkit.training.recipe import Recipe
    from evalkit.training.stopping import stop_on_signals

    values = {field.name: chosen.pop(field.name) for field in fields(Recipe)}
    values["random_area"] = values["random_area"] or None
    with introduced(chosen.pop("device")) as device:
        us = processes()
        with options.only_the_first_speaks(out):
            job = us.agreed(
                lambda: prepare(
                    data,
                    model,
                    out=out,
                    recipe=Recipe(**values),
                    device=device,
                    command=options.this_command(without="--resume"),
                    **chosen,
                )
            )
        if job.is_complete:
            if us.is_first:
                click.echo(_complete(job))
            return 0
        try:
            with stop_on_signals() as stop:
                _run(job, stop, tensorboard=tensorboard)
        finally:
            job.checkpoints.let_go()
    if stop.is_made:
        if us.is_first:
            click.echo(_farewell(stop.signal, out, us.size), err=True)
        return 128 + stop.signal
    if us.is_first:  # alone again
        _report(job)
    return 0


def _run(job: Job, stop: StopRequest, *, tensorboard: bool) -> None:
    """Train, and say what every epoch came to."""
    from evalkit.distributed import rank
    from evalkit.training.board import board

    first = rank() == 0
    for warning in job.warnings if first else ():
        click.echo(f"warning: {warning}", err=True)
    folder = job.out / "tensorboard" if tensorboard and first else None
    with board(folder, job.former) as add:
        for record in job.epochs(stop=stop, progress=True):
            add(record)
            if first:
                click.echo(_line(record, job))


def _report(job: Job) -> None:
    """Evaluate the best checkpoint, and write what there is to say of it."""
    from evalkit.report.text import as_text

    evaluation = job.report()
    evaluation.summary["command"] = options.this_command()
    evaluation.save(job.out)
    click.echo(f"\n{as_text(evaluation)}\n\nwritten to {job.out}")


def _line(record: EpochRecord, job: Job) -> str:
    """One epoch on one line."""
    return (
        f"epoch {record.epoch}/{job.recipe.epochs}  loss {record.train_loss:.4f}  "
        f"val loss {record.validation_loss:.4f}  accuracy {record.validation_accuracy:.4f}  "
        f"macro F1 {record.validation_macro_f1:.4f}  lr {record.learning_rate:.2g}  "
        f"{record.samples_per_second:,.0f} images/s  {record.peak_memory_bytes / 2**30:.2f} GiB  "
        f"{record.seconds:.1f} s"
    )


def _complete(job: Job) -> str:
    trained = counted(len(job.former), "epoch")
    return (
        f"the training in {job.out} is complete, with {trained} and its report: nothing was done. "
        f"For more epochs begin another one from it: --init-from {shlex.quote(str(job.out))}/"
        "last.pth --out and another folder"
    )


def _farewell(number: int, out: Path, processes: int) -> str:
    resume = f"{options.this_command(without='--resume')} --resume"
    if processes > 1:
        resume = f"torchrun --nproc-per-node {os.environ['LOCAL_WORLD_SIZE']} -m {resume}"
    name = signal.Signals(number).name
    return f"evalkit: stopped by {name}, saved in {out}; go on with: {resume}"
