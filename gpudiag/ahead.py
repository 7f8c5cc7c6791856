"""A second process that takes the snapshot while this one reads the command line and imports.

Most of a short run is Python's imports. Forked before most of them, the second process starts
what takes longest, imports the probes, and takes the snapshot as soon as it is told how. Where it
cannot be had, or fails, the snapshot is taken here, as in any other program.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

import msgspec  # before the fork: both need it

from gpudiag.forking import fork_with_pipes

if TYPE_CHECKING:
    from gpudiag.host import Host
    from gpudiag.snapshot import Snapshot

PR_SET_PDEATHSIG = 1
LENGTH_BYTES = 8
LONGEST_REQUEST_BYTES = 100
MOST_AT_ONCE = 2**20
SPARE_S = 2.0  # beyond the limit that it keeps itself, before it is given up
LONGEST_POLL_S = 3600.0  # the system takes no more than 24 days
BURYING_S = 0.2
GRACE_S = 0.5  # to end its own programs
LOOK_EVERY_S = 0.001


class Ahead:
    """The second process.

    Args:
        with_torch: Whether torch is likely to be asked for: its import takes longest.

    Raises:
        OSError: There are no more files or processes to be had.
    """

    def __init__(self, *, with_torch: bool) -> None:
        parent = os.getpid()
        self._pid, ends = fork_with_pipes(2)
        requests, self._requests, self._answers, answers = ends
        self._is_over = False
        if self._pid == 0:
            _live(parent, ends, with_torch=with_torch)
        os.close(requests)
        os.close(answers)

    def ask(self, *, torch: bool, timeout_s: float, redacted: bool) -> None:
        """Tell it how the snapshot is to be taken."""
        with suppress(BrokenPipeError):  # it has ended: there will be no answer
            os.write(self._requests, f"{torch:d} {timeout_s!r} {redacted:d}".encode())

    def answer(self, *, timeout_s: float) -> Snapshot | None:
        """The snapshot, None where it has none to give."""
        from gpudiag.snapshot import Snapshot

        until = time.monotonic() + timeout_s + SPARE_S
        length = int.from_bytes(self._read(LENGTH_BYTES, until), "big")
        said = self._read(length, until)
        return msgspec.msgpack.decode(said, type=Snapshot) if said else None

    def _read(self, count: int, until: float) -> bytes:
        """So many bytes, none if they do not come."""
        poll = select.poll()
        poll.register(self._answers, select.POLLIN)
        parts = bytearray()
        while len(parts) < count:
            left_s = max(0.0, until - time.monotonic())
            if poll.poll(min(left_s, LONGEST_POLL_S) * 1000):
                part = os.read(self._answers, min(count - len(parts), MOST_AT_ONCE))
                if not part:
                    return b""
                parts += part
            elif not left_s:
                return b""
        return bytes(parts)

    def end(self) -> None:
        """End it, with every program that it has started; once more does nothing."""
        if self._is_over:
            return
        self._is_over = True
        os.close(self._requests)
        os.close(self._answers)
        os.kill(self._pid, signal.SIGTERM)
        until = time.monotonic() + GRACE_S
        while not os.waitpid(self._pid, os.WNOHANG)[0]:
            if time.monotonic() > until:
                os.kill(self._pid, signal.SIGKILL)
                return
            time.sleep(LOOK_EVERY_S)


class Started:
    """The second process that the entry point has started, until a command takes it over."""

    ahead: Ahead | None = None


def _live(parent: int, ends: list[int], *, with_torch: bool) -> NoReturn:
    """What the second process does; it never returns into the program that it was forked from."""
    host = None
    exit_code = 1
    requests, its_requests, its_answers, answers = ends
    try:
        _die_with(parent)
        os.close(its_requests)
        os.close(its_answers)
        from gpudiag import children
        from gpudiag.host import Host

        host = Host()
        children.start(host, with_torch=with_torch)
        _serve(host, requests, answers)
        exit_code = 0
    except Exception:  # noqa: BLE001 - what it does not answer is asked for by the first process
        if host is not None and host.environment.get("GPUDIAG_DEBUG"):
            import traceback

            os.write(2, traceback.format_exc().encode(errors="backslashreplace"))
    finally:
        if host is not None:
            host.end_programs()
            _bury()
        os._exit(exit_code)


def _bury() -> None:
    """Wait for the programs that were ended: the first process of a container often does not."""
    until = time.monotonic() + BURYING_S
    with suppress(ChildProcessError):  # there are none left
        while time.monotonic() < until:
            if not os.waitpid(-1, os.WNOHANG)[0]:
                time.sleep(LOOK_EVERY_S)


def _die_with(parent: int) -> None:
    """End when the first process is killed; the terminal's Ctrl-C reaches that one alone."""
    import ctypes

    os.setsid()
    if signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:  # by whoever started the first process
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)


def _serve(host: Host, requests: int, answers: int) -> None:
    from gpudiag.probes import take_snapshot
    from gpudiag.redact import redact, this_identity

    request = os.read(requests, LONGEST_REQUEST_BYTES).split()
    if not request:
        return  # nobody asks: another command, or an error in the command line
    torch, timeout_s, redacted = request
    seen = take_snapshot(host, torch=torch == b"1", timeout_s=float(timeout_s))
    if redacted == b"1":
        seen = redact(seen, this_identity(host.environment))
    said = msgspec.msgpack.encode(seen)
    with open(answers, "wb") as pipe:
        pipe.write(len(said).to_bytes(LENGTH_BYTES, "big") + said)
