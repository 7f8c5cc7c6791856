"""What the command line turns into one line and exit code 2."""


class InputError(ValueError):
    """Input that cannot be used; the message says what was expected, got, and what to do."""
