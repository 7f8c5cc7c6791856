"""Runs that were killed, that meet another one, or that find the disk full."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import noise
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from evalkit import evaluate
from evalkit.data.steady import LOOKS
from evalkit.errors import InputError
from evalkit.lock import locked
from evalkit.run.identity import code_of
from evalkit.run.unfinished import begun

TABLES = ("per_class.csv", "confusion_matrix.csv", "predictions.parquet")
OPTIONS = {"model": "noise:conv_net", "device": "cpu", "batch_size": 50, "workers": 1, "checks": 0}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return noise.write_checkpoint(tmp_path_factory.mktemp("net") / "net.pth")


@pytest.fixture(scope="module")
def whole(checkpoint, tmp_path_factory):
    """The folder of a run that nothing happened to."""
    out = tmp_path_factory.mktemp("whole") / "out"
    evaluate(checkpoint, "noise:noise", out=out, **OPTIONS)
    return out


def run(checkpoint, out, *options, environment=None):
    """The same run on the command line, in a process of its own."""
    command = [
        *(sys.executable, "-m", "evalkit", "evaluate", "--checkpoint", str(checkpoint)),
        *("--data", "noise:noise", "--model", "noise:conv_net", "--device", "cpu"),
        *("--batch-size", "50", "--workers", "1", "--checks", "0", "--out", str(out), *options),
    ]
    path = os.pathsep.join([str(Path(noise.__file__).parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | (environment or {}),
    )


def message_of(*arguments, **options):
    with pytest.raises(InputError) as error:
        evaluate(*arguments, **options)
    return str(error.value)


def without_times(out):
    summary = json.loads((out / "summary.json").read_text())
    assert summary.pop("throughput")["seconds"] > 0
    summary.pop("command", None)
    return summary


def assert_same(out, whole):
    for name in TABLES:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    assert without_times(out) == without_times(whole)
    assert not (out / "unfinished").exists()


def test_a_killed_run_is_gone_on_with_and_ends_as_if_nothing_had_happened(
    checkpoint, whole, tmp_path
):
    out = tmp_path / "out"
    killed = run(checkpoint, out, environment={"NOISE_KILL_AT": "1300"})
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    shards = sorted((out / "unfinished").glob("shard-*"))
    before = {path: path.stat().st_mtime_ns for path in shards}
    (out / "unfinished" / ".shard-0000002.parquet.0a1b.tmp").write_bytes(b"cut o")

    refusal = message_of(checkpoint, "noise:noise", out=out, **OPTIONS)
    kept = {path: path.stat().st_mtime_ns for path in shards}
    found = evaluate(checkpoint, "noise:noise", out=out, resume=True, **OPTIONS)

    assert 1 <= len(shards) <= 2  # of four; two were whole when position 1300 was read
    assert refusal == (
        f"out must be free of unfinished runs, got {out / 'unfinished'} with {len(shards)} "
        "finished parts of one: go on with it by resume=True, or remove that folder"
    )
    assert kept == before
    assert_same(out, whole)
    assert found.predictions is None
    assert found.summary["throughput"]["seconds"] > 0


@pytest.fixture
def stopped(checkpoint, tmp_path):
    """The folder of a run that left two of its four shards."""
    out = tmp_path / "stopped"

    class StopError(Exception):
        pass

    class Stopping(noise.Noise):
        __module__ = "noise"  # the code of a run's data may not change

        def __getitem__(self, position):
            if position >= 1300:
                raise StopError
            return super().__getitem__(position)

    real, noise.noise = noise.noise, Stopping
    try:
        with pytest.raises(InputError, match="got StopError"):
            evaluate(checkpoint, "noise:noise", out=out, **OPTIONS)
    finally:
        noise.noise = real
    assert len(list((out / "unfinished").glob("shard-*"))) == 2
    return out


def test_only_what_is_missing_is_made_again(checkpoint, whole, stopped, monkeypatch):
    seen = []

    class Watched(noise.Noise):
        __module__ = "noise"  # the code of a run\'s data may not change

        def __getitem__(self, position):
            seen.append(position)
            return super().__getitem__(position)

    monkeypatch.setattr(noise, "noise", Watched)

    evaluate(checkpoint, "noise:noise", out=stopped, resume=True, **OPTIONS)

    shard = 550  # positions: 512 in whole batches of 50
    begun = range(LOOKS, 2 * shard)  # the first are asked for to see whether they stay the same
    assert [position for position in seen if position in begun] == []
    assert len([position for position in seen if position < LOOKS]) == 2 * LOOKS
    assert set(range(2 * shard, noise.SAMPLES)) <= set(seen)
    assert_same(stopped, whole)


def test_resuming_with_something_else_names_every_difference(checkpoint, stopped, tmp_path):
    other = tmp_path / "other.pth"
    state = torch.load(checkpoint)
    state["state_dict"]["head.bias"] += 1
    torch.save(state, other)

    options = OPTIONS | {"batch_size": 40, "precision": "bf16"}
    message = message_of(other, "noise:noise", out=stopped, resume=True, **options)

    assert message.startswith(
        "resume must go on with the same checkpoint, data, transform and options, got other ones "
        f"than {stopped / 'unfinished'} began with: checkpoint sha256 "
    )
    assert "options batch_size 40 instead of 50, options precision bf16 instead of fp32" in message
    assert message.endswith(": give those, or remove that folder and begin anew")
    assert len(list((stopped / "unfinished").glob("shard-*"))) == 2


def test_resuming_with_other_data(checkpoint, stopped, monkeypatch):
    class Shorter(noise.Noise):
        __module__ = "noise"  # the code of a run\'s data may not change

        def __len__(self):
            return 1_500

    monkeypatch.setattr(noise, "noise", Shorter)

    message = message_of(checkpoint, "noise:noise", out=stopped, resume=True, **OPTIONS)

    assert "data samples 1500 instead of 2000, data paths " in message


def test_a_damaged_shard_is_named(checkpoint, whole, stopped):
    shard = stopped / "unfinished" / "shard-0000001.parquet"
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 255
    shard.write_bytes(content)

    message = message_of(checkpoint, "noise:noise", out=stopped, resume=True, **OPTIONS)
    shard.unlink()
    evaluate(checkpoint, "noise:noise", out=stopped, resume=True, **OPTIONS)

    assert message.startswith(f"predictions must be whole to go on with them, got {shard}: ")
    assert message.endswith(": remove this file and go on with resume=True")
    assert_same(stopped, whole)


def test_a_shard_of_another_run_is_named(checkpoint, stopped):
    (stopped / "unfinished" / "shard-0000001.parquet").rename(
        stopped / "unfinished" / "shard-0000002.parquet"
    )

    message = message_of(checkpoint, "noise:noise", out=stopped, resume=True, **OPTIONS)

    assert message.startswith("unfinished predictions must be of one run, got ")


def test_resume_without_anything_to_go_on_with_begins(checkpoint, whole, tmp_path):
    evaluate(checkpoint, "noise:noise", out=tmp_path / "out", resume=True, **OPTIONS)

    assert_same(tmp_path / "out", whole)


def test_resume_needs_a_folder(checkpoint):
    assert message_of(checkpoint, "noise:noise", resume=True, **OPTIONS) == (
        "resume must come with out, a folder with an unfinished run, got none"
    )


@pytest.mark.parametrize(
    ("number", "told"),
    [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "told to stop, the job was ended")],
)
def test_a_signal_says_how_to_go_on(checkpoint, tmp_path, whole, number, told):
    out = tmp_path / "out"
    process = run(checkpoint, out, environment={"NOISE_SLEEP": "0.005"})
    while not list((out / "unfinished").glob("shard-*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)

    process.send_signal(number)
    output, errors = process.communicate()

    assert (process.returncode, output) == (128 + number, "")
    assert errors == f"evalkit: {told}: what is written stays valid, --resume goes on with it\n"
    evaluate(checkpoint, "noise:noise", out=out, resume=True, **OPTIONS)
    assert_same(out, whole)


def test_a_second_run_in_the_same_folder_is_refused(checkpoint, tmp_path):
    out = tmp_path / "out"
    first = run(checkpoint, out, environment={"NOISE_SLEEP": "0.05"})
    try:
        while not (out / "unfinished" / "run.json").exists():
            assert first.poll() is None, first.communicate()
            time.sleep(0.05)

        messages = [
            message_of(checkpoint, "noise:noise", out=out, resume=resume, **OPTIONS)
            for resume in (False, True)
        ]
    finally:
        first.terminate()
        output, errors = first.communicate()

    assert (first.returncode, output) == (128 + signal.SIGTERM, "")
    assert errors == "evalkit: told to stop, the job was ended: nothing was written yet\n"
    for message in messages:
        assert message.startswith(
            f"out must be free of other runs, got {out} with process {first.pid} on "
        )
        assert message.endswith(", at work: wait for it, or choose another folder")
    evaluate(checkpoint, "noise:noise", out=out, resume=True, **OPTIONS)  # a dead run blocks nobody


def test_an_error_before_the_first_shard_leaves_nothing(checkpoint, tmp_path, monkeypatch):
    class Broken(noise.Noise):
        __module__ = "noise"  # the code of a run\'s data may not change

        def __getitem__(self, position):
            raise OSError(f"{position} is not there")

    monkeypatch.setattr(noise, "noise", Broken)

    message = message_of(checkpoint, "noise:noise", out=tmp_path / "new" / "out", **OPTIONS)

    assert message.startswith("data must have images that can be read, got 2000 of 2000 in ")
    assert list(tmp_path.iterdir()) == []


FULL = """
import resource, signal, sys
import torch
torch.set_num_threads(1)
from evalkit import evaluate
from evalkit.errors import InputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
try:
    evaluate(sys.argv[1], "noise:noise", out=sys.argv[2], model="noise:conv_net", device="cpu",
             batch_size=50, workers=1, checks=0, resume=True)
