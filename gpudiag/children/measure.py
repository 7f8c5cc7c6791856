"""Measure torch's devices, a line per figure as soon as it is known.

Usage: python measure.py '{"devices": [0, 1], "seconds": 1.0, "quick": false}'
Devices are torch's indices; without any it measures all, without a GPU the CPU. Under torchrun each
rank measures its own device, and all of them their collectives.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from active import (  # type: ignore[import-not-found]  # the folder beside this script
    copies,
    devices,
    products,
    ranks,
    said,
    training,
)
from active.effort import Effort  # type: ignore[import-not-found]


def measure(device: torch.device, effort: Effort) -> None:
    """One device, from what can hardly fail to what may crash."""
    for precision in products.precisions(device):
        attempt_of = (device, products.repeatable, effort, precision)
        said.attempt(f"repeatable {precision}", *attempt_of)
        said.attempt(f"matmul {precision}", device, products.matmul, effort, precision)
    tests: dict[str, Any] = {"copy": copies.within}
    if devices.is_gpu(device):
        tests |= {"host copy": copies.to_and_from_host, "allocation": training.allocation}
    tests |= {
        "launch": training.launch,
        "convolution": training.convolution,
        "training step": training.training_step,
        "memory": copies.memory,
    }
    for test, run in tests.items():
        said.attempt(test, device, run, effort)
    if devices.is_gpu(device):
        torch.cuda.empty_cache()


def main(options: dict[str, Any]) -> None:
    """Measure the devices, then how they reach each other."""
    if devices.WORLD > 1:
        said.label = f"rank {devices.RANK} "
    chosen = devices.chosen(options["devices"])
    if not chosen:
        return
    seconds, quick = float(options["seconds"]), bool(options["quick"])
    effort = Effort(seconds=seconds, quick=quick, sizes=devices.sizes(chosen[0], quick=quick))
    for device in chosen:
        if said.attempt("start", device, devices.describe):
            measure(device, effort)
    if devices.WORLD > 1:
        said.attempt("collectives", chosen[0], ranks.together, effort)
    elif len(chosen) > 1:
        copies.peers(chosen, effort)
    said.say(finished=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
