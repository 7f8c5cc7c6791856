"""gpudiag beside gpustat, nvitop, torch's collect_env and a bare import, on simulated GPUs.

env-doctor asks the network first, so that its time is the network's: it is not among them.

Run alone: python benchmarks/diagnose.py
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent.parent / "tests"
sys.path.insert(0, str(TESTS))
from nvml_simulator import simulator  # noqa: E402 - found by the line above

BIN = Path(sys.executable).parent
GPUDIAG = str(BIN / "gpudiag")
COLD_ROUNDS = 2  # the first runs fill the page cache


def run() -> list[dict[str, Any]]:
    """Each comparison in one run, alternating; medians, and the spread of the paired ratios."""
    # As for an installed package, which pip has compiled: an editable one must be allowed to.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as folder:
        library = simulator.build(Path(folder) / "library")
        eight = os.environ | simulator.environment("healthy_8", library)
        values = simulator.changed(simulator.read("healthy_8"), {}, gpus=64)
        scenario = simulator.write(values, Path(folder) / "sixty_four.scenario")
        sixty_four = os.environ | simulator.environment(scenario, library)
        quick = [GPUDIAG, "diagnose", "--no-torch"]
        facts = [GPUDIAG, "snapshot", "--no-torch"]
        collect_env = [sys.executable, "-m", "torch.utils.collect_env"]
        bare_torch = [sys.executable, "-c", "import torch"]
        rows = [
            _absolute("gpudiag --help", [GPUDIAG, "--help"], 0.15),
            *(
                _pair(
                    f"{ours[1]} --no-torch / {' '.join(peer)}",
                    ours,
                    _tool(*peer),
                    target=1.0,
                    environment=eight,
                )
                for ours, peer in (
                    (quick, ("gpustat",)),
                    (quick, ("nvitop", "-1")),
                    (facts, ("gpustat", "--json")),
                )
            ),
            *(
                _pair(
                    f"{name} / import torch",
                    [GPUDIAG, name],
                    bare_torch,
                    target=1.15,
                    environment=eight,
                    rounds=5,
                )
                for name in ("diagnose", "snapshot")
            ),
            _pair(
                "diagnose / python -m torch.utils.collect_env",
                [GPUDIAG, "diagnose"],
                collect_env,
                target=1.0,
                environment=eight,
                rounds=5,
            ),
            _growth(facts, eight, sixty_four),
            _memory(facts, eight),
        ]
    return [row for row in rows if row is not None]


def _tool(name: str, *arguments: str) -> list[str] | None:
    path = BIN / name
    return [str(path), *arguments] if path.exists() else None


def _seconds(command: list[str], environment: dict[str, str] | None) -> float:
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    elapsed = time.perf_counter() - started
    if done.returncode not in {0, 1} or not (done.stdout or command[0] == sys.executable):
        raise RuntimeError(f"{command} failed: {done.stderr.decode()[-500:]}")
    return elapsed


def _absolute(name: str, command: list[str], target: float, rounds: int = 15) -> dict[str, Any]:
    times = [_seconds(command, None) for _ in range(COLD_ROUNDS + rounds)][COLD_ROUNDS:]
    median = statistics.median(times)
    spread = (min(times), max(times))
    return _row(name, median, spread=spread, target=f"at most {target:g} s")


def _pair(
    name: str,
    ours: list[str],
    peer: list[str] | None,
    *,
    target: float,
    environment: dict[str, str],
    rounds: int = 15,
) -> dict[str, Any] | None:
    if peer is None:
        return None
    pairs = [
        (_seconds(ours, environment), _seconds(peer, environment))
        for _ in range(COLD_ROUNDS + rounds)
    ][COLD_ROUNDS:]
    ratios = [a / b for a, b in pairs]
    mine, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
    spread = (min(ratios), max(ratios))
    return _row(
        name,
        mine,
        peer_s=theirs,
        ratio=statistics.median(ratios),
        spread=spread,
        target=f"at most {target:g}x",
    )


def _growth(
    command: list[str], few: dict[str, str], many: dict[str, str], rounds: int = 15
) -> dict[str, Any]:
    costs = [
        (_seconds(command, many) - _seconds(command, few)) / 56 for _ in range(COLD_ROUNDS + rounds)
    ][COLD_ROUNDS:]
    spread = (min(costs), max(costs))
    median = statistics.median(costs)
    return _row("each GPU from 8 to 64", median, spread=spread, target="at most 0.002 s")


def _memory(command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """The largest resident set of the command and of any of its children, in MiB."""
    program = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=-3); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", program, *command],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    mib = int(done.stdout) / 1024
    return {
        "comparison": f"peak memory of snapshot --no-torch: {mib:.0f} MiB",
        "ours_s": None,
        "peer_s": None,
        "ratio": None,
        "spread": None,
        "target": "at most 60 MiB",
    }


def _row(
    name: str,
    ours_s: float,
    *,
    spread: tuple[float, float],
    target: str,
    peer_s: float | None = None,
    ratio: float | None = None,
) -> dict[str, Any]:
    return {
        "comparison": name,
        "ours_s": ours_s,
        "peer_s": peer_s,
        "ratio": ratio,
        "spread": spread,
        "target": target,
    }


if __name__ == "__main__":
    from table import as_text

    print(as_text(run()))
