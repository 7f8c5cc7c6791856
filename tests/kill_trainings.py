"""Train once undisturbed, then again and again with SIGKILL at random moments, until so many fell.

Every attempt is a process of its own, forked where torch has been imported. Usage:
``python kill_trainings.py FOLDER KILLS``; prints as JSON how many attempts were killed and what
differs in the end.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import pandas as pd
import torch
from training_runs import FULL, differences, write_split

from evalkit.models import import_torchvision
from evalkit.training.job import prepare

import_torchvision()  # once, here, and not in every process anew

TIMES = ["samples_per_second", "peak_memory_bytes", "seconds"]


def attempt(folder, out, workers):
    """Train until it is done, in a process of its own; return its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        torch.set_num_threads(1)
        job = prepare(
            folder / "data",
            "training_runs:tiny_net",
            out=out,
            recipe=FULL,
            resume=True,
            device="cpu",
            workers=workers,
            checkpoint_every=1,
        )
        for _record in job.epochs():
            pass
        code = 0
    except BaseException:  # noqa: BLE001 - whatever it is, the parent must see it
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(child, seconds):
    """Wait that long for a process; whether it ended, with 0, by itself."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            if status:
                raise SystemExit(f"training ended with {status}")
            return True
        time.sleep(0.002)
    return False


def kill(child):
    os.kill(child, signal.SIGKILL)  # its workers notice and end by themselves
    os.waitpid(child, 0)


def compared(reference, out):
    """What differs between two trainings that are done."""
    one, other = (torch.load(at / "last.pth", weights_only=True) for at in (reference, out))
    for kept in (one, other):
        for timed in (kept["position"], *kept["position"]["records"]):
            for name in TIMES:
                timed.pop(name, None)
        del kept["environment"]
    logs = [pd.read_csv(at / "log.csv").drop(columns=TIMES) for at in (reference, out)]
    same_log = logs[0].equals(logs[1]) and logs[1]["epoch"].tolist() == [1, 2, 3, 4]
    return differences(one, other) + ([] if same_log else [f"{out.name}/log.csv"])


def main(folder, kills):
    write_split(folder / "data")
    clock = random.Random(0)
    began = time.monotonic()
    if not ended(attempt(folder, folder / "undisturbed", 0), 120):
        raise SystemExit("training did not end")
    usual = time.monotonic() - began
    killed, trainings, found, unfinished = 0, 0, [], 0
    while killed < kills:
        trainings += 1
        out = folder / f"killed_{trainings}"
        while True:
            child = attempt(folder, out, clock.choice([0, 0, 2]))
            patience = clock.uniform(0.2, 0.9) * usual if killed < kills else 120
            if ended(child, patience):
                break
            kill(child)
            killed += 1
            unfinished += len(list(out.glob(".*.tmp")))
        found += compared(folder / "undisturbed", out)
        left = [path.name for path in out.iterdir() if path.name.startswith(".")]
        found += [f"{out.name}/{name} is left" for name in left]
    sys.stdout.write(
        json.dumps(
            {
                "killed": killed,
                "trainings": trainings,
                "half-written files": unfinished,
                "differences": found,
                "seconds of one": usual,
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
