"""Several processes on one evaluation, started by a real torchrun."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import noise
import pytest
import torch

from evalkit import evaluate
from evalkit.distributed import ALONE, Processes
from evalkit.errors import InputError
from evalkit.run import Options, evaluate_together

TABLES = ("per_class.csv", "confusion_matrix.csv", "predictions.parquet")
TORCHRUN = Path(sys.executable).with_name("torchrun")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return noise.write_checkpoint(tmp_path_factory.mktemp("net") / "net.pth")


@pytest.fixture(scope="module")
def alone(checkpoint, tmp_path_factory):
    """The folder of a run by one process, with one thread as torchrun gives each."""
    out = tmp_path_factory.mktemp("alone") / "out"
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    options = {"model": "noise:conv_net", "device": "cpu", "batch_size": 50}
    evaluate(checkpoint, "noise:noise", out=out, **options)
    torch.set_num_threads(before)
    return out


def torchrun(processes, checkpoint, out, *options, data="noise:noise", **environment):
    command = [
        *(str(TORCHRUN), "--standalone", "--nproc-per-node", str(processes), "-m", "evalkit"),
        *("evaluate", "--checkpoint", str(checkpoint), "--data", data, "--out", str(out)),
        *("--model", "noise:conv_net", "--device", "cpu", "--batch-size", "50", *options),
    ]
    path = {"PYTHONPATH": str(Path(noise.__file__).parent), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=os.environ | path | environment,
    )


def assert_same(out, alone, processes):
    for name in TABLES:
        assert (out / name).read_bytes() == (alone / name).read_bytes(), name
    found, expected = (json.loads((one / "summary.json").read_text()) for one in (out, alone))
    assert found.pop("throughput")["processes"] == processes
    expected.pop("throughput")
    found.pop("command")
    assert found.pop("environment")["threads"] == expected.pop("environment")["threads"]
    assert found == expected
    assert not (out / "unfinished").exists()


def test_a_process_that_dies_ends_the_run_and_others_go_on_with_it(checkpoint, alone, tmp_path):
    out = tmp_path / "out"

    ended = torchrun(2, checkpoint, out, NOISE_KILL_AT="1900", NOISE_KILL_RANK="1")
    left = sorted(path.name for path in (out / "unfinished").glob("shard-*"))
    resumed = torchrun(3, checkpoint, out, "--resume")

    assert ended.returncode == 1
    (line,) = [one for one in ended.stderr.splitlines() if one.startswith("evalkit: ")]
    assert line.endswith(
        (
            "what is written stays valid, --resume goes on with it",
            "--resume goes on with it, with any number of processes",
        )
    )
    assert "internal error" not in ended.stderr
    assert 1 <= len(left) < 4
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.endswith(f"written to {out}\n")  # once, not by all of them
    assert_same(out, alone, 3)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_any_number_of_processes_writes_the_same_tables(checkpoint, alone, tmp_path, processes):
    done = torchrun(processes, checkpoint, tmp_path / "out")

    assert (done.returncode, done.stdout.count("written to")) == (0, 1), done.stderr
    assert_same(tmp_path / "out", alone, processes)


@pytest.mark.slow
def test_bad_input_is_one_line_from_all_of_them(checkpoint, tmp_path):
    done = torchrun(2, checkpoint, tmp_path / "out", data=str(tmp_path / "nowhere"))

    lines = [one for one in done.stderr.splitlines() if one.startswith("evalkit: ")]
    assert done.returncode == 1
    assert len(lines) == 1
    assert lines[0].startswith("evalkit: data must be a folder of class folders")
    assert not (tmp_path / "out").exists()


def test_several_processes_need_a_folder_to_meet_in(checkpoint, monkeypatch):
    monkeypatch.setattr("evalkit.run.line.processes", lambda: Processes(rank=1, size=2))

    with pytest.raises(InputError) as error:
        evaluate_together(checkpoint, "noise:noise", Options())

    assert str(error.value) == (
        "out must be a folder that all processes see, to put their predictions together, got none "
        "for 2 processes"
    )


def test_alone_everything_is_ones_own():
    with pytest.raises(InputError, match="mine"):
        ALONE.agreed(lambda: (_ for _ in ()).throw(InputError("mine")))

    assert ALONE.gathered(3) == [3]


def test_torchrun_is_there():
    assert shutil.which(TORCHRUN)
