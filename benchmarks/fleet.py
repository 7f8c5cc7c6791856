"""gpudiag fleet over 1,000 snapshots of machines with eight GPUs; no peer compares machines.

Run alone: python benchmarks/fleet.py
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from gpudiag.host import Host
from gpudiag.probes import take_snapshot
from gpudiag.snapshot import Environment, Package, Snapshot, TorchBuild, Variable, known

TESTS = Path(__file__).parent.parent / "tests"
sys.path.insert(0, str(TESTS))
from nvml_simulator import simulator  # noqa: E402 - found by the line above

MACHINES = 1_000
ODD = 0.01  # of the machines, in each way
ROUNDS = 5
TARGET_S = 5.0
GPUDIAG = str(Path(sys.executable).parent / "gpudiag")


def run() -> list[dict[str, Any]]:
    """The whole command, from its start to its last line, for the text and for JSON."""
    with tempfile.TemporaryDirectory() as folder:
        nodes = Path(folder) / "nodes"
        nodes.mkdir()
        _write(_eight_gpus(Path(folder)), nodes)
        return [_timed(form, nodes) for form in ("text", "json")]


def _eight_gpus(folder: Path) -> Snapshot:
    """What gpudiag sees of the simulated machine, with a torch and its packages added."""
    library = simulator.build(folder / "library")
    environment = os.environ | simulator.environment("healthy_8", library)
    seen = take_snapshot(Host(environment=environment), torch=False)
    packages = tuple(
        Package(name=f"nvidia-library-{number}", version="12.8.90", folder="site-packages")
        for number in range(30)
    )
    return replace(
        seen,
        torch=TorchBuild(
            version="2.9.0+cu128",
            cuda_version="12.8",
            import_error=None,
            arch_list=("sm_80", "sm_90"),
            cuda_available=True,
        ),
        packages=replace(seen.packages, installed=packages),
    )


def _write(usual: Snapshot, folder: Path) -> None:
    chance = random.Random(1)
    for number in range(MACHINES):
        node = usual
        if chance.random() < ODD:
            node = replace(node, nvml=replace(node.nvml, driver_version="535.104.05"))
        if chance.random() < ODD:
            variables = (Variable(name="NCCL_P2P_DISABLE", value="1"),)
            node = replace(node, environment=Environment(variables=variables, misspelt=()))
        if chance.random() < ODD:
            first, *others = known(node.nvml.gpus)
            hot = replace(first, clock_event_reasons=0x40)
            node = replace(node, nvml=replace(node.nvml, gpus=(hot, *others)))
        (folder / f"node{number:04}.json").write_text(node.to_json())


def _timed(form: str, nodes: Path) -> dict[str, Any]:
    command = [GPUDIAG, "fleet", str(nodes), "--format", form]
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        done = subprocess.run(command, check=False, capture_output=True)
        times.append(time.perf_counter() - start)
        if done.returncode != 1:
            raise RuntimeError(f"expected odd ones, got {done.returncode}: {done.stderr.decode()}")
    return {
        "comparison": f"gpudiag fleet, {MACHINES} snapshots of 8 GPUs, {form}",
        "ours_s": statistics.median(times),
        "peer_s": None,
        "ratio": None,
        "spread": (min(times), max(times)),
        "target": TARGET_S,
    }


if __name__ == "__main__":
    from table import as_text

    print(as_text(run()))
