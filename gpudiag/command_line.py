"""The boundary of a command: one line for every error, a defined exit code, never a traceback."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence

import click

EXIT_BAD_INPUT = 2
EXIT_INTERNAL_ERROR = 3
EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_BROKEN_PIPE = 128 + signal.SIGPIPE  # what a shell reports for `yes | head -1` as well


def run(command: click.Command, *, name: str, bad_input: type[Exception]) -> int:
    """Run a command and give its exit code.

    Args:
        command: The click command or group; its callbacks may return an exit code.
        name: The program's name, which begins every error line.
        bad_input: The error whose message is meant for the user as it stands; what it has in
            ``details``, lines of text, comes before that.

    Returns:
        What the command returned (None: 0); 2 for a usage error or bad input; 3 for a fault of
        the program's own; 130 when interrupted; 141 when the reader of standard output went away.
        A full disk and the like are one line and 3. With ``NAME_DEBUG=1``, tracebacks are printed
        before the line.
    """
    try:
        code = command.main(prog_name=name, standalone_mode=False)
        if sys.stdout is not None:  # None: it was closed before the program started
            sys.stdout.flush()
    except SystemExit:
        if f"_{name.upper()}_COMPLETE" in os.environ:
            raise  # a shell asks for completions
        return EXIT_BROKEN_PIPE  # the only other reason for which click ends the program itself
    except click.Abort:
        return _complain(name, "interrupted", EXIT_INTERRUPTED)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context else name
        return _complain(name, f"{error.format_message()} See '{path} --help'.", EXIT_BAD_INPUT)
    except bad_input as error:
        _trace(name, error)
        return _complain(name, str(error), EXIT_BAD_INPUT, above=getattr(error, "details", ()))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except OSError as error:
        _trace(name, error)
        where = f": {error.filename}" if error.filename else ""
        return _complain(name, f"{error.strerror or error}{where}", EXIT_INTERNAL_ERROR)
    except Exception as error:  # noqa: BLE001 - the boundary: whatever is left is a bug of ours
        return _internal_error(name, error)
    return code if isinstance(code, int) else 0


def _internal_error(name: str, error: Exception) -> int:
    _trace(name, error)
    what = " ".join(f"{type(error).__name__}: {error}".split())
    message = (
        f"internal error: {what} (a bug: run the same command with {_variable(name)}=1 and report "
        "the traceback)"
    )
    return _complain(name, message, EXIT_INTERNAL_ERROR)


def _trace(name: str, error: Exception) -> None:
    """Print the traceback, and those of what led to it, for whoever asked for them."""
    if os.environ.get(_variable(name)) == "1":
        traceback.print_exception(error)


def _variable(name: str) -> str:
    return f"{name.upper()}_DEBUG"


def _complain(name: str, message: str, code: int, *, above: Sequence[str] = ()) -> int:
    for line in above:
        click.echo(line, err=True)
    click.echo(f"{name}: {' '.join(message.split())}", err=True)
    return code
