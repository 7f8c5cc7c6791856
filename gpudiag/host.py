"""The only door to the machine: run a program, read a file, list a folder, the environment.

Everything that can fail gives a `Missing` with the reason, never an exception, so that a probe
reads from top to bottom. ``root=`` moves every absolute path below a folder, for tests.

Only the standard library is imported here, and little of it, so that the programs that take longest
can be started before the rest of gpudiag is imported; `_missing` therefore imports in its body.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gpudiag.pipes import Pipes
from gpudiag.programs import GRACE_AFTER_KILL_S, Completed, Forked, HeldProcess, Stream, attend

if TYPE_CHECKING:
    from gpudiag.snapshot import Missing

    Program = subprocess.Popen[bytes] | Forked

T = TypeVar("T")

PART_BYTES = 2**16
LARGEST_FILE_BYTES = 4 * 2**20  # a kernel log or package metadata; anything larger is not for us


class Host:
    """This machine, or a tree of files that stands in for one.

    Args:
        root: Folder below which every absolute path is looked up.
        environment: The variables that programs are run with, by default this process's.
    """

    def __init__(
        self, *, root: Path = Path("/"), environment: Mapping[str, str] | None = None
    ) -> None:
        self.root = root
        self._below = f"{str(root).rstrip('/')}/"  # joined as text: pathlib costs a short run 3 ms
        self.environment = dict(os.environ if environment is None else environment)
        self._started: dict[tuple[str, ...], Program] = {}
        self._running: set[Program] = set()

    def start(self, *command: str) -> None:
        """Start a program whose answer `run` will be asked for later; a failure is told there."""
        process = self._open(command)
        if isinstance(process, subprocess.Popen | Forked):
            self._started[command] = process

    def fork(self, command: tuple[str, ...], work: Callable[[], object]) -> None:
        """Let a fork of this process do what *command* does; `run` will be asked for its answer.

        Only for a process without other threads. Where it cannot be forked, `run` starts the
        command itself.
        """
        with contextlib.suppress(OSError):
            process = self._started[command] = Forked(work)
            self._running.add(process)

    def run(self, *command: str, timeout_s: float) -> Completed | Missing:
        """Run a program, without a shell, for at most *timeout_s* seconds from now."""
        process = self._started.pop(command, None) or self._open(command)
        if not isinstance(process, subprocess.Popen | Forked):
            return process
        assert process.stdout is not None  # noqa: S101 - opened as pipes
        assert process.stderr is not None  # noqa: S101
        pipes = Pipes(process.stdout, process.stderr)
        ended = False
        try:
            ended = _ended(process, pipes, timeout_s)
        finally:  # Ctrl-C, too: it has a session of its own, so that Ctrl-C does not reach it
            if not ended:
                _kill(process)
                _ended(process, pipes, GRACE_AFTER_KILL_S)
            stdout, stderr = pipes.close()
            self._running.discard(process)
        exit_code = process.returncode if ended else None
        return Completed(stdout=stdout, stderr=stderr, exit_code=exit_code, timeout_s=timeout_s)

    def _open(self, command: tuple[str, ...]) -> Program | Missing:
        program = self.which(command[0])
        if program is None:
            return _missing(f"{command[0]} not found on PATH")
        try:
            process = subprocess.Popen(  # noqa: S603 - fixed programs, no shell
                [program, *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self.environment,
                start_new_session=True,
            )
        except OSError as error:
            return _missing(f"{command[0]} cannot be run: {error.strerror}")
        self._running.add(process)
        return process

    def stream(self, *command: str) -> Stream | Missing:
        """Start a program that prints lines until it is closed; what it complains of is lost."""
        program = self.which(command[0])
        if program is None:
            return _missing(f"{command[0]} not found on PATH")
        try:
            process = subprocess.Popen(  # noqa: S603 - fixed programs, no shell
                [program, *command[1:]],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=self.environment,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            return _missing(f"{command[0]} cannot be run: {error.strerror}")
        return Stream(process)

    def attend(
        self, command: Sequence[str], *, started: Callable[[int], object] = lambda _: None
    ) -> int:
        """Run the user's own program as if it had been run without us, and wait for it.

        It has our standard streams and our process group, so that Ctrl-C reaches it from the
        terminal. A signal that is sent to us alone is passed on.

        Args:
            command: The program and its arguments.
            started: Called with its process id as soon as there is one.

        Returns:
            Its exit code; 128 + the number of the signal that ended it, as in a shell.

        Raises:
            OSError: The program cannot be run.
        """
        return attend(command, self.environment, started=started)

    def end_programs(self) -> None:
        """Kill what still runs: a probe that was given up leaves no process behind."""
        for process in tuple(self._running):
            _kill(process)

    def path(self, path: str) -> Path:
        """Where the machine's absolute *path* really lies."""
        return Path(self._within(path))

    def _within(self, path: str) -> str:
        return self._below + path.lstrip("/")

    def read(self, path: str) -> str | Missing:
        """The text of a small file."""
        data = self.read_bytes(path)
        return data.decode(errors="replace") if isinstance(data, bytes) else data

    def read_bytes(self, path: str) -> bytes | Missing:
        """The bytes of a small file."""
        try:
            descriptor = os.open(self._within(path), os.O_RDONLY)
        except OSError as error:
            return _missing(f"{path}: {error.strerror}")
        data = b""
        try:
            while len(data) < LARGEST_FILE_BYTES and (part := os.read(descriptor, PART_BYTES)):
                data += part
        except OSError as error:
            return _missing(f"{path}: {error.strerror}")
        finally:
            os.close(descriptor)
        return data[:LARGEST_FILE_BYTES]

    def read_log(self, path: str) -> tuple[str, ...] | Missing:
        """The records of a log device such as /dev/kmsg, without waiting for new ones."""
        try:
            descriptor = os.open(self.path(path), os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            return _missing(f"{path}: {error.strerror}")
        records: list[str] = []
        try:
            while record := os.read(descriptor, 8192):
                records.extend(record.decode(errors="replace").splitlines())
        except BlockingIOError:
            pass  # the end of what the kernel has so far
        except OSError as error:
            if not records:
                return _missing(f"{path}: {error.strerror}")
        finally:
            os.close(descriptor)
        return tuple(records)

    def names(self, folder: str) -> tuple[str, ...] | Missing:
        """The sorted names in a folder."""
        try:
            return tuple(sorted(os.listdir(self._within(folder))))  # noqa: PTH208 - names, not paths
        except OSError as error:
            return _missing(f"{folder}: {error.strerror}")

    def exists(self, path: str) -> bool:
        """Whether there is such a file or folder, followed through links."""
        return os.path.exists(self._within(path))  # noqa: PTH110 - as _below

    def working_folder(self) -> str | Missing:
        """The folder in which this process runs; it may have been removed."""
        try:
            return os.getcwd()  # noqa: PTH109 - as _below
        except OSError as error:
            return _missing(f"working directory: {error.strerror}")

    def same(self, one: str, other: str) -> bool:
        """Whether two paths lead to one file or folder; one that is not there is none."""
        try:
            return os.path.samefile(self._within(one), self._within(other))  # noqa: PTH121 - as _below
        except OSError:
            return False

    def link_target_name(self, path: str) -> str | None:
        """The last part of what a symbolic link points to, None if it is no link."""
        try:
            return self.path(path).readlink().name
        except OSError:
            return None

    def usable(self, path: str) -> bool:
        """Whether this user may read and write the file."""
        return os.access(self.path(path), os.R_OK | os.W_OK)

    def which(self, program: str) -> str | None:
        """Where a program lies on PATH."""
        on_path = self.environment.get("PATH", os.defpath)
        folders = on_path.split(os.pathsep) if on_path else []
        for folder in [""] if os.sep in program else folders:
            path = os.path.join(folder, program)  # noqa: PTH118 - as _below
            if os.path.isfile(path) and os.access(path, os.X_OK):  # noqa: PTH113
                return path
        return None

    def mode(self, path: str) -> str | Missing:
        """The type and permissions of a file, as ls -l writes them."""
        return self._of_file(path, lambda file: stat.filemode(file.stat().st_mode))

    def group(self, path: str) -> str | Missing:
        """The group of a file, by name where there is one."""
        return self._of_file(path, lambda file: _name_or(file.group, file.stat().st_gid))

    def owner(self, path: str) -> str | Missing:
        """The user that owns a file, by name where there is one."""
        return self._of_file(path, lambda file: _name_or(file.owner, file.stat().st_uid))

    def owner_id(self, path: str) -> int | Missing:
        """The number of the user that owns a file."""
        return self._of_file(path, lambda file: file.stat().st_uid)

    def _of_file(self, path: str, ask: Callable[[Path], T]) -> T | Missing:
        try:
            return ask(self.path(path))
        except OSError as error:
            return _missing(f"{path}: {error.strerror}")

    def user_id(self) -> int:
        """The number of the user as whom this process acts."""
        return os.geteuid()

    def process_id(self) -> int:
        """The number of this process."""
        return os.getpid()

    def hold(self, pid: int, *, start_ticks: int) -> HeldProcess | Missing:
        """A process that stays the one meant, even if its number is given to another one.

        Args:
            pid: Its number.
            start_ticks: Its start time as /proc/PID/stat had it when it was listed.
        """
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return _missing(f"process {pid} has ended")
        except OSError as error:
            return _missing(f"process {pid} cannot be held: {error.strerror}")
        held = HeldProcess(pid, descriptor)
        text = self.read(f"/proc/{pid}/stat")
        if not isinstance(text, str):
            held.close()
            return _missing(f"process {pid} has ended")
        if text.rpartition(")")[2].split()[19] != str(start_ticks):
            held.close()
            return _missing(f"{pid} is another process now than when it was listed")
        return held

    def capacity_bytes(self, path: str) -> tuple[int, int] | Missing:
        """Total and used bytes of the file system that holds *path*."""
        try:
            stats = os.statvfs(self.path(path))
        except OSError as error:
            return _missing(f"{path}: {error.strerror}")
        return stats.f_blocks * stats.f_frsize, (stats.f_blocks - stats.f_bfree) * stats.f_frsize

    def open_files_limit(self) -> int:
        """The soft limit on open files of this process (RLIMIT_NOFILE)."""
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    def locked_memory_limit_bytes(self) -> int | None:
        """The soft limit on locked memory of this process, None where there is none."""
        limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
        return None if limit == resource.RLIM_INFINITY else limit

    def cpu_affinity_count(self) -> int | Missing:
        """The number of CPUs that this process may run on."""
        if not hasattr(os, "sched_getaffinity"):
            return _missing("CPU affinity is not known on this operating system")
        return len(os.sched_getaffinity(0))

    def is_root(self) -> bool:
        """Whether this process has the rights of root."""
        return os.geteuid() == 0


def _kill(process: Program) -> None:
    """Kill a program with all that it has started."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):  # a fork that has no group of its own yet
        os.killpg(process.pid, signal.SIGKILL)
        return
    with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
        os.kill(process.pid, signal.SIGKILL)


def _name_or(name: Callable[[], str], number: int) -> str:
    try:
        return name()
    except KeyError:  # of another machine, or of a user who has been removed
        return str(number)


def _missing(reason: str) -> Missing:
    from gpudiag.snapshot import Missing

    return Missing(reason)


def _ended(process: Program, pipes: Pipes, timeout_s: float) -> bool:
    """Whether a program ends within *timeout_s* seconds; what it prints is read meanwhile."""
    until = time.monotonic() + timeout_s
    if not pipes.read(until=until):
        return False
    try:
        process.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return True
