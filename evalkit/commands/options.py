"""Options of the command line that several commands share, and what they mean."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.errors import InputError
from evalkit.lock import is_begun
from evalkit.wording import some
from gpudiag.command_line import EXIT_BAD_INPUT, EXIT_INTERRUPTED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from evalkit.data import Source
    from evalkit.scoring.method import Method

GOES_ON = "what is written stays valid, --resume goes on with it"


class _BatchSize(click.ParamType):  # type: ignore[type-arg]  # it takes none before click 8.3
    """A number from 1, or "auto"."""

    name = "N|auto"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        if value == "auto":
            return "auto"
        text = str(value)
        if not text.isdecimal() or int(text) < 1:
            self.fail(f"{text!r} is neither a number from 1 nor 'auto'.", param, ctx)
        return int(text)


class _NamedPath(click.Path):
    """A path that is not empty: that one would be the current folder, which nobody named."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if value == "":
            self.fail("it is empty; for the current folder write '.'.", param, ctx)
        return Path(os.fsdecode(super().convert(value, param, ctx)))


BATCH_SIZE = _BatchSize()
SPEAKING_S = 5.0  # for the first of several processes to say what is wrong, at most
PATH = _NamedPath(path_type=Path)  # the commands check themselves and say what to do
RULES = ("scikit-learn", "all", "with-samples", "defined")  # without loading NumPy for --help
_STATISTICS = (
    click.option(
        "--group-by",
        multiple=True,
        metavar="COLUMN",
        help="Score every value of this column by itself as well; may be given several times.",
    ),
    click.option(
        "--group-column",
        metavar="COLUMN",
        help="What was drawn independently, such as the patient or the video of a sample; "
        "intervals then rest on it. [default: every sample was]",
    ),
    click.option(
        "--class-balanced",
        is_flag=True,
        help="The number of samples of every class was chosen, not drawn.",
    ),
    click.option(
        "--average-rule",
        default=RULES[0],
        show_default=True,
        type=click.Choice(RULES),
        help="Which classes macro and weighted averages count.",
    ),
    click.option(
        "--simultaneous",
        is_flag=True,
        help="Widen the intervals of the classes so that all of them hold together.",
    ),
    click.option(
        "--replicates",
        default=1_000,
        show_default=True,
        type=click.IntRange(100, 100_000),
        help="How often the counts are drawn anew for intervals.",
    ),
    click.option(
        "--seed",
        "resampling_seed",
        default=0,
        show_default=True,
        type=click.IntRange(0),
        help="Start of the random numbers for intervals.",
    ),
)


_REPLICATES = _STATISTICS[-2:]
_COMPARISON = (
    click.option(
        "--format",
        "output_format",
        default="text",
        show_default=True,
        type=click.Choice(["text", "json", "csv", "html"]),
        help="What to print: a screen, everything, one row per score, or a page.",
    ),
    click.option(
        "--out",
        type=PATH,
        help="Folder to write all of it to, with the samples that flipped. [default: none]",
    ),
    click.option(
        "--on-unmatched",
        default="fail",
        show_default=True,
        type=click.Choice(["fail", "skip"]),
        help="What to do about samples that not all runs have.",
    ),
    click.option(
        "--margin",
        type=float,
        metavar="FRACTION",
        help="The smallest difference in accuracy that matters, to test for equivalence.",
    ),
    click.option(
        "--key",
        metavar="COLUMN",
        help="What names the samples. [default: path where all have it, else index]",
    ),
    click.option("--label-column", default="label", show_default=True, help="True class."),
    click.option(
        "--prediction-column", default="prediction", show_default=True, help="Given class."
    ),
    *_REPLICATES,
)


device = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N, mps or xpu."
)
precision = click.option(
    "--precision",
    default="fp32",
    show_default=True,
    type=click.Choice(["fp32", "tf32", "bf16", "fp16"]),
    help="How exactly to compute.",
)
thumbnails = click.option(
    "--thumbnails/--no-thumbnails",
    default=True,
    help="Whether report.html shows images of the samples.  [default: thumbnails]",
)
plots = click.option(
    "--plots", is_flag=True, help="Draw the matrix and the diagrams as PNG and SVG files as well."
)


