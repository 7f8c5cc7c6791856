"""Errors in the words of the command line: what Python calls new_head is --new-head there."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

import click

from evalkit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

# A name, perhaps with its value as Python writes it. In quotation marks and in paths it is
# somebody's own word.
_NAME = re.compile(
    r"(?<![\w/.\\'\"-])([a-z][a-z_]*)(?:=(?:'([^']*)'|(\d[\d.]*\d|\w+)))?(?![\w/\\'\"-]|\.\w)"
)


class Commands(click.Group):
    """A group whose errors name the options of the command that was asked for."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command.

        Raises:
            InputError: As the command raised it, with options instead of arguments.
        """
        try:
            return super().invoke(ctx)
        except InputError as error:
            command = self.commands.get(ctx.invoked_subcommand or "")
            if command is None:
                raise
            message = in_options(str(error), command.params)
            raise InputError(message, details=error.details) from error


def in_options(message: str, parameters: Iterable[click.Parameter]) -> str:
    """Return a message with the options of a command instead of the arguments of a function.

    A name with an underscore is always one; another only where a value is given to it.

    Args:
        message: Of an error that a user of Python would have seen.
        parameters: Those of the command; what is none of them stays as it is.

    Example:
        >>> options = [click.Option(["--new-head"], is_flag=True), click.Option(["--key"])]
        >>> in_options("have it replaced (new_head=True), or name it with key='COLUMN'", options)
        'have it replaced (--new-head), or name it with --key COLUMN'
        >>> in_options("key must be there, got data/new_head and 'new_head'", options)
        "key must be there, got data/new_head and 'new_head'"
    """
    options = {
        word.lstrip("-").replace("-", "_"): word
        for parameter in parameters
        if isinstance(parameter, click.Option)
        for word in parameter.opts
    }

    def spoken(found: re.Match[str]) -> str:
        name, text, number = found.groups()
        value = text if text is not None else number
        if name not in options or (value is None and "_" not in name):
            return found[0]
        return options[name] if value in {None, "True"} else f"{options[name]} {shlex.quote(value)}"

    return _NAME.sub(spoken, message)
