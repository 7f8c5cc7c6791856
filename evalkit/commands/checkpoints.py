"""``evalkit inspect`` and ``evalkit convert``: what a checkpoint holds, and a clean one of it."""

from __future__ import annotations

import json
from pathlib import Path

import click

from evalkit.commands import options


@click.command()
@click.argument("file", type=options.PATH)
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

    \b
    Example:  evalkit inspect checkpoint.pth
    """
    options.require_torch()
    from evalkit.checkpoint import inspect_checkpoint
    from evalkit.checkpoint.inspection_text import as_text

    found = inspect_checkpoint(file)
    if output_format == "json":
        click.echo(json.dumps(found.as_dict(), indent=2, default=str))
    else:
        click.echo(as_text(found))


@click.command()
@click.argument("source", metavar="IN", type=options.PATH)
@click.argument("target", metavar="OUT", type=options.PATH)
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
    safetensors if it ends in .safetensors, a file for torch.load if it ends in .pth, .pt, .ckpt,
    .bin or .pth.tar.

    \b
    Example:  evalkit convert checkpoint.pth clean.safetensors --dtype float16
    """
    options.require_torch()
    from evalkit.checkpoint import convert_checkpoint
    from evalkit.checkpoint.inspection_text import conversion_text

    made = convert_checkpoint(source, target, weights=weights, dtype=dtype)
    click.echo(conversion_text(made))
    click.echo(f"written to {target}")
