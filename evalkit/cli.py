"""The ``evalkit`` command; the subcommands lie in `evalkit.commands`.

Exit codes: 0 done, 2 usage error or unreadable input, 3 evalkit itself failed, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import MutableMapping

import click

from evalkit.commands.checkpoints import convert, inspect
from evalkit.commands.compare import compare
from evalkit.commands.demo import demo
from evalkit.commands.evaluate import evaluate
from evalkit.commands.option_words import Commands
from evalkit.commands.report import report
from evalkit.commands.train import train
from evalkit.errors import InputError
from gpudiag.command_line import EXIT_BAD_INPUT, run

# Turns that a thread of OpenMP spins before it sleeps: enough for one small operation after the
# other, too few to take the cores from the threads that decode. Its own number lets a thread spin
# for milliseconds, which costs reading images on two cores a third of its speed.
SPIN_COUNT = "5000"
SPIN_VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


@click.group(
    cls=Commands,
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


for command in (evaluate, report, compare, inspect, convert, train, demo):
    cli.add_command(command)


def spin_briefly(environment: MutableMapping[str, str]) -> None:
    """Have OpenMP's threads sleep soon, unless the user has said how; torch reads it once.

    Example:
        >>> variables = {"OMP_WAIT_POLICY": "ACTIVE"}
        >>> spin_briefly(variables)
        >>> variables
        {'OMP_WAIT_POLICY': 'ACTIVE'}
    """
    if not any(name in environment for name in SPIN_VARIABLES):
        environment["GOMP_SPINCOUNT"] = SPIN_COUNT


def hush_images() -> None:
    """Leave out what Pillow says of files by their bytes, not by their names; the audit has both.

    Whoever asked Python for warnings gets them.
    """
    if not sys.warnoptions:
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"PIL\.")


def main() -> None:
    """Run the command line and exit: errors are one line on standard error, never a traceback."""
    spin_briefly(os.environ)  # before torch is imported
    hush_images()
    sys.exit(run(cli, name="evalkit", bad_input=InputError))
