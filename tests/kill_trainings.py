"""Train once undisturbed, then again and again with SIGKILL at random moments, until so many fell.

Every attempt is a process of its own, forked where torch has been imported. Usage:
``python kill_trainings.py FOLDER KILLS``; prints as JSON how many attempts were killed and what
differs in the end.
"""

from __future__ import annotations

import json
import random
import sys
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from killing import killed_until_whole, seconds_of
from training_runs import FULL, differences, write_split

from evalkit.models import import_torchvision
from evalkit.training.job import prepare

import_torchvision()  # once, here, and not in every process anew

TIMES = ["samples_per_second", "peak_memory_bytes", "seconds"]


def train(folder, out, workers):
    """Train until it is done, from where a former attempt got to."""
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
    usual_s = seconds_of(partial(train, folder, folder / "undisturbed", 0))
    killed, trainings, found, unfinished = 0, 0, [], 0
    while killed < kills:
        trainings += 1
        out = folder / f"killed_{trainings}"
        for _ in killed_until_whole(
            lambda out=out: partial(train, folder, out, clock.choice([0, 0, 2])),
            most=kills - killed,
            patience=lambda: clock.uniform(0.2, 0.9) * usual_s,
        ):
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
                "seconds of one": usual_s,
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
