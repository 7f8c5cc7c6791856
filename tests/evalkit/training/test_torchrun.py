"""Training by several processes that torchrun starts, on the CPU."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from training_runs import write_split

TESTS = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS)}
ALONE = (sys.executable, "-m", "evalkit")
TOGETHER = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """An odd number of samples everywhere, so that shares differ in size."""
    return write_split(tmp_path_factory.mktemp("torchrun") / "data", counts=(17, 7))


def train(start, data, out, *more):
    return subprocess.run(
        [
            *(*start, "train", "--data", data, "--model", "training_runs:plain_net", "--out", out),
            *("--batch-size", "8", "--image-size", "8", "--device", "cpu", "--workers", "0"),
            *("--flip", "0", "--learning-rate", "0.01", *more),
        ],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=False,
    )


def weights(out, name):
    return torch.load(out / "last.pth", weights_only=True)[name]


def test_two_processes_give_what_one_gives(data, tmp_path):
    more = ("--epochs", "3", "--ema", "0.9", "--clip-norm", "1", "--label-smoothing", "0.1")

    one = train(ALONE, data, tmp_path / "one", *more)
    two = train((*TOGETHER, "2", "-m", "evalkit"), data, tmp_path / "two", *more)

    assert (one.returncode, two.returncode) == (0, 0), one.stderr + two.stderr
    for name in ("state_dict", "state_dict_ema"):
        alone, together = weights(tmp_path / "one", name), weights(tmp_path / "two", name)
        for key, value in alone.items():
            torch.testing.assert_close(together[key], value, rtol=0, atol=1e-5)
    logs = [pd.read_csv(tmp_path / name / "log.csv") for name in ("one", "two")]
    for column in ("train_loss", "validation_loss", "validation_accuracy", "validation_macro_f1"):
        assert (logs[0][column] - logs[1][column]).abs().max() < 1e-5
    assert two.stdout.count("epoch 1/3") == 1  # rank 0 speaks alone
    assert (tmp_path / "two/confusion_matrix.csv").exists()


def test_bad_input_is_said_once_by_all_processes(data, tmp_path):
    done = train((*TOGETHER, "2", "-m", "evalkit"), data, tmp_path / "run", "--warm-up", "20")

    assert done.returncode == 1  # torchrun's own
    said = [line for line in done.stderr.splitlines() if line.startswith("evalkit: ")]
    assert said == ["evalkit: --warm-up must be from 0 to below epochs, 10, got 20.0"]


SIGNALLED_WHILE_THEY_ASK = """
import signal, sys
from evalkit import cli, distributed
import evalkit.training.fit

def late(value):
    found = distributed.gathered(value)
    if value == 0 and not sent:  # nobody was asked to stop, as they find
        sent.append(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
    return found

sent = []
sys.modules["evalkit.training.fit"].gathered = late
cli.main()
"""


def test_a_signal_that_comes_while_they_ask_each_other_is_not_forgotten(data, tmp_path):
    (tmp_path / "late.py").write_text(SIGNALLED_WHILE_THEY_ASK)

    start = (*TOGETHER, "2", tmp_path / "late.py")
    done = train(start, data, tmp_path / "run", "--epochs", "50")

    assert f"evalkit: stopped by SIGTERM, saved in {tmp_path / 'run'}; go on with" in done.stderr
    assert not (tmp_path / "run/report.html").exists()


SLOW_OF_SPEECH = """
import time
from evalkit import cli
from gpudiag import command_line

said = command_line._complain

def late(*message, **more):
    time.sleep(3)
    return said(*message, **more)

command_line._complain = late
cli.main()
"""


def test_bad_input_is_said_however_soon_the_other_processes_end(data, tmp_path):
    (tmp_path / "late.py").write_text(SLOW_OF_SPEECH)

    start = (*TOGETHER, "2", tmp_path / "late.py")
    done = train(start, data, tmp_path / "run", "--warm-up", "20")

    said = [line for line in done.stderr.splitlines() if line.startswith("evalkit: ")]
    assert said == ["evalkit: --warm-up must be from 0 to below epochs, 10, got 20.0"]


def test_sigterm_reaches_all_processes_and_one_goes_on(data, tmp_path):
    out = tmp_path / "run"
    process = subprocess.Popen(
        [
            *(*TOGETHER, "2", "-m", "evalkit", "train", "--data", data, "--out", out),
            *("--model", "training_runs:plain_net", "--epochs", "4000", "--batch-size", "8"),
            *("--image-size", "8", "--device", "cpu", "--workers", "0"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    until = time.monotonic() + 120
    while not (out / "epoch_0002.pth").exists() and time.monotonic() < until:
        time.sleep(0.02)

    process.send_signal(signal.SIGTERM)
    _said, complained = process.communicate(timeout=60)

    assert f"evalkit: stopped by SIGTERM, saved in {out}; go on with: torchrun" in complained
    kept = torch.load(out / "last.pth", weights_only=True)
    assert len(kept["rng"]) == 2
    assert len(pd.read_csv(out / "log.csv")) == len(kept["position"]["records"]) >= 2
