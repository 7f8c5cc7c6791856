"""The entry point of ``gpudiag``, also as ``python -m gpudiag``.

It starts the process that asks the machine before the command line is read and what reads it is
imported, which takes as long.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Mapping, Sequence

from gpudiag.ending import Ended, listen

LOOKING = {"diagnose", "snapshot", "versions", "devices", "memory", "processes", "release", "reset"}
ASKING_TORCH = {"diagnose", "snapshot", "versions"}
ELSEWHERE = ("-h", "--help", "--snapshot")  # then nobody looks at this machine
COLLECT_EVERY = 100_000  # allocations; the usual 700 cost a short run 5 % for garbage it has not


def looks(arguments: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Whether this command line is going to ask the machine.

    A wrong guess costs little: what was started is ended, what was not is started later.

    Example:
        >>> looks(["diagnose", "-v"], {}), looks(["diagnose", "--snapshot=a.json"], {})
        (True, False)
    """
    if not arguments or arguments[0] not in LOOKING or "_GPUDIAG_COMPLETE" in environment:
        return False
    return not any(argument.startswith(ELSEWHERE) for argument in arguments)


def main() -> None:
    """Run the command line and exit."""
    gc.set_threshold(COLLECT_EVERY)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it hides how a program ended
    try:
        listen()
        if looks(sys.argv[1:], os.environ):
            _start_and_run()
        else:
            _command_line()
    except KeyboardInterrupt:  # before there is a command that says so
        if sys.stderr is not None:
            sys.stderr.write("gpudiag: interrupted\n")
        raise SystemExit(128 + signal.SIGINT) from None
    except Ended as end:
        if sys.stderr is not None:
            sys.stderr.write(f"gpudiag: {end}\n")
        raise SystemExit(end.exit_code) from None
    finally:
        gc.freeze()  # or Python, as it ends, looks through everything once more: 8 ms


def _start_and_run() -> None:
    _import_msgspec()
    from gpudiag.ahead import Ahead, Started

    asks_torch = sys.argv[1] in ASKING_TORCH and "--no-torch" not in sys.argv
    try:
        ahead = Started.ahead = Ahead(with_torch=asks_torch)
    except OSError:  # no more processes or files: the command asks for itself
        _command_line()
        return
    try:
        _command_line()
    finally:
        ahead.end()


def _import_msgspec() -> None:
    """Import it without typing_extensions, which comes with torch and takes as long as the rest.

    It looks there for what Python 3.11 has in `typing`, and finds it in `typing` otherwise.
    """
    extensions = "typing_extensions"
    if extensions in sys.modules:
        return
    sys.modules[extensions] = None  # type: ignore[assignment] # its import fails meanwhile
    try:
        import msgspec  # noqa: F401
    finally:
        del sys.modules[extensions]


def _command_line() -> None:
    from gpudiag.cli import main as read_and_run

    read_and_run()


if __name__ == "__main__":
    main()
