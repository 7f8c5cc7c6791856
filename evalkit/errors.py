"""The one error that is the user's to mend."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input: a file, an option or an array that cannot be what was meant.

    The message is one line that says what was expected, what was got and what to do. It is a
    `ValueError`, so library users need no special import to catch it; the command line prints it
    as ``evalkit: <message>`` and ends with exit code 2.

    Attributes:
        details: All of what the message names only the first of, a line each; the command line
            prints them before it.

    Example:
        >>> str(InputError("classes must differ from each other, got 'cat' twice: drop one"))
        "classes must differ from each other, got 'cat' twice: drop one"
    """

    def __init__(self, message: str = "", *, details: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.details = details