def on_unreadable(more: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option for images that cannot be read, with what else its help says."""
    return click.option(
        "--on-unreadable",
        default="fail",
        show_default=True,
        type=click.Choice(["fail", "skip"]),
        help=f"What to do about images that cannot be read; {more}.",
    )


def comparison(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say how runs are compared."""
    for option in reversed(_COMPARISON):
        command = option(command)
    return command


def comparison_choices(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """What the options of `comparison` say, as `evalkit.comparison.compare` takes it."""
    from evalkit.scoring.method import Method

    choices = dict(chosen)
    method = Method(replicates=choices.pop("replicates"), seed=choices.pop("resampling_seed"))
    return choices | {"method": method}


def statistics(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say how numbers and intervals are made."""
    for option in reversed(_STATISTICS):
        command = option(command)
    return command


def method(chosen: Mapping[str, Any]) -> tuple[Method, tuple[str, ...]]:
    """What the options of `statistics` say: the method, and the columns to group by.

    Raises:
        InputError: Two options exclude each other.
    """
    from evalkit.scoring.method import Method

    choices = {name: value for name, value in chosen.items() if name != "group_by"}
    seed = choices.pop("resampling_seed")
    return Method(seed=seed, **choices), tuple(chosen["group_by"])


def open_source(data: str, method: Method, group_by: Sequence[str]) -> str | Source:
    """*data*, looked into before hours of work if it must have columns to group by.

    Raises:
        InputError: A column is not there.
    """
    group = [method.group_column] if method.group_column is not None else []
    wanted = list(dict.fromkeys([*group_by, *group]))
    if not wanted:
        return data
    from evalkit.data import open_data

    source = open_data(data)
    present = ["path", "label", *(source.columns if source.columns is not None else ())]
    absent = [name for name in wanted if name not in present]
    if absent:
        raise InputError(
            f"data must have the columns to group by, got no {some([*map(repr, absent)])} in "
            f"{data} among {some([*map(repr, present)], 10)}: use a manifest that has them"
        )
    return source


def this_command(*, without: str = "") -> str:
    """Return this command line, to be run again.

    Args:
        without: A flag that says nothing about the result.
    """
    return shlex.join(["evalkit", *(word for word in sys.argv[1:] if word != without or not word)])


@contextmanager
def only_the_first_speaks(out: Path) -> Iterator[None]:
    """Let one of several processes say what is wrong with the input of all of them.

    While it lasts, the signal that torchrun sends to those that are left when one died, and a
    cluster before it takes a machine away (SIGTERM), ends them in one line.

    Args:
        out: Where results go.
    """
    from evalkit.distributed import processes

    us = processes()
    former = signal.signal(signal.SIGTERM, lambda *_: _told_to_stop(out))
    try:
        yield
    except InputError:
        if us.is_first:
            raise
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(SPEAKING_S)  # torchrun ends all as soon as one has ended, the speaker too
        raise click.exceptions.Exit(EXIT_BAD_INPUT) from None
    finally:
        signal.signal(signal.SIGTERM, former)


@contextmanager
def interruption_told(out: Path) -> Iterator[None]:
    """Say after Ctrl-C that a run can be gone on with, where it has begun to write."""
    try:
        yield
    except KeyboardInterrupt:
        if not is_begun(out):
            raise
        click.echo(f"evalkit: interrupted: {GOES_ON}", err=True)
        raise click.exceptions.Exit(EXIT_INTERRUPTED) from None


def _told_to_stop(out: Path) -> None:
    from evalkit.distributed import processes

    us = processes()
    why = "the job was ended"
    if us.size > 1:
        why = f"in process {us.rank} of {us.size}, because another one died or {why}"
    what = GOES_ON if is_begun(out) else "nothing was written yet"
    click.echo(f"evalkit: told to stop, {why}: {what}", err=True)
    os._exit(128 + signal.SIGTERM)  # at once: the others are gone, and so is what waits for them


def require_torch() -> None:
    """Check that torch can be imported.

    Raises:
        InputError: It cannot, with its own words and what to do.
    """
    try:
        import torch  # noqa: F401
    except (ImportError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"this command needs torch, got '{reason}' when it was imported: "
            "pip install 'gpudiag[eval]', or run 'gpudiag diagnose' if it is installed"
        ) from error
