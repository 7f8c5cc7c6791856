"""What `gpudiag record` costs while a program runs, as a fraction of one core.

The processor time of gpudiag and of its sampler while the program runs, without the start and the
writing of the files. Eight simulated GPUs, the default interval.

Run alone: python benchmarks/record.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

TESTS = Path(__file__).parent.parent / "tests"
sys.path.insert(0, str(TESTS))
from nvml_simulator import simulator  # noqa: E402 - found by the line above

GPUDIAG = str(Path(sys.executable).parent / "gpudiag")
START_S, MEASURED_S = 5, 30
TARGET_FRACTION = 0.01
IDLE = "import sys, time; time.sleep(float(sys.argv[1]))"
TRAINER = (  # 16 workers of 50 threads each, all asleep: what the sampler has to look through
    "import os, sys, threading, time\n"
    "for _ in range(16):\n"
    "    if os.fork() == 0:\n"
    "        for _ in range(49): threading.Thread(target=time.sleep, args=(float(sys.argv[1]),))"
    ".start()\n"
    "        break\n"
    "time.sleep(float(sys.argv[1]))"
)


def run() -> list[dict[str, Any]]:
    """One row per program."""
    with tempfile.TemporaryDirectory() as folder:
        library = simulator.build(Path(folder) / "library")
        environment = os.environ | simulator.environment("healthy_8", library)
        return [
            {
                "comparison": f"record, {name}: fraction of one core",
                "ours_s": _fraction(program, Path(folder), environment),
                "target": TARGET_FRACTION,
            }
            for name, program in {
                "a program that sleeps": IDLE,
                "a trainer with 16 workers": TRAINER,
            }.items()
        ]


def _fraction(program: str, folder: Path, environment: dict[str, str]) -> float:
    out = tempfile.mkdtemp(dir=folder)
    seconds = str(START_S + MEASURED_S + 2)
    command = [GPUDIAG, "record", "--output", f"{out}/record", "--", sys.executable]
    with subprocess.Popen(
        [*command, "-c", program, seconds],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as recording:
        time.sleep(START_S)
        ours = _of_gpudiag(recording.pid)
        before_s, started = _cpu_s(ours), time.monotonic()
        time.sleep(MEASURED_S)
        cost_s, passed_s = _cpu_s(ours) - before_s, time.monotonic() - started
    if recording.returncode != 0:
        raise RuntimeError(f"gpudiag record ended with {recording.returncode}")
    return cost_s / passed_s


def _of_gpudiag(pid: int) -> list[psutil.Process]:
    """The recording process and its sampler, without the program that it runs."""
    process = psutil.Process(pid)
    samplers = [one for one in process.children() if any("sample.py" in w for w in one.cmdline())]
    if len(samplers) != 1:
        raise RuntimeError(f"expected one sampler, got {len(samplers)}")
    return [process, *samplers]


def _cpu_s(processes: list[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return sum(one.user + one.system for one in times)


if __name__ == "__main__":
    from table import as_text

    print(as_text(run()))
