"""Probes asked side by side, each within its own limit, by no more threads than that needs.

Most probes read small files and are done within milliseconds; a thread for each would have them
take turns at the interpreter, which costs more than they do. So one thread asks them in order, and
another one comes whenever the last one gets stuck: in a program that it waits for, in a file system
that does not answer.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gpudiag.host import Host
from gpudiag.snapshot import Section

SPARE_S = 0.5  # what a probe gets beyond the limit of the program that it runs
STUCK_S = 0.02


class Probe(NamedTuple):
    """How one section of the snapshot is established, and how long that may take."""

    section: str
    kind: type[Section]
    ask: Callable[[Host, float], Section]
    limit_s: float


class Asked:
    """One probe, and what became of it."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self.seconds = 0.0
        self._began: float | None = None
        self._limit_s = probe.limit_s
        self._answer: Section | None = None

    def ask(self, host: Host, *, at_most_s: float) -> None:
        """Ask it; a failure of its own becomes the reason in each of its facts."""
        self._limit_s = min(self.probe.limit_s, at_most_s)
        self._began = time.monotonic()
        try:
            answer = self.probe.ask(host, self._limit_s)
        except Exception as error:  # noqa: BLE001 - a probe's crash becomes its section's reason
            reason = f"the {self.probe.section} probe failed: {type(error).__name__}: {error}"
            answer = self.probe.kind.missing(reason)
        self.seconds = time.monotonic() - self._began
        self._answer = answer

    def over(self) -> bool:
        """Whether it has answered, or had its time."""
        if self._answer is None and self._began is not None:
            return time.monotonic() > self._began + self._limit_s + SPARE_S
        return self._answer is not None

    def section(self) -> Section:
        """Its section, or one in which every fact gives the reason for its absence."""
        if self._answer is None:
            if self._began is not None:
                self.seconds = time.monotonic() - self._began
            reason = f"the {self.probe.section} probe gave no answer within {self._limit_s:g} s"
            return self.probe.kind.missing(reason)
        return self._answer


def ask_all(probes: Sequence[Probe], host: Host, *, timeout_s: float) -> list[Asked]:
    """Ask every probe, those that wait longest last.

    Args:
        probes: What to ask, in the order in which a single thread would.
        host: The machine.
        timeout_s: Limit for each; the last begins no more than 0.02 s per probe after the first,
            except where no thread can be started.

    Returns:
        Each probe with its answer, in their order. A thread that got stuck is left behind.
    """
    every = [Asked(probe) for probe in probes]
    waiting = deque(every)
    under_way: list[Asked] = []
    progress = threading.Event()

    def work() -> None:
        while True:
            try:
                one = waiting.popleft()
            except IndexError:  # none is left
                return
            under_way.append(one)
            one.ask(host, at_most_s=timeout_s)
            progress.set()

    threads = _started(work)
    while threads and not all(one.over() for one in every):
        if progress.wait(STUCK_S):
            progress.clear()
        elif waiting and not _started(work) and all(one.over() for one in under_way):
            break
    while waiting:  # there are no threads to be had
        waiting.popleft().ask(host, at_most_s=timeout_s)
    return every


def _started(work: Callable[[], None]) -> bool:
    try:
        threading.Thread(target=work, daemon=True).start()
    except RuntimeError:  # can't start new thread
        return False
    return True
