"""SIGTERM and SIGHUP end a command as Ctrl-C does: what it has started is ended with it."""

from __future__ import annotations

import signal
from types import FrameType

NUMBERS = (signal.SIGTERM, signal.SIGHUP)


class Ended(BaseException):
    """A signal came: no fault, and nothing that an ``except Exception`` may swallow."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(f"ended by {signal.Signals(number).name}")

    @property
    def exit_code(self) -> int:
        """What a shell reports for a program that this signal has ended.

        Example:
            >>> Ended(signal.SIGTERM).exit_code
            143
        """
        return 128 + self.number


def listen() -> None:
    """Raise `Ended` in the main thread from now on; a signal that is ignored (nohup) stays so."""
    for number in NUMBERS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _raise)


def _raise(number: int, _frame: FrameType | None) -> None:
    for one in NUMBERS:  # the end is under way: a second one would cut it short
        signal.signal(one, signal.SIG_IGN)
    raise Ended(number)
