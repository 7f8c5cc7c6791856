"""Sample the GPUs of a program while it runs; write what was seen and say what it means."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import threading
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from gpudiag import children
from gpudiag.errors import InputError
from gpudiag.host import Host
from gpudiag.output import write_private
from gpudiag.programs import Stream
from gpudiag.record import chart, verdict
from gpudiag.record.samples import COLUMNS, Row, Samples
from gpudiag.snapshot import Missing

if TYPE_CHECKING:
    import pandas as pd

INTERVAL_S = 1.0
LEAST_INTERVAL_S, MOST_INTERVAL_S = 0.05, 3600.0
MOST_STARTS = 4  # a driver that crashes its callers is left alone after these
PRIVATE = 0o600
NO_NVML = "/nowhere"  # the folder of a pynvml that is not there


class Recording:
    """The samples of a process and its descendants; use it as a context manager.

    Raises:
        InputError: The interval is none.

    Attributes:
        interval_s: Seconds between two samples.
        pid: The process that is sampled with its descendants, by default this one.
        samples: What has been sampled so far, of every GPU.
    """

    def __init__(
        self, *, interval_s: float = INTERVAL_S, pid: int | None = None, host: Host | None = None
    ) -> None:
        if not LEAST_INTERVAL_S <= interval_s <= MOST_INTERVAL_S:
            raise InputError(
                f"expected {LEAST_INTERVAL_S:g} to {MOST_INTERVAL_S:g} seconds between two "
                f"samples, got {interval_s:g}"
            )
        self.interval_s = interval_s
        self._host = host or Host()
        self.pid = self._host.process_id() if pid is None else pid
        self.samples = Samples()
        self._stream: Stream | None = None
        self._asked: int | None = (
            None  # the GPU that the sampler has begun to ask, if it is careful
        )
        self._left_out: set[int] = set()  # GPUs that crash NVML
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._listen, daemon=True, name="gpudiag record")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._closed.set()
            stream = self._stream
        if stream is not None:
            stream.close()
        self._thread.join(1.0)

    @property
    def rows(self) -> list[Row]:
        """One row per sample and GPU in use; see docs/record.md for the columns."""
        return self.samples.chosen_rows()

    @property
    def frame(self) -> pd.DataFrame:
        """The rows as a frame."""
        import pandas as pd

        return pd.DataFrame(self.rows, columns=list(COLUMNS))

    @property
    def peaks(self) -> dict[int, int]:
        """By process id: the most GPU memory in bytes that it held on one GPU."""
        return dict(self.samples.peaks)

    @property
    def verdict(self) -> str:
        """What the GPUs did with their time, and advice."""
        no_gpus = self.samples.no_gpus
        text = verdict.as_text(verdict.gpu_times(self.rows), self.peaks, no_gpus=no_gpus)
        if not self.samples.rows:
            text = "nothing was sampled: it ended before NVML had answered"
        if self.samples.gaps:
            text += f"\n→ the sampling broke off {self.samples.gaps} time(s): NVML crashed"
        return text

    def save(self, folder: str | Path, *, title: str = "gpudiag record") -> tuple[Path, ...]:
        """Write record.csv, record.html, verdict.txt; record.png and .parquet where possible.

        Args:
            folder: Where to; it is made where it is not there. The files are for their owner alone.
            title: What the chart is called.

        Raises:
            InputError: The folder cannot be made or written.
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"expected a folder that can be written for the record, got {folder}: "
                f"{error.strerror}; choose another one"
            ) from None
        rows = self.rows
        texts = {
            "record.csv": _as_csv(rows),
            "record.html": chart.as_html(rows, title=title, verdict=self.verdict),
            "verdict.txt": f"{self.verdict}\n",
        }
        for name, text in texts.items():
            write_private(folder / name, text)
        written = [folder / name for name in texts]
        if chart.save_png(rows, folder / "record.png", title=title):
            written.append(folder / "record.png")
        if _save_parquet(rows, folder / "record.parquet"):
            written.append(folder / "record.parquet")
        for path in written:
            path.chmod(PRIVATE)
        return tuple(written)

    def _listen(self) -> None:
        """Take the child's lines; start it again where NVML took it down.

        Then it tells which GPU it asks, and those that crash NVML are left out. After the last
        start without success, NVML is left out.
        """
        command = children.samples(self.pid, interval_s=self.interval_s)
        for start in range(MOST_STARTS + 1):
            with self._lock:
                if self._closed.is_set():
                    return
                stream = self._host.stream(*self._command(command, start))
                if isinstance(stream, Missing):
                    self.samples.no_gpus = stream.missing
                    return
                self._stream = stream
            for line in stream.lines():
                self._take(line)
            with self._lock:
                if self._closed.is_set():
                    return
                stream.close()
                self.samples.gaps = start + 1
            if self._asked is not None:
                self._left_out.add(self._asked)
            self._asked = None

    def _command(self, command: tuple[str, ...], start: int) -> tuple[str, ...]:
        """How the sampler is started for the first time and after each crash."""
        if start == 0:
            return command
        if start == MOST_STARTS:
            return (*command[:-1], NO_NVML)
        left_out = ",".join(map(str, sorted(self._left_out)))
        return (*command, "careful", *([left_out] if left_out else []))

    def _take(self, line: str) -> None:
        try:
            said = json.loads(line)
        except ValueError:
            return  # cut off by a crash
        if isinstance(said, int):
            self._asked = said
        if isinstance(said, dict) and not self._closed.is_set():
            self._asked = None
            if "no_gpus" in said and self.samples.gaps == MOST_STARTS:
                said["no_gpus"] = f"NVML crashed {MOST_STARTS} times and is left alone"
            self.samples.take(said)


def record_command(
    command: tuple[str, ...], output: Path | None, *, interval_s: float, host: Host | None = None
) -> tuple[int, Recording, Path]:
    """Run a program unchanged and record it.

    Args:
        command: The program and its arguments.
        output: A new folder for the record; None: one that is named after the time.
        interval_s: Seconds between two samples.
        host: The machine.

    Returns:
        Its exit code (128 + the number of the signal that ended it), what was recorded, and the
        folder, which is made before the program starts.

    Raises:
        InputError: The interval is none, the folder cannot be made, or the program cannot be run.
    """
    host = host or Host()
    recording = Recording(interval_s=interval_s, host=host)
    folder = _new_folder(output)

    def begin(pid: int) -> None:
        recording.pid = pid
        recording.__enter__()

    try:
        code = host.attend(command, started=begin)
    except OSError as error:
        folder.rmdir()
        raise InputError(
            f"expected a program to run, got {command[0]!r}: {error.strerror}"
        ) from None
    recording.__exit__(None, None, None)
    return code, recording, folder


def _new_folder(output: Path | None) -> Path:
    """The folder that was asked for, or one that no other record of the same second has."""
    name = f"gpudiag-record-{dt.datetime.now():%Y%m%d-%H%M%S}"  # noqa: DTZ005 - local
    folder = output or Path(name)
    number = 1
    while True:
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            if output is not None or not isinstance(error, FileExistsError):
                raise InputError(
                    f"expected a new folder for the record, got {folder}: {error.strerror}"
                ) from None
            number += 1  # as when srun starts its tasks
            folder = Path(f"{name}-{number}")
        else:
            return folder


def _as_csv(rows: list[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _save_parquet(rows: list[Row], path: Path) -> bool:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        return False
    columns = {name: [row[name] for row in rows] for name in COLUMNS}
    parquet.write_table(pa.table(columns), path)
    return True
