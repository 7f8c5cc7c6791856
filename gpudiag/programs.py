"""Programs that run: how each is waited for, read and ended, and what remains of one that ran."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, NoReturn

from gpudiag.forking import fork_with_pipes

LONGEST_WAIT_S = 0.5  # another thread may have swallowed the signal that a child has ended
GRACE_AFTER_KILL_S = 0.5  # a process in uninterruptible sleep does not die; do not wait for it
MOST_INHERITED = 4096  # descriptors that are closed in a forked process
LOOK_EVERY_S = 0.001  # whether a program whose pipes have ended has ended itself: nearly at once


class Completed(NamedTuple):
    """A program that ran: its output (whatever came before a kill) and how it ended."""

    stdout: str
    stderr: str
    exit_code: int | None  # None: killed at its time limit
    timeout_s: float

    @property
    def failure(self) -> str | None:
        """How the program failed in words, None if it exited with 0."""
        if self.exit_code is None:
            return f"no answer within {self.timeout_s:g} s"
        if self.exit_code < 0:
            return f"killed by signal {-self.exit_code} ({_signal_name(-self.exit_code)})"
        return f"exit code {self.exit_code}" if self.exit_code else None


class Stream:
    """A program that stays and prints lines, until it is closed; Ctrl-C does not reach it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def lines(self) -> Iterator[str]:
        """Each line as it comes, until the program ends."""
        assert self._process.stdout is not None  # noqa: S101 - opened as a pipe
        with self._process.stdout as out:
            yield from out

    def close(self) -> None:
        """End it: its standard input ends, and if that is not enough, it is killed."""
        assert self._process.stdin is not None  # noqa: S101 - opened as a pipe
        with contextlib.suppress(OSError):  # it has ended
            self._process.stdin.close()
        try:
            self._process.wait(GRACE_AFTER_KILL_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # it sleeps in the driver
                self._process.wait(GRACE_AFTER_KILL_S)


class HeldProcess:
    """A process by a descriptor of its own (pidfd), which no later process can take over."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self.pid = pid
        self._descriptor = descriptor

    def send(self, number: signal.Signals) -> str | None:
        """Send a signal; why it could not be sent, None if it was or the process has ended."""
        try:
            signal.pidfd_send_signal(self._descriptor, number)
        except ProcessLookupError:
            return None
        except OSError as error:
            return error.strerror
        return None

    def ended(self, *, timeout_s: float) -> bool:
        """Whether it ends within *timeout_s* seconds; a zombie has ended."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))

    def close(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)


class Forked:
    """A function that runs in a process of its own, with the part of `subprocess.Popen` we use.

    It starts with everything that is imported here, which saves a new interpreter 30 ms. The
    process that forks may have no other thread.

    Args:
        work: What is run; when it returns, the process ends with 0, when it raises, with 1.

    Raises:
        OSError: There are no more files or processes to be had.
    """

    def __init__(self, work: Callable[[], object]) -> None:
        self.returncode: int | None = None
        self.pid, (out, out_of_child, err, err_of_child) = fork_with_pipes(2)
        if self.pid == 0:
            _be_a_program(work, out_of_child, err_of_child)
        os.close(out_of_child)
        os.close(err_of_child)
        self.stdout, self.stderr = os.fdopen(out, "rb", 0), os.fdopen(err, "rb", 0)

    def wait(self, timeout: float) -> int:
        """Its exit code, negative for the signal that ended it; *timeout* in seconds.

        Raises:
            subprocess.TimeoutExpired: It still runs.
        """
        until = time.monotonic() + timeout
        while self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
            elif time.monotonic() >= until:
                raise subprocess.TimeoutExpired("a forked function", timeout)
            else:
                time.sleep(LOOK_EVERY_S)
        return self.returncode


def attend(
    command: Sequence[str], environment: Mapping[str, str], *, started: Callable[[int], object]
) -> int:
    """Run a program with our own streams and process group until it ends: see `Host.attend`."""
    passed_on = {
        *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT),
        *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT),
    }
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*passed_on, signal.SIGCHLD})
    try:
        pid = os.posix_spawnp(
            command[0],
            list(command),
            environment,
            setsigmask=before,
            setsigdef={signal.SIGPIPE, signal.SIGXFSZ},  # which Python itself ignores
        )
        started(pid)
        while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
            came = signal.sigtimedwait({*passed_on, signal.SIGCHLD}, LONGEST_WAIT_S)
            if came and came.si_signo in passed_on and came.si_code <= 0:  # not of a terminal
                os.kill(pid, came.si_signo)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    code = os.waitstatus_to_exitcode(ended[1])
    return code if code >= 0 else 128 - code


def _be_a_program(work: Callable[[], object], out: int, err: int) -> NoReturn:
    """Run a function as a program is run: a session and streams of its own, no other files."""
    exit_code = 1
    try:
        os.setsid()
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.closerange(3, MOST_INHERITED)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        sys.stdout = open(1, "w", errors="backslashreplace")  # noqa: SIM115 - a descriptor
        sys.stderr = open(2, "w", errors="backslashreplace")  # noqa: SIM115
        try:
            work()
        finally:
            sys.stdout.flush()
        exit_code = 0
    except BaseException:  # noqa: BLE001 - the process ends with it, and says why
        import traceback  # Python's own exit would also end what belongs to the parent

        os.write(2, traceback.format_exc().encode(errors="backslashreplace"))
    finally:
        os._exit(exit_code)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
