"""The entry point of ``evalkit``, also as ``python -m evalkit``."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run the command line and exit; also Ctrl-C while it is imported is one line."""
    try:
        from evalkit.cli import main as read_and_run

        read_and_run()
    except KeyboardInterrupt:  # before there is a command that says so
        if sys.stderr is not None:
            sys.stderr.write("evalkit: interrupted\n")
        raise SystemExit(128 + signal.SIGINT) from None


if __name__ == "__main__":
    main()
