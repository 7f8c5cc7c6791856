"""Sample the GPUs, a process with its descendants and the machine, a line every interval.

Usage: python -I -S sample.py PID INTERVAL_S FOLDER_OF_PYNVML
It ends when its standard input ends, so that it never outlives its parent.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

root, interval_s, folder = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
sys.path.append(folder)
TICKS = os.sysconf("SC_CLK_TCK")
THOROUGHLY_EVERY = 10  # samples
NO_BYTES = 2**64 - 1


def read(path: str) -> str:
    """A small file, empty where there is none."""
    try:
        with open(path) as file:  # noqa: PTH123 - pathlib would triple the time of the start
            return file.read()
    except OSError:
        return ""


def descendants(known: list[int], *, thoroughly: bool) -> list[int]:
    """Those of *known* that live, and every descendant of them.

    A child belongs to the thread that started it. All threads of a trainer with its workers may
    be thousands, so mostly only the first of each process is asked.
    """
    found: dict[int, None] = {}
    left = list(reversed(known))
    while left:
        pid = left.pop()
        if pid in found:
            continue
        try:
            threads = os.listdir(f"/proc/{pid}/task") if thoroughly else [str(pid)]  # noqa: PTH208
        except OSError:
            continue
        if not thoroughly and not os.path.exists(f"/proc/{pid}"):  # noqa: PTH110 - as in read
            continue
        found[pid] = None
        for thread in threads:
            left += map(int, read(f"/proc/{pid}/task/{thread}/children").split())
    return list(found)


def cpu_s(pids: list[int]) -> float:
    """Processor seconds of processes and of their children that have ended."""
    total = 0
    for pid in pids:
        fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        total += sum(map(int, fields[11:15]))
    return total / TICKS


def machine() -> dict[str, Any]:
    """Ticks of all processors (all, idle, waiting for a disk), and memory that is available."""
    ticks = [int(word) for word in read("/proc/stat").partition("\n")[0].split()[1:]]
    available = read("/proc/meminfo").partition("MemAvailable:")[2].split()
    return {
        "ticks": [sum(ticks[:8]), ticks[3], ticks[4]] if ticks else None,
        "memory_available_bytes": int(available[0]) * 1024 if available else None,
    }


class Gpus:
    """The GPUs by handles that are kept."""

    def __init__(self) -> None:
        import pynvml

        self.n = pynvml
        pynvml.nvmlInit()
        self.handles: list[Any] = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                self.handles.append(pynvml.nvmlDeviceGetHandleByIndex(index))
            except pynvml.NVMLError as error:
                self.handles.append(error)

    def described(self) -> list[dict[str, Any]]:
        """What does not change."""
        return [
            {
                "index": index,
                "name": self.value("nvmlDeviceGetName", handle),
                "uuid": self.value("nvmlDeviceGetUUID", handle),
            }
            for index, handle in enumerate(self.handles)
            if not isinstance(handle, self.n.NVMLError)
        ]

    def value(self, name: str, *arguments: Any) -> Any:
        """An answer, None where this GPU or this driver gives none."""
        try:
            return getattr(self.n, name)(*arguments)
        except (self.n.NVMLError, AttributeError, UnicodeDecodeError):
            return None  # AttributeError: an older nvidia-ml-py; UnicodeDecodeError: a broken name

    def samples(self) -> list[dict[str, Any]]:
        """What changes."""
        return [self.sample(index, handle) for index, handle in enumerate(self.handles)]

    def sample(self, index: int, handle: Any) -> dict[str, Any]:
        """One GPU; a lost one says why and is asked again next time."""
        n = self.n
        if isinstance(handle, n.NVMLError):
            return {"index": index, "lost": str(handle)}
        try:
            memory = n.nvmlDeviceGetMemoryInfo(handle)
        except n.NVMLError as error:
            return {"index": index, "lost": str(error)}
        rates = self.value("nvmlDeviceGetUtilizationRates", handle)
        power = self.value("nvmlDeviceGetPowerUsage", handle)
        running = self.value("nvmlDeviceGetComputeRunningProcesses", handle) or []
        return {
            "index": index,
            "utilization_fraction": None if rates is None else rates.gpu / 100,
            "memory_busy_fraction": None if rates is None else rates.memory / 100,
            "memory_used_bytes": memory.used,
            "memory_total_bytes": memory.total,
            "temperature_celsius": self.value("nvmlDeviceGetTemperature", handle, 0),
            "power_watts": None if power is None else power / 1000,
            "clock_sm_mhz": self.value("nvmlDeviceGetClockInfo", handle, n.NVML_CLOCK_SM),
            "clock_event_reasons": self.value("nvmlDeviceGetCurrentClocksThrottleReasons", handle),
            "pcie_generation": self.value("nvmlDeviceGetCurrPcieLinkGeneration", handle),
            "pcie_width_lanes": self.value("nvmlDeviceGetCurrPcieLinkWidth", handle),
            "processes": {
                process.pid: process.usedGpuMemory
                for process in running
                if process.usedGpuMemory not in (None, NO_BYTES)
            },
        }


def say(facts: dict[str, Any]) -> None:
    """Tell the parent."""
    print(json.dumps(facts), flush=True)


def main() -> None:
    """Sample until standard input ends."""
    gpus = None
    try:
        import pynvml
    except ImportError:
        say({"gpus": [], "no_gpus": "nvidia-ml-py is not installed: pip install nvidia-ml-py"})
    else:
        try:
            gpus = Gpus()
            say({"gpus": gpus.described()})
        except pynvml.NVMLError as error:
            say({"gpus": [], "no_gpus": str(error)})
    due = time.monotonic()
    pids = [root]
    for number in itertools.count():
        pids = descendants(pids, thoroughly=number % THOROUGHLY_EVERY == 0)
        say(
            {
                "time_s": time.monotonic(),
                "pids": pids,
                "cpu_s": cpu_s(pids),
                **machine(),
                "samples": gpus.samples() if gpus else [],
            }
        )
        due += interval_s
        wait_s = due - time.monotonic()
        if wait_s < 0:  # NVML was slow, or the machine slept: no samples in a row to catch up
            due, wait_s = time.monotonic(), 0.0
        if select.select([sys.stdin], [], [], wait_s)[0]:
            return


main()
