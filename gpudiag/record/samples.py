"""Lines of the sampling child -> rows of a record, with units in the column names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

COLUMNS = (
    "time_s",
    "gpu",
    "uuid",
    "name",
    "utilization_fraction",
    "memory_busy_fraction",
    "memory_used_bytes",
    "memory_total_bytes",
    "temperature_celsius",
    "power_watts",
    "clock_sm_mhz",
    "clock_event_reasons",
    "pcie_generation",
    "pcie_width_lanes",
    "lost",
    "process_cpus",
    "host_cpu_fraction",
    "host_disk_wait_fraction",
    "host_memory_available_bytes",
)
Row = dict[str, Any]  # None: not told
MOST_ROWS = 100_000  # about 100 MB; of one GPU 28 hours at one sample a second


@dataclass(kw_only=True)
class Samples:
    """What has been sampled so far, in bounded memory.

    Whenever there are too many rows, every second sample is let go, and from then on half as many
    are kept; the most memory of those between two kept ones stays on the later one.

    Attributes:
        rows: One per kept sample and GPU; one per kept sample where there is no GPU.
        peaks: By process id: the most GPU memory in bytes that it held on one GPU.
        gpus_used: Indices of the GPUs on which the process or a descendant was seen.
        no_gpus: Why there are no GPUs, None where there are.
        gaps: How often the sampling had to be started again.
        first_s: When the first one was taken, by the clock of ``time.monotonic``; None: not yet.
        most_rows: How many rows are kept at most.
        stride: One of how many samples is kept.
    """

    rows: list[Row] = field(default_factory=list)
    peaks: dict[int, int] = field(default_factory=dict)
    gpus_used: set[int] = field(default_factory=set)
    no_gpus: str | None = None
    gaps: int = 0
    first_s: float | None = None
    most_rows: int = MOST_ROWS
    stride: int = 1
    _number: int = -1  # of the last sample
    _numbers: list[int] = field(default_factory=list)  # of each row's sample
    _most_bytes: dict[int | None, int] = field(default_factory=dict)  # since the last kept sample
    _described: dict[int, Row] = field(default_factory=dict)
    _last: Row | None = None

    def take(self, said: dict[str, Any]) -> None:
        """One line of the child."""
        if "gpus" in said:
            for gpu in said["gpus"]:
                known = {name: gpu[name] for name in ("uuid", "name") if gpu[name]}
                self._described[gpu["index"]] = self._described.get(gpu["index"], {}) | known
            self.no_gpus = said.get("no_gpus")
            self._last = None
            return
        if self.first_s is None:
            self.first_s = said["time_s"]
        self._number += 1
        kept = self._number % self.stride == 0
        common: Row = {}
        if kept:
            common = {"time_s": round(said["time_s"] - self.first_s, 3), **self._since_last(said)}
            self._last = said
        mine = set(said["pids"])
        for gpu in said["samples"] or [{"index": None}]:
            index = gpu["index"]
            for pid, used in gpu.get("processes", {}).items():
                if int(pid) in mine:
                    self.gpus_used.add(index)
                    self.peaks[int(pid)] = max(used, self.peaks.get(int(pid), 0))
            row = gpu | self._described.get(index, {}) | {"gpu": index}
            self._note_memory(row)
            if kept:
                self._add(common | row)
        if len(self.rows) > self.most_rows:
            self._let_go_of_every_second()

    def chosen_rows(self) -> list[Row]:
        """The rows of the GPUs in use, of all where none was seen to be."""
        if not self.gpus_used:
            return self.rows
        return [row for row in self.rows if row["gpu"] in self.gpus_used]

    def _add(self, row: Row) -> None:
        most = self._most_bytes.pop(row["gpu"], None)
        used = row.get("memory_used_bytes") if most is None else most
        self.rows.append(
            {column: row.get(column) for column in COLUMNS} | {"memory_used_bytes": used}
        )
        self._numbers.append(self._number)

    def _note_memory(self, row: Row) -> None:
        used = row.get("memory_used_bytes")
        if used is not None:
            self._most_bytes[row["gpu"]] = max(used, self._most_bytes.get(row["gpu"], 0))

    def _let_go_of_every_second(self) -> None:
        self.stride *= 2
        numbered = list(zip(self._numbers, self.rows, strict=True))
        self.rows, self._numbers = [], []
        for number, row in numbered:
            self._note_memory(row)
            if number % self.stride == 0:
                row["memory_used_bytes"] = self._most_bytes.pop(row["gpu"], None)
                self.rows.append(row)
                self._numbers.append(number)

    def _since_last(self, said: dict[str, Any]) -> Row:
        row: Row = {"host_memory_available_bytes": said["memory_available_bytes"]}
        last = self._last
        if last is None or not said["ticks"] or not last["ticks"]:
            return row
        ticks = zip(said["ticks"], last["ticks"], strict=True)
        every, idle, disk = (now - then for now, then in ticks)
        seconds = said["time_s"] - last["time_s"]
        if every > 0 and seconds > 0:
            row["host_cpu_fraction"] = round(1 - (idle + disk) / every, 3)
            row["host_disk_wait_fraction"] = round(disk / every, 3)
            row["process_cpus"] = round(max(0.0, said["cpu_s"] - last["cpu_s"]) / seconds, 2)
        return row
