"""Sample the GPUs, a process with its descendants and the machine, a line every interval.

Usage: python -I -S sample.py PID INTERVAL_S FOLDER_OF_PYNVML [careful [GPU,…]]
Careful, it tells the number of each GPU before it asks it, so that the parent knows which one
crashed NVML; those listed are left out. It ends when its standard input ends, so that it never
outlives its parent.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import sys
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

root, interval_s, folder = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
sys.path.append(folder)
careful = len(sys.argv) > 4  # noqa: PLR2004
left_out = {int(word) for word in sys.argv[5].split(",")} if len(sys.argv) > 5 else set()  # noqa: PLR2004
speaking = threading.Lock()
HANGS_AFTER_S = 2.0  # one GPU, or the start of NVML; an answer takes milliseconds
HANGS = f"NVML has not answered for {HANGS_AFTER_S:g} s"
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
        self.handles: list[Any] = [None] * pynvml.nvmlDeviceGetCount()

    def value(self, name: str, *arguments: Any) -> Any:
        """An answer, None where this GPU or this driver gives none."""
        try:
            return getattr(self.n, name)(*arguments)
        except (self.n.NVMLError, AttributeError, UnicodeDecodeError):
            return None  # AttributeError: an older nvidia-ml-py; UnicodeDecodeError: a broken name

    def sample(self, index: int) -> dict[str, Any]:
        """One GPU, the first time with its name; a lost one says why and is asked again."""
        n = self.n
        named: dict[str, Any] = {}
        try:
            if self.handles[index] is None:
                handle = n.nvmlDeviceGetHandleByIndex(index)
                for key, call in (("name", "nvmlDeviceGetName"), ("uuid", "nvmlDeviceGetUUID")):
                    named[key] = self.value(call, handle)
                self.handles[index] = handle
            handle = self.handles[index]
            memory = n.nvmlDeviceGetMemoryInfo(handle)
        except n.NVMLError as error:
            return named | {"index": index, "lost": str(error)}
        rates = self.value("nvmlDeviceGetUtilizationRates", handle)
        power = self.value("nvmlDeviceGetPowerUsage", handle)
        running = self.value("nvmlDeviceGetComputeRunningProcesses", handle) or []
        return named | {
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


class Worker(threading.Thread):
    """Asks NVML in a thread of its own, so that one that hangs holds up nobody else."""

    def __init__(self, gpus: Gpus | None, stuck: set[int | None]) -> None:
        super().__init__(daemon=True)
        self.gpus = gpus
        self.stuck = stuck  # GPUs at which another worker hangs
        self.at: int | None = None  # the GPU that is being asked
        self.given_up: int | None = None  # the GPU at which it hung: another worker goes on
        self.due_s = 0.0  # by the clock of time.monotonic: until then it may take
        self.go, self.done = threading.Event(), threading.Event()
        self.answers: list[dict[str, Any]] = []
        self.no_gpus: str | None = None

    def run(self) -> None:
        """Start NVML, then ask every GPU whenever it is told to."""
        self.gpus = self.gpus or self.started()
        while self.go.wait() and self.given_up is None:
            self.go.clear()
            self.answers = []
            for index in range(len(self.gpus.handles) if self.gpus else 0):
                if self.given_up is None:
                    self.answers.append(self.answer(index))
            self.at = None
            self.done.set()
        self.stuck.discard(self.given_up)  # it answered after all

    def started(self) -> Gpus | None:
        """NVML, None where there is none."""
        try:
            import pynvml
        except ImportError:
            self.no_gpus = "nvidia-ml-py is not installed: pip install nvidia-ml-py"
            return None
        try:
            return Gpus()
        except pynvml.NVMLError as error:
            self.no_gpus = str(error)
            return None

    def answer(self, index: int) -> dict[str, Any]:
        """One GPU, unless it has shown that it should not be asked."""
        if index in left_out:
            return {"index": index, "lost": "NVML crashed when it was asked about this GPU"}
        if index in self.stuck or self.gpus is None:
            return {"index": index, "lost": HANGS}
        self.at, self.due_s = index, time.monotonic() + HANGS_AFTER_S
        if careful:
            say(index)
        return self.gpus.sample(index)


class Watch:
    """What NVML says, without ever waiting for long."""

    def __init__(self) -> None:
        self.stuck: set[int | None] = set()
        self.worker = Worker(None, self.stuck)
        self.worker.start()
        self.late = False
        self.told_none = False

    def samples(self) -> list[dict[str, Any]]:
        """Each GPU; one that hangs is lost, and the others are asked again without it."""
        worker = self.worker
        if not self.late:
            worker.done.clear()
            worker.due_s = time.monotonic() + HANGS_AFTER_S
            worker.go.set()
        self.late = not self.answered()
        if not self.late:
            self.tell(worker)
            return list(worker.answers)
        hangs = worker.at
        if hangs is None:  # NVML itself does not start
            if not self.told_none:
                say({"gpus": [], "no_gpus": HANGS})
            self.told_none = True
            return []
        self.tell(worker)
        self.stuck.add(hangs)
        worker.given_up = hangs
        worker.go.set()
        self.worker, self.late = Worker(worker.gpus, self.stuck), False
        self.worker.start()
        return [*worker.answers, {"index": hangs, "lost": HANGS}]

    def answered(self) -> bool:
        """Whether all GPUs have answered, each within its time."""
        if self.late:
            return self.worker.done.is_set()
        while not self.worker.done.wait(left_s := self.worker.due_s - time.monotonic()):
            if left_s <= 0:
                return False
        return True

    def tell(self, worker: Worker) -> None:
        """Names and UUIDs, once."""
        if worker.no_gpus is not None and not self.told_none:
            say({"gpus": [], "no_gpus": worker.no_gpus})
            self.told_none = True
        names = ("uuid", "name")
        new = [
            {name: one.pop(name) for name in names} | {"index": one["index"]}
            for one in worker.answers
            if "name" in one
        ]
        if new:
            say({"gpus": new})


def say(facts: Any) -> None:
    """Tell the parent."""
    with speaking:
        print(json.dumps(facts), flush=True)


def main() -> None:
    """Sample until standard input ends."""
    watch = Watch()
    due = time.monotonic()
    pids = [root]
    for number in itertools.count():
        pids = descendants(pids, thoroughly=number % THOROUGHLY_EVERY == 0)
        now = time.monotonic()
        common = {"time_s": now, "pids": pids, "cpu_s": cpu_s(pids), **machine()}
        say(common | {"samples": watch.samples()})
        due += interval_s
        wait_s = due - time.monotonic()
        if wait_s < 0:  # NVML was slow, or the machine slept: no samples in a row to catch up
            due, wait_s = time.monotonic(), 0.0
        if select.select([sys.stdin], [], [], wait_s)[0]:
            os._exit(0)  # a thread that hangs in the driver would not let it end


main()
