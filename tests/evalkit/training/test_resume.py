"""Training that was broken off goes on as if nothing had happened, bit for bit on the CPU."""

import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from training_runs import FULL, differences, tiny_net, write_split

from evalkit.errors import InputError
from evalkit.run.unfinished import begun
from evalkit.training.checkpoints import Checkpoints
from evalkit.training.job import prepare
from evalkit.training.stopping import StopRequest

TESTS = Path(__file__).parents[2]
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS)}
TIMES = ["samples_per_second", "peak_memory_bytes", "seconds"]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.set_rng_state(states[2])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_split(tmp_path_factory.mktemp("resume") / "data")


def job(data, out, **choices):
    usual = {"recipe": FULL, "device": "cpu", "workers": 0, "resume": True}
    return prepare(data, "training_runs:tiny_net", out=out, **(usual | choices))


def weights(out):
    kept = torch.load(out / "last.pth", weights_only=True)
    return {key: kept[key] for key in ("state_dict", "state_dict_ema", "optimizer", "scheduler")}


def log(out):
    return pd.read_csv(out / "log.csv").drop(columns=TIMES)


def test_killed_twenty_times_at_random_the_weights_are_those_of_a_training_never_killed(tmp_path):
    done = subprocess.run(
        [sys.executable, TESTS / "kill_trainings.py", tmp_path, "20"],
        capture_output=True,
        text=True,
        env=ONE_THREAD,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["killed"] == 20
    assert found["differences"] == []


def test_the_comparison_would_see_a_difference(data, tmp_path):
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):
        recipe = replace(FULL, seed=seed, epochs=2)
        list(job(data, tmp_path / name, recipe=recipe).epochs())

    one, same, other = (weights(tmp_path / name) for name in ("one", "same", "other"))
    assert differences(one, same) == []
    assert len(differences(one, other)) > 10


class StopAfter(StopRequest):
    """Asks to stop when it is looked at for the n-th time: after a step or a validation batch."""

    def __init__(self, looks):
        self.looks = looks

    @property
    def is_made(self):
        self.looks -= 1
        return self.looks <= 0


def test_stopped_after_any_number_of_steps_it_goes_on_exactly(data, tmp_path):
    list(job(data, tmp_path / "whole").epochs())
    out, attempts, steps, done = tmp_path / "in pieces", 0, [], []
    while len(done) < FULL.epochs:
        ready = job(data, out, workers=0 if attempts % 3 else 2)
        attempts += 1
        for _record in ready.epochs(stop=StopAfter(1 + attempts % 4)):
            pass
        position = torch.load(out / "last.pth", weights_only=True)["position"]
        steps.append(position["step"])
        done = position["records"]

    assert attempts > FULL.epochs
    assert len(set(steps) - {0}) >= 3  # within epochs as well, and before validation
    assert differences(weights(tmp_path / "whole"), weights(out)) == []
    assert log(tmp_path / "whole").equals(log(out))


def started(data, out):
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "evalkit", "train", "--data", data, "--out", out),
            *("--model", "training_runs:tiny_net", "--epochs", "400", "--batch-size", "8"),
            *("--device", "cpu", "--workers", "2"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ONE_THREAD,
        start_new_session=True,
    )


def wait_for_epochs(out, number, process):
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if (out / "log.csv").exists() and len(log(out)) >= number:
            return
        time.sleep(0.02)
    raise AssertionError(process.communicate())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_training_with_the_command_that_goes_on(data, tmp_path, number, code):
    """Sent to the whole group, as by Ctrl-C on a terminal: workers must not die of it."""
    out = tmp_path / "run"
    process = started(data, out)
    wait_for_epochs(out, 2, process)

    os.killpg(process.pid, number)
    said, complained = process.communicate(timeout=60)

    assert process.returncode == code, complained
    name = signal.Signals(number).name
    first, rest = complained.strip().split("; go on with: ")
    assert first == f"evalkit: stopped by {name}, saved in {out}"
    assert rest.endswith("--device cpu --workers 2 --resume")
    kept = torch.load(out / "last.pth", weights_only=True)
    assert len(kept["position"]["records"]) == len(log(out)) == len(said.splitlines())
    assert sorted(path.name for path in out.iterdir() if path.name.startswith(".")) == []


@pytest.mark.parametrize("choice", [["--resume"], []])
def test_a_second_training_does_not_disturb_one_at_work(data, tmp_path, choice):
    out = tmp_path / "run"
    process = started(data, out)
    wait_for_epochs(out, 1, process)
    command = [*process.args, *choice]
    second = subprocess.run(command, capture_output=True, text=True, env=ONE_THREAD, check=False)
    wait_for_epochs(out, len(log(out)) + 1, process)  # it goes on

    process.terminate()
    _said, complained = process.communicate(timeout=60)

    assert process.returncode == 143, complained
    assert second.returncode == 2
    who = f"process {process.pid} on {platform.node()}, since "
    begin = f"evalkit: out must be free of other runs, got {out} with {who}"
    assert second.stderr.startswith(begin)
    assert second.stderr.endswith(", at work: wait for it, or choose another folder\n")
    assert second.stderr.count("\n") == 1


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_training_that_is_prepared_is_not_disturbed_either(data, tmp_path, has_begun):
    """By one that would clean up, and write which samples it has drawn, before it finds out."""
    early = job(data, tmp_path)
    epochs = early.epochs()
    if has_begun:
        next(epochs)
    unfinished = tmp_path / ".last.pth.0123abcd.tmp"
    unfinished.touch()

    with pytest.raises(InputError, match="out must be free of other runs"):
        job(data, tmp_path)

    assert unfinished.exists()
    early.checkpoints.let_go()
    assert not (tmp_path / ".lock").exists()


