"""The clock on the wall jumps, for real: every process below sees it do so, through the C library.

It swings by a day, twenty times a second, or is set on or back by three years halfway. Nothing may
wait for it, no duration be negative, no result be another one.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("torch")

import noise
from training_runs import write_split

TESTS = Path(__file__).parent.parent
DAY_S, THREE_YEARS_S = 86_400, 94_608_000
SWINGS = "swings"
JUMPS = {"set on": THREE_YEARS_S, "set back": -THREE_YEARS_S}
KINDS = [SWINGS, *(pytest.param(kind, marks=pytest.mark.slow) for kind in JUMPS)]
TABLES = ("per_class.csv", "confusion_matrix.csv")
LONGEST_S = 120


@pytest.fixture(scope="module")
def clock(tmp_path_factory):
    """The library that stands between a program and the clock."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is missing, and the clock that jumps is built with it")
    library = tmp_path_factory.mktemp("clock") / "jumping_clock.so"
    source = Path(__file__).parent / "jumping_clock.c"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", library, source], check=True)
    return library


def under(clock, kind, *, after_s):
    """The environment in which the clock jumps, when so many seconds have passed from now."""
    if kind == SWINGS:
        how = {"JUMP_S": DAY_S, "JUMP_AT": 0, "JUMP_BACK_S": 0.05}
    else:
        how = {"JUMP_S": JUMPS[kind], "JUMP_AT": time.monotonic() + after_s}
    return {"LD_PRELOAD": str(clock)} | {name: str(value) for name, value in how.items()}


def run(*command, env, cwd=TESTS):
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS)} | env,
        timeout=LONGEST_S,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    return done, time.monotonic() - began


def halfway(took_s):
    return took_s / 2


@pytest.mark.parametrize("kind", KINDS)
def test_the_clock_that_programs_see_really_jumps(clock, kind):
    script = (
        "import time, datetime as d\n"
        "at = [(time.time(), d.datetime.now().timestamp(), time.sleep(0.04)) for _ in range(30)]\n"
        "steps = [b - a for one in (0, 1) for (a, b) in "
        "zip([x[one] for x in at], [x[one] for x in at[1:]])]\n"
        "print(round(max(steps)), round(min(steps)))"
    )

    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | under(clock, kind, after_s=0.6),
        capture_output=True,
        text=True,
        check=True,
    )

    furthest = {SWINGS: (2 * DAY_S, -2 * DAY_S)}
    furthest |= {"set on": (THREE_YEARS_S, 0), "set back": (0, -THREE_YEARS_S)}
    assert tuple(map(int, done.stdout.split())) == furthest[kind]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A folder with a checkpoint and its evaluation by a steady clock, and how long that took."""
    folder = tmp_path_factory.mktemp("evaluated")
    noise.write_checkpoint(folder / "net.pth")
    return folder, run(*evaluation(folder, folder / "steady"), env={"NOISE_SLEEP": "0.001"})[1]


def evaluation(folder, out):
    return (
        *("evalkit", "evaluate", "--checkpoint", folder / "net.pth", "--data", "noise:noise"),
        *("--model", "noise:conv_net", "--device", "cpu", "--workers", "1", "--out", out),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_an_evaluation_is_the_same_and_its_pace_true(clock, evaluated, tmp_path, kind):
    folder, usual_s = evaluated
    env = under(clock, kind, after_s=halfway(usual_s)) | {"NOISE_SLEEP": "0.001"}

    _, took_s = run(*evaluation(folder, tmp_path / "out"), env=env)

    for table in TABLES:
        assert (tmp_path / "out" / table).read_bytes() == (folder / "steady" / table).read_bytes()
    pace = json.loads((tmp_path / "out/summary.json").read_text())["throughput"]
    assert 0.001 * noise.SAMPLES < pace["seconds"] < took_s
    assert noise.SAMPLES / took_s < pace["samples_per_second"] < 1000


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with images and a training by a steady clock, and how long that took."""
    folder = tmp_path_factory.mktemp("trained")
    write_split(folder / "data")
    return folder, run(*training(folder, folder / "steady"), env={})[1]


def training(folder, out):
    return (
        *("evalkit", "train", "--data", folder / "data", "--model", "training_runs:tiny_net"),
        *("--out", out, "--device", "cpu", "--epochs", 3, "--batch-size", 8, "--workers", 1),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_is_the_same_and_its_pace_true(clock, trained, tmp_path, kind):
    folder, usual_s = trained

    env = under(clock, kind, after_s=halfway(usual_s))
    _, took_s = run(*training(folder, tmp_path / "out"), env=env)

    log, steady = (pd.read_csv(at / "log.csv") for at in (tmp_path / "out", folder / "steady"))
    timed = ["seconds", "samples_per_second", "peak_memory_bytes"]
    pd.testing.assert_frame_equal(log.drop(columns=timed), steady.drop(columns=timed))
    assert (log["seconds"] > 0).all()
    assert log["seconds"].sum() < took_s
    assert (log["samples_per_second"] > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_counts_its_seconds_from_zero_upwards(clock, nvml, tmp_path, kind):
    program = ("record", "--interval", "0.1", "--output", "out", "--", "sleep", "2")
    env = nvml("healthy_8") | under(clock, kind, after_s=1.5)

    done, took_s = run("gpudiag", *program, env=env, cwd=tmp_path)

    with (tmp_path / "out/record.csv").open() as file:
        rows = list(csv.DictReader(file))
    seconds = [float(row["time_s"]) for row in rows if row["gpu"] == "0"]
    assert len(seconds) > 5
    assert seconds == sorted(seconds)
    assert seconds[0] >= 0
    assert 1 < seconds[-1] < took_s
    assert " -" not in done.stderr


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scenario", ["healthy_8", "hangs_halfway"])
def test_a_diagnosis_is_the_same_and_waits_no_longer(clock, nvml, scenario, kind):
    def diagnosis(env):
        command = ("diagnose", "--no-torch", "--timeout", 3, "--format", "json", "--no-config")
        done, took_s = run("gpudiag", *command, "--fail-on", "never", env=nvml(scenario) | env)
        return json.loads(done.stdout), took_s

    steady, usual_s = diagnosis({})
    jumped, took_s = diagnosis(under(clock, kind, after_s=halfway(usual_s)))

    assert told(jumped) == told(steady)
    assert datetime.fromisoformat(jumped["snapshot"]["taken_at"])
    assert took_s < usual_s + 10


def told(report):
    """What a diagnosis says that does not depend on the load of this machine."""
    findings = [(one["id"], one["subject"]) for one in report["findings"]]
    return sorted(findings, key=str), sorted(report["passed"]), sorted(report["skipped"])
