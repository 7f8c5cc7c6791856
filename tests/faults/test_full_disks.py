"""A disk that is really full, and one that can only be read: a small tmpfs.

A command that cannot write says so in one line and leaves nothing that could be taken for whole;
with room made it ends as if nothing had happened.
"""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("torch")

import noise
from training_runs import write_split

TESTS = Path(__file__).parent.parent
TABLES = ("per_class.csv", "confusion_matrix.csv")
PAGE = 4096  # bytes: what tmpfs counts in


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where everything lies that is read, and an evaluation to compare with."""
    folder = tmp_path_factory.mktemp("place")
    noise.write_checkpoint(folder / "net.pth")
    write_split(folder / "data")
    done = run(commands(folder, folder / "whole")["evaluate"])
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def disk(tmp_path):
    """A file system of 2 MiB that is there during the test."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this user may not mount a tmpfs")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def commands(place, out):
    """Every command that writes, with what it writes in a folder of its own."""
    return {
        "evaluate": (
            *("evalkit", "evaluate", "--checkpoint", place / "net.pth", "--data", "noise:noise"),
            *("--model", "noise:conv_net", "--device", "cpu", "--workers", "1", "--resume"),
            *("--out", out),
        ),
        "report": ("evalkit", "report", place / "whole/predictions.parquet", "--out", out),
        "train": (
            *("evalkit", "train", "--data", place / "data", "--model", "training_runs:tiny_net"),
            *("--device", "cpu", "--epochs", "2", "--batch-size", "8", "--workers", "0"),
            *("--resume", "--out", out),
        ),
        "convert": ("evalkit", "convert", place / "net.pth", out / "net.safetensors"),
        "snapshot": ("gpudiag", "snapshot", "--no-torch", "--output", out / "snapshot.json"),
    }


NAMES = tuple(commands(Path(), Path()))


def run(command):
    return subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        cwd=TESTS,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS)},
        timeout=120,
    )


def fill(disk, left):
    """Fill a disk but for so many pages, and return the file that does it."""
    filler = disk / "filler"
    room = os.statvfs(disk)
    filler.write_bytes(bytes((room.f_bavail - left) * PAGE))
    return filler


def assert_told(done, reason):
    """It says in one last line why nothing could be written; before it stand at most notes."""
    lines = done.stderr.splitlines()
    assert done.returncode in {2, 3}, done.stderr
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr
    assert reason in lines[-1]


def whole_or_absent(out, name):
    """Whether no result of a command stands there cut off."""
    if name in {"evaluate", "report"}:
        assert not any((out / table).exists() for table in (*TABLES, "summary.json"))
    elif name == "train":
        for weights in out.glob("*.pth"):
            assert evalkit_reads(weights)
    else:
        assert not out.exists() or list(out.iterdir()) == []


def evalkit_reads(weights):
    return run(("evalkit", "inspect", weights)).returncode == 0


@pytest.mark.parametrize(
    ("name", "left"),
    [
        *(("snapshot", 0), ("convert", 0), ("convert", 1), ("train", 1), ("report", 8)),
        pytest.param("train", 8, marks=pytest.mark.slow),
        pytest.param("report", 1, marks=pytest.mark.slow),
        pytest.param("evaluate", 1, marks=pytest.mark.slow),
        ("evaluate", 8),
    ],
)
def test_a_full_disk_is_one_line_and_with_room_the_command_ends(place, disk, name, left):
    out = disk / "out"
    out.mkdir()
    command = commands(place, out)[name]
    filler = fill(disk, left)

    first = run(command)

    assert_told(first, "No space left on device")
    whole_or_absent(out, name)
    filler.unlink()
    again = run(command)
    assert again.returncode == 0, again.stderr
    assert not [path.name for path in out.rglob("*.tmp")]
    if name in {"evaluate", "report"}:
        for table in TABLES:
            assert (out / table).read_bytes() == (place / "whole" / table).read_bytes()
    if name == "train":
        assert pd.read_csv(out / "log.csv")["epoch"].tolist() == [1, 2]


@pytest.mark.parametrize("name", NAMES)
def test_a_disk_that_can_only_be_read_is_one_line(place, disk, name):
    (disk / "out").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)

    done = run(commands(place, disk / "out")[name])

    reasons = ("Read-only file system", "no permission for", "Permission denied")
    assert_told(done, str(disk / "out"))
    assert done.stderr.count("\n") == 1
    assert any(reason in done.stderr for reason in reasons)


PROGRAM = ("sh", "-c", "sleep 0.5; echo done; exit 7")


def test_a_record_for_which_there_is_no_room_costs_the_program_nothing(disk):
    fill(disk, 0)

    done = run(("gpudiag", "record", "--output", disk / "out", "--", *PROGRAM))

    assert (done.stdout, done.returncode) == ("done\n", 7)
    assert "Traceback" not in done.stderr
    assert "No space left on device" in done.stderr


def test_a_record_that_could_never_be_kept_is_refused_before_the_program_begins(disk):
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)

    done = run(("gpudiag", "record", "--output", disk / "out", "--", *PROGRAM))

    assert (done.stdout, done.returncode) == ("", 2)
    assert done.stderr.count("\n") == 1
    assert "Read-only file system" in done.stderr
