"""SIGTERM and Ctrl-C while a model is trained: finish the step, save, end."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StoppedError(Exception):
    """Validation was left because training is to stop."""


@dataclass
class StopRequest:
    """Whether training is to stop after this step.

    Attributes:
        signal: Number of the signal that asked for it; 0 where nobody did.
    """

    signal: int = 0

    @property
    def is_made(self) -> bool:
        """Whether somebody asked."""
        return self.signal != 0

    def until_made(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yield batches until somebody asks to stop.

        Raises:
            StoppedError: Somebody did.
        """
        for batch in batches:
            yield batch
            if self.is_made:
                raise StoppedError


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn the first SIGTERM or Ctrl-C into a request; the second one acts as ever.

    In another thread than the main one signals cannot be caught: nothing is changed there.

    Example:
        >>> with stop_on_signals() as stop:
        ...     signal.raise_signal(signal.SIGTERM)
        ...     stop.is_made, stop.signal
        (True, 15)
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, _frame: object) -> None:
        request.signal = number
        for one, handler in before.items():
            signal.signal(one, handler)

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
