"""What `gpudiag record` costs while a program runs, as a fraction of one core.

The processor time of a long run less that of a short one, per second between them, so that the
start and the writing of the files are left out. Eight simulated GPUs, the default interval.

Run alone: python benchmarks/record.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent.parent / "tests"
sys.path.insert(0, str(TESTS))
from nvml_simulator import simulator  # noqa: E402 - found by the line above

GPUDIAG = str(Path(sys.executable).parent / "gpudiag")
SHORT_S, LONG_S = 5, 35
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
    def cpu_s(seconds: int) -> float:
        """Of gpudiag with its sampler, and of the program, which does nothing."""
        out = tempfile.mkdtemp(dir=folder)
        command = [GPUDIAG, "record", "--output", f"{out}/record", "--", sys.executable]
        process = subprocess.Popen(
            [*command, "-c", program, str(seconds)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise RuntimeError(f"gpudiag record ended with {process.returncode}")
        return usage.ru_utime + usage.ru_stime

    return (cpu_s(LONG_S) - cpu_s(SHORT_S)) / (LONG_S - SHORT_S)


if __name__ == "__main__":
    from table import as_text

    print(as_text(run()))
