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


@dataclass(kw_only=True)
class Samples:
    """What has been sampled so far.

    Attributes:
        rows: One per sample and GPU; one per sample where there is no GPU.
        peaks: By process id: the most GPU memory in bytes that it held on one GPU.
        gpus_used: Indices of the GPUs on which the process or a descendant was seen.
        no_gpus: Why there are no GPUs, None where there are.
        gaps: How often the sampling had to be started again.
        first_s: When the first one was taken, by the clock of ``time.monotonic``; None: not yet.
    """

    rows: list[Row] = field(default_factory=list)
    peaks: dict[int, int] = field(default_factory=dict)
    gpus_used: set[int] = field(default_factory=set)
    no_gpus: str | None = None
    gaps: int = 0
    first_s: float | None = None
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
        common = {"time_s": round(said["time_s"] - self.first_s, 3), **self._since_last(said)}
        self._last = said
        mine = set(said["pids"])
        for gpu in said["samples"]:
            for pid, used in gpu.pop("processes", {}).items():
                if int(pid) in mine:
                    self.gpus_used.add(gpu["index"])
                    self.peaks[int(pid)] = max(used, self.peaks.get(int(pid), 0))
            index = gpu.pop("index")
            self._add(common | gpu | self._described.get(index, {}) | {"gpu": index})
        if not said["samples"]:
            self._add(common)

    def chosen_rows(self) -> list[Row]:
        """The rows of the GPUs in use, of all where none was seen to be."""
        if not self.gpus_used:
            return self.rows
        return [row for row in self.rows if row["gpu"] in self.gpus_used]

    def _add(self, row: Row) -> None:
        self.rows.append({column: row.get(column) for column in COLUMNS})

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