def test_a_training_and_an_evaluation_keep_out_of_each_others_way(data, tmp_path):
    early = job(data, tmp_path)

    with (
        pytest.raises(InputError, match="out must be free of other runs"),
        begun(tmp_path, {}, resume=False),
    ):
        pass

    early.checkpoints.let_go()
    with (
        begun(tmp_path, {}, resume=False),
        pytest.raises(InputError, match="out must be free of other runs"),
    ):
        job(data, tmp_path)


def test_a_training_whose_folder_was_removed_ends(data, tmp_path):
    out = tmp_path / "run"
    epochs = job(data, out).epochs()
    next(epochs)
    shutil.rmtree(out)

    with pytest.raises(InputError, match="expected the folder that this training began in, got"):
        list(epochs)

    assert not out.exists()


def test_the_lock_of_a_dead_training_is_not_in_the_way(data, tmp_path):
    recipe = replace(FULL, epochs=1, warm_up=0)
    (tmp_path / ".lock").write_text('{"process": 1, "host": "gone", "since": "long ago"}')

    list(job(data, tmp_path, recipe=recipe, resume=False).epochs())

    assert (tmp_path / "last.pth").exists()


def test_resuming_what_is_done_only_reports_again(data, tmp_path):
    recipe = replace(FULL, epochs=1, warm_up=0)
    list(job(data, tmp_path, recipe=recipe).epochs())
    before = (tmp_path / "last.pth").read_bytes()

    again = job(data, tmp_path, recipe=recipe)

    assert list(again.epochs()) == []
    assert (tmp_path / "last.pth").read_bytes() == before
    assert again.report().summary["samples"] == 12


def test_other_options_are_refused_and_named(data, tmp_path):
    recipe = replace(FULL, epochs=1, warm_up=0)
    list(job(data, tmp_path, recipe=recipe).epochs())
    other = replace(recipe, learning_rate=0.5, mixup=0.0)

    with pytest.raises(InputError) as error:
        job(data, tmp_path, recipe=other)

    assert str(error.value) == (
        f"resume must have the options that the training in {tmp_path} began with, got another "
        "learning_rate 0.01 (now 0.5), mixup 0.4 (now 0.0)"
    )


def test_how_it_is_computed_may_be_another(data, tmp_path):
    """As the advice for too little memory has it: smaller parts, another precision."""
    ready = job(data, tmp_path, checkpoint_every=1)
    for _record in ready.epochs(stop=StopRequest(signal=15)):
        pass

    recipe = replace(FULL, accumulate=4, precision="bf16")
    records = list(job(data, tmp_path, recipe=recipe).epochs())

    assert [record.epoch for record in records] == [1, 2, 3, 4]


def test_other_data_is_refused(tmp_path):
    data = write_split(tmp_path / "data")
    recipe = replace(FULL, epochs=1, warm_up=0)
    list(job(data, tmp_path / "run", recipe=recipe).epochs())
    (data / "train/left/0.png").rename(data / "train/left/zero.png")

    with pytest.raises(InputError, match=r"another data .*train \(other files or labels now\)$"):
        job(data, tmp_path / "run", recipe=recipe)


def test_without_resume_a_training_is_not_overwritten(data, tmp_path):
    recipe = replace(FULL, epochs=1, warm_up=0)
    list(job(data, tmp_path, recipe=recipe).epochs())

    with pytest.raises(InputError) as error:
        job(data, tmp_path, recipe=recipe, resume=False)

    assert str(error.value) == (
        f"out must be another folder than that of a training, got {tmp_path} with last.pth, "
        "best.pth, log.csv of a training: go on by resume=True, or choose another"
    )


def test_a_log_without_a_checkpoint_is_not_overwritten(data, tmp_path):
    recipe = replace(FULL, epochs=1, warm_up=0)
    list(job(data, tmp_path, recipe=recipe).epochs())
    (tmp_path / "last.pth").unlink()

    with pytest.raises(InputError, match=r"with log\.csv without last\.pth to go on from"):
        job(data, tmp_path, recipe=recipe)


def test_a_checkpoint_of_somebody_else_is_no_state(tmp_path):
    torch.save({"state_dict": tiny_net().state_dict()}, tmp_path / "last.pth")

    with pytest.raises(InputError, match="got one without the state of training"):
        Checkpoints(tmp_path).last()


def test_a_damaged_checkpoint_is_one_line_with_the_way_out(tmp_path):
    (tmp_path / "last.pth").write_bytes(b"PK\x03\x04 and then nothing")

    with pytest.raises(InputError, match=r"copy one of epoch_\*\.pth over it$"):
        Checkpoints(tmp_path).last()