except InputError as error:
    print(error)
"""


@pytest.mark.parametrize(
    "what",
    ["shards", "table"],
)
def test_a_full_disk_is_one_line_and_what_was_written_is_gone_on_with(
    checkpoint, whole, tmp_path, what
):
    """A limit on the size of files stands in for the full disk."""
    out = tmp_path / "out"
    table = (whole / "predictions.parquet").stat().st_size
    limit = {"shards": 8_000, "table": table - 1_000}[what]
    path = str(Path(noise.__file__).parent)

    done = subprocess.run(
        [sys.executable, "-c", FULL, str(checkpoint), str(out), str(limit)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": path},
    )

    kept = {
        "shards": "no prediction was written yet",
        "table": "what is written there stays valid, resume=True goes on with it",
    }
    assert done.stdout == (
        f"out must be a folder with room that can be written to, got {out}: File too large: "
        f"{kept[what]}\n"
    )
    left = sorted(path.name for path in out.rglob("shard-*")) if out.exists() else []
    assert len(left) == {"shards": 0, "table": 4}[what]
    assert not (out / "summary.json").exists()
    evaluate(checkpoint, "noise:noise", out=out, resume=True, **OPTIONS)
    assert_same(out, whole)


def test_without_a_folder_the_predictions_are_in_memory(checkpoint, whole):
    found = evaluate(checkpoint, "noise:noise", **OPTIONS)

    pd.testing.assert_frame_equal(
        found.predictions.assign(top5=found.predictions["top5"].map(list)),
        pd.read_parquet(whole / "predictions.parquet").assign(
            top5=lambda frame: frame["top5"].map(list)
        ),
    )
    assert found.summary["accuracy"] == json.loads((whole / "summary.json").read_text())["accuracy"]


def test_probabilities_of_all_classes_are_kept_on_request(checkpoint, tmp_path):
    options = OPTIONS | {"save_probabilities": True}

    found = evaluate(checkpoint, "noise:noise", out=tmp_path / "out", **options)

    table = pq.read_table(tmp_path / "out" / "predictions.parquet").to_pydict()
    first = table["probabilities"][0]
    assert len(first) == len(noise.CLASSES)
    assert sum(first) == pytest.approx(1)
    assert max(first) == pytest.approx(table["confidence"][0], rel=1e-6)
    assert noise.CLASSES[first.index(max(first))] == table["prediction"][0]
    assert (tmp_path / "out" / "ranking.csv").exists()
    assert 0.5 < found.summary["auroc"] < 1


def test_what_a_run_skipped_is_not_passed_over_by_one_that_must_not(
    checkpoint, tmp_path, monkeypatch
):
    class Holed(noise.Noise):
        __module__ = "noise"  # the code of a run\'s data may not change

        def __getitem__(self, position):
            if position == 7:
                raise OSError("7 is not there")
            if position >= 1300 and not whole:
                raise StopIteration
            return super().__getitem__(position)

    monkeypatch.setattr(noise, "noise", Holed)
    out, whole = tmp_path / "out", False
    with pytest.raises(RuntimeError):
        evaluate(checkpoint, "noise:noise", out=out, on_unreadable="skip", **OPTIONS)
    whole = True

    refusal = message_of(checkpoint, "noise:noise", out=out, resume=True, **OPTIONS)
    found = evaluate(
        checkpoint, "noise:noise", out=out, resume=True, on_unreadable="skip", **OPTIONS
    )

    assert refusal.startswith("data must have images that can be read, got 1 of 2000 in ")
    assert found.summary["samples"] == 1_999
    assert [one["index"] for one in found.summary["unreadable"]] == [7]


def test_what_was_done_before_an_unreadable_image_is_kept(checkpoint, tmp_path, monkeypatch):
    class Holed(noise.Noise):
        __module__ = "noise"  # the code of a run\'s data may not change

        def __getitem__(self, position):
            if position == 1400:
                raise OSError("1400 is not there")
            return super().__getitem__(position)

    monkeypatch.setattr(noise, "noise", Holed)
    out = tmp_path / "out"

    message = message_of(checkpoint, "noise:noise", out=out, **OPTIONS)
    found = evaluate(
        checkpoint, "noise:noise", out=out, resume=True, on_unreadable="skip", **OPTIONS
    )

    assert message.endswith(
        "on_unreadable='skip'; what was done is kept: with resume=True and on_unreadable='skip' it "
        "is not done again (files that were mended are other data, which begin anew)"
    )
    assert (found.summary["samples"], len(found.summary["unreadable"])) == (1_999, 1)


def test_another_model_with_the_same_weights_is_not_gone_on_with(checkpoint, stopped, monkeypatch):
    other = {**OPTIONS, "model": "noise:another_conv_net"}
    monkeypatch.setattr(noise, "another_conv_net", noise.conv_net, raising=False)

    refusal = message_of(checkpoint, "noise:noise", out=stopped, resume=True, **other)

    assert "model spec noise:another_conv_net instead of noise:conv_net" in refusal


def test_a_dataset_whose_code_was_changed_is_not_gone_on_with(checkpoint, stopped, monkeypatch):
    class Noise(noise.Noise):
        def __getitem__(self, position):
            image, label = super().__getitem__(position)
            return image, (label + 1) % 4

    monkeypatch.setattr(noise, "noise", Noise)

    message = message_of(checkpoint, "noise:noise", out=stopped, resume=True, **OPTIONS)

    assert "began with: data code " in message


def test_the_files_that_a_model_is_written_in_count():
    same, other = code_of(noise.conv_net(), None), code_of(nn.Linear(1, 1), None)

    assert same == code_of(noise.conv_net(), "noise:conv_net") != other
    assert code_of(nn.Linear(1, 1), f"{noise.__file__}:conv_net") == same


def test_a_run_that_is_refused_removes_nothing(tmp_path, monkeypatch):
    """Not even where it has made the folder an instant before the other run."""
    out = tmp_path / "out"
    mkdir = Path.mkdir

    def and_another_comes(path, *arguments, **options):
        mkdir(path, *arguments, **options)
        others.enter_context(locked(path / "lock", out=out))

    with ExitStack() as others:
        monkeypatch.setattr(Path, "mkdir", and_another_comes)
        with (
            pytest.raises(InputError, match="out must be free of other runs"),
            begun(out, {}, resume=False),
        ):
            pass

        assert (out / "unfinished" / "lock").exists()


def test_a_run_without_any_prediction_is_begun_anew(tmp_path):
    out = tmp_path / "out"
    with begun(out, {"options": {"batch_size": 1}}, resume=False) as run:
        run.path(0).touch()  # so that it stays
    run.path(0).unlink()

    with begun(out, {"options": {"batch_size": 2}}, resume=False) as another:
        assert another.run != run.run
        assert '"batch_size": 2' in (out / "unfinished" / "run.json").read_text()
