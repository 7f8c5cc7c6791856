"""Run a command again and again with SIGKILL at random moments, until so many runs fell.

Every run is a process of its own, forked where torch has been imported. Usage:
``python kill_commands.py evaluate|report FOLDER KILLS``; prints as JSON how many runs were killed
and what was lost or differs from a run that nothing happened to.
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

sys.path.insert(0, str(Path(__file__).parent.parent))
import noise
import torch

from evalkit.cli import cli

TABLES = ("per_class.csv", "confusion_matrix.csv")
ENOUGH_S = 120


def arguments(name, folder, out):
    """The command line that writes into *out*."""
    if name == "report":
        return ["report", str(folder / "whole" / "predictions.parquet"), "--out", str(out)]
    return [
        *("evaluate", "--checkpoint", str(folder / "net.pth"), "--data", "noise:noise"),
        *("--model", "noise:conv_net", "--device", "cpu", "--batch-size", "50"),
        *("--workers", "1", "--out", str(out), "--resume"),
    ]


def begin(command):
    """Run a command in a process of its own and return its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setpgid(0, 0)
        torch.set_num_threads(1)
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - until the process ends
        cli.main(command, standalone_mode=False)
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
                raise SystemExit(f"the command ended with {status}")
            return True
        time.sleep(0.002)
    return False


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
    began = time.monotonic()
    if not ended(begin(arguments("evaluate", folder, whole)), ENOUGH_S):
        raise SystemExit("the first run did not end")
    usual = time.monotonic() - began
    killed, runs, found = 0, 0, []
    while killed < kills:
        runs += 1
        out = folder / f"{name}_{runs}"
        while True:
            child = begin(arguments(name, folder, out))
            patience = clock.uniform(0.02, 0.95) * usual if killed < kills else ENOUGH_S
            if ended(child, patience):
                break
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            killed += 1
            found += half_written(out)
        found += differences(whole, out)
        left = [path.name for path in out.iterdir() if path.name.startswith(".")]
        found += [f"{out.name}/{left_over} is left" for left_over in left]
    sys.stdout.write(json.dumps({"killed": killed, "runs": runs, "lost": found}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
