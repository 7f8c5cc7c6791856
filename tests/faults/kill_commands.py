"""Run a command again and again with SIGKILL at random moments, until so many runs fell.

Every run is a process of its own, forked where torch has been imported. Usage:
``python kill_commands.py evaluate|report FOLDER KILLS``; prints as JSON how many runs were killed
and what was lost or differs from a run that nothing happened to.
"""

from __future__ import annotations

import json
import random
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
import noise
from killing import killed_until_whole, seconds_of

from evalkit.cli import cli

TABLES = ("per_class.csv", "confusion_matrix.csv")


def arguments(name, folder, out):
    """The command line that writes into *out*."""
    if name == "report":
        return ["report", str(folder / "whole" / "predictions.parquet"), "--out", str(out)]
    return [
        *("evaluate", "--checkpoint", str(folder / "net.pth"), "--data", "noise:noise"),
        *("--model", "noise:conv_net", "--device", "cpu", "--batch-size", "50"),
        *("--workers", "1", "--out", str(out), "--resume"),
    ]


def command(line):
    """Run a command line in this process."""
    cli.main(line, standalone_mode=False)


def differences(whole, out):
    """The tables that are not byte by byte those of a run that nothing happened to."""
    return [
        f"{out.name}/{name}"
        for name in TABLES
        if (out / name).read_bytes() != (whole / name).read_bytes()
    ]


def half_written(out):
    """Names of what a reader could take for a whole result and is none."""
    cut_off = []
    for name in (*TABLES, "summary.json"):
        path = out / name
        if path.exists() and not path.read_bytes().endswith(b"\n"):
            cut_off.append(f"{out.name}/{name}")
    return cut_off


def main(name, folder, kills):
    clock = random.Random(0)
    noise.write_checkpoint(folder / "net.pth")
    whole = folder / "whole"
    usual_s = seconds_of(partial(command, arguments("evaluate", folder, whole)))
    if name == "report":
        usual_s = seconds_of(partial(command, arguments(name, folder, folder / "usual")))
    killed, runs, found = 0, 0, []
    while killed < kills:
        runs += 1
        out = folder / f"{name}_{runs}"
        for _ in killed_until_whole(
            lambda out=out: partial(command, arguments(name, folder, out)),
            most=kills - killed,
            patience=lambda: clock.uniform(0.02, 0.95) * usual_s,
        ):
            killed += 1
            found += half_written(out)
        found += differences(whole, out)
        left = [path.name for path in out.iterdir() if path.name.startswith(".")]
        found += [f"{out.name}/{left_over} is left" for left_over in left]
    sys.stdout.write(json.dumps({"killed": killed, "runs": runs, "lost": found}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
