"""What a run finds out by itself, and what it says of odd scores."""

import json
import os
import pty
import re
import subprocess
import sys
import termios
import threading
from dataclasses import replace
from pathlib import Path

import layouts
import noise
import pytest
import torch
from torch import nn
from torch.utils.data import ConcatDataset, Dataset, Subset
from torchvision.transforms import Compose

from evalkit import evaluate
from evalkit.__main__ import main as entry_point
from evalkit.cli import main
from evalkit.data import Loaded, Source
from evalkit.errors import InputError
from evalkit.images.reading import UnreadableError
from evalkit.run import Options
from evalkit.run.unfinished import options_of

TRANSFORM = {"resize": None, "crop": None, "mean": [0.0] * 3, "std": [1 / 255] * 3}


class Lookup(nn.Module):
    """Scores of an image are those in the row that its first pixel names."""

    def __init__(self, rows):
        super().__init__()
        self.rows = nn.Parameter(torch.tensor(rows))

    def forward(self, images):
        return self.rows[images[:, 0, 0, 0].round().long()]


def source(rows, labels):
    """One image per sample, which names a row."""
    images = [torch.full((3, 2, 2), row, dtype=torch.uint8) for row in rows]
    return Source(
        name="rows",
        paths=[str(number) for number in range(len(rows))],
        classes=("a", "b", "c"),
        load=lambda position, _mode: Loaded(image=images[position], label=labels[position]),
    )


def warnings_of(tmp_path, table, rows, labels):
    model = Lookup(table)
    torch.save(model.state_dict(), tmp_path / "net.pth")
    found = evaluate(
        tmp_path / "net.pth",
        source(rows, labels),
        model=Lookup(table),
        transform=TRANSFORM,
        device="cpu",
        checks=0,
    )
    return found.summary["warnings"]


CLEAR = [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0]]
LABELS = ["a", "b", "c"] * 10


def test_a_model_that_gives_one_class_to_all_is_warned_of(tmp_path):
    (warning,) = [
        one for one in warnings_of(tmp_path, CLEAR, [1] * 30, LABELS) if "collapsed" in one
    ]

    assert warning == (
        "the model gives b to 30 of 30 samples, of which 10 have it: it has collapsed, or it is "
        "not this data that it was trained for"
    )


def test_a_model_that_is_right_about_data_of_mostly_one_class_has_not_collapsed(tmp_path):
    found = warnings_of(tmp_path, CLEAR, [1] * 30, ["b"] * 28 + ["a", "c"])

    assert not [one for one in found if "collapsed" in one]


def test_few_samples_are_no_collapse(tmp_path):
    found = warnings_of(tmp_path, CLEAR, [1] * 19, LABELS[:19])

    assert not [one for one in found if "collapsed" in one]


def test_ties_and_scores_that_are_no_numbers_are_counted(tmp_path):
    table = [[2.0, 2.0, 0.0], [0.0, 2.0, 0.0], [float("nan"), 1.0, 1.0]]

    found = warnings_of(tmp_path, table, [0, 1, 2] * 10, LABELS)

    assert "10 of 30 samples got NaN or infinite scores: their predictions mean nothing" in found
    assert (
        "10 of 30 samples got one score for two or more classes, the highest: the first of these "
        "classes was taken"
    ) in found


@pytest.fixture
def checkpoint(tmp_path):
    return noise.write_checkpoint(tmp_path / "net.pth")


def test_the_size_of_batches_on_the_cpu(checkpoint):
    found = evaluate(
        checkpoint, "noise:noise", model="noise:conv_net", device="cpu", batch_size="auto", checks=0
    )

    assert found.summary["throughput"]["batch_size"] == 32


def test_a_run_that_is_gone_on_with_keeps_the_size_it_found(checkpoint, tmp_path, monkeypatch):
    class Stopping(noise.Noise):
        __module__ = "noise"  # the code of a run\'s data may not change

        def __getitem__(self, position):
            if position >= 1300:
                raise RuntimeError("stop")
            return super().__getitem__(position)

    options = {"model": "noise:conv_net", "device": "cpu", "checks": 0, "out": tmp_path / "out"}
    with monkeypatch.context() as patch:
        patch.setattr(noise, "noise", Stopping)
        with pytest.raises(InputError, match="stop"):
            evaluate(checkpoint, "noise:noise", batch_size=24, **options)

    assert options_of(tmp_path / "out")["batch_size"] == 24
    found = evaluate(checkpoint, "noise:noise", batch_size="auto", resume=True, **options)

    assert found.summary["throughput"]["batch_size"] == 24


def noisy(samples=12):
    """A source of images that no crop makes smaller."""
    images = torch.randint(
        0, 256, (samples, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    return Source(
        name="noise",
        paths=[str(number) for number in range(samples)],
        classes=("a", "b", "c"),
        load=lambda position, _mode: Loaded(image=images[position], label="abc"[position % 3]),
    )


@pytest.mark.parametrize(("kind", "takes_it"), [(layouts.Turning, True), (layouts.Viewing, False)])
def test_a_run_finds_its_layout_once_and_is_gone_on_with_in_it(
    kind, takes_it, tmp_path, monkeypatch
):
    model = kind()
    torch.save(model.state_dict(), tmp_path / "net.pth")
    options = {
        "model": model, "transform": TRANSFORM, "device": "cpu", "checks": 0,
        "out": tmp_path / "out",
    }  # fmt: skip

    def broken(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:  # all is done but the tables
        patch.setattr("evalkit.run.line.parquet", broken)
        with pytest.raises(InputError, match="No space left"):
            evaluate(tmp_path / "net.pth", noisy(), **options)
    assert options_of(tmp_path / "out")["channels_last"] is takes_it

    monkeypatch.setattr("evalkit.run.line.choose_layout", lambda _plan: not takes_it)
    found = evaluate(tmp_path / "net.pth", noisy(), resume=True, **options)

    assert found.summary["precision_flags"]["channels_last"] is takes_it


def test_what_an_unfinished_run_says_of_its_options_may_be_anything(tmp_path):
    path = tmp_path / "unfinished" / "run.json"
    assert options_of(tmp_path) == {}
    path.parent.mkdir()
    for content in ("", "[]", '{"identity": {"options": {"batch_size": "x"}}}'):
        path.write_text(content)
        assert options_of(tmp_path) == {}


def test_sizes_that_are_none():
    with pytest.raises(InputError) as error:
        Options(batch_size="many")
    assert str(error.value) == "batch_size must be a number or auto, got 'many'"

    with pytest.raises(InputError) as error:
        Options(batch_size=-1)
    assert str(error.value) == "batch_size and workers must be at least 1, got -1 and None"


def test_sizes_that_are_none_on_the_command_line(monkeypatch, capfd):
    monkeypatch.setattr(
        sys, "argv", ["evalkit", "evaluate", "--checkpoint", "a", "--data", "b", "--out", "c",
                      "--batch-size", "0"],
    )  # fmt: skip

    with pytest.raises(SystemExit) as end:
        main()

    assert end.value.code == 2
    assert capfd.readouterr().err == (
        "evalkit: Invalid value for '--batch-size': '0' is neither a number from 1 nor 'auto'. See "
        "'evalkit evaluate --help'.\n"
    )


def test_the_command_line_of_a_resumed_run_is_that_of_the_run(
    checkpoint, tmp_path, monkeypatch, capfd
):
    arguments = [
        *("--checkpoint", str(checkpoint), "--data", "noise:noise", "--model", "noise:conv_net"),
        *("--out", str(tmp_path / "out"), "--batch-size", "auto", "--device", "cpu"),
        *("--checks", "0", "--save-probabilities"),
    ]
    monkeypatch.setattr(sys, "argv", ["evalkit", "evaluate", *arguments, "--resume"])

    with pytest.raises(SystemExit) as end:
        main()

    assert end.value.code == 0, capfd.readouterr().err
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["command"] == " ".join(["evalkit", "evaluate", *arguments])
    assert (tmp_path / "out" / "ranking.csv").exists()


BAR = """
import time
from evalkit.inference.loop import progress
with progress(400, done=100) as advance:
    for _ in range(3):
        time.sleep(0.2)
        advance(50)
"""


def test_a_terminal_sees_the_rate_and_the_remaining_time():
    parent, child = pty.openpty()
    termios.tcsetwinsize(child, (24, 100))

    subprocess.run([sys.executable, "-c", BAR], stderr=child, check=True, timeout=120)
    shown = os.read(parent, 1 << 16)
    os.close(child)
    os.close(parent)

    last = shown.decode().replace("\x1b[A", "").split("\r")
    frames = [frame for frame in last if "img/s" in frame]
    assert frames, shown
    assert re.search(r"evaluate: +62%.*250/400 \[\d\d:\d\d<\d\d:\d\d, .*img/s\]", frames[-1])


def test_scores_of_a_sigmoid_are_warned_of(tmp_path):
    table = [[0.9, 0.2, 0.1], [0.1, 0.8, 0.3], [0.2, 0.2, 0.7]]

    found = warnings_of(tmp_path, table, [0, 1, 2] * 10, LABELS)

    assert [one for one in found if "as of a sigmoid" in one]
    assert not [one for one in warnings_of(tmp_path, CLEAR, [0, 1, 2] * 10, LABELS) if "sig" in one]


class Hungry(Lookup):
    """Needs more memory than there is for more than so many samples at once."""

    most = 3

    def forward(self, images):
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return self.rows[images[:, 0, 0, 0].round().long().clamp(0, 2)]


def test_checks_are_split_where_memory_does_not_do_as_the_run_is(tmp_path):
    torch.save(Lookup(CLEAR).state_dict(), tmp_path / "net.pth")

    found = evaluate(
        tmp_path / "net.pth",
        source([0, 1, 2, 1, 0] * 6, LABELS),
        model=Hungry(CLEAR),
        transform=TRANSFORM,
        device="cpu",
        verify=5,
    )

    checks = {one["id"]: one for one in found.summary["checks"]}
    assert found.summary["samples"] == 30
    assert checks["repeatability"]["verdict"] == "skipped"
    assert "need more memory than there is" in checks["repeatability"]["evidence"]
    assert checks["precision"]["verdict"] == "passed"


@pytest.mark.parametrize("error", [KeyError("x"), IndexError("x"), AttributeError("x")])
def test_whatever_a_model_raises_is_said_to_be_the_models(tmp_path, error):
    class Broken(Lookup):
        def forward(self, _images):
            raise error

    torch.save(Lookup(CLEAR).state_dict(), tmp_path / "net.pth")

    expected = f"model Broken must accept .* got {type(error).__name__}: .*, line "
    with pytest.raises(InputError, match=expected) as _kept:
        evaluate(
            tmp_path / "net.pth",
            source([0] * 3, ["a"] * 3),
            model=Broken(CLEAR),
            transform=TRANSFORM,
            device="cpu",
        )

    # else one of them may collect what the error holds, and cannot wait for itself
    assert not [one for one in threading.enumerate() if one.name.startswith("decode")]


@pytest.mark.parametrize("random", [{"flip": 0.5}, {"random_area": [0.1, 1.0], "crop": 2}])
def test_a_transform_for_training_is_refused(tmp_path, random):
    torch.save(Lookup(CLEAR).state_dict(), tmp_path / "net.pth")

    with pytest.raises(InputError, match="transform must be the same for every look at an image"):
        evaluate(
            tmp_path / "net.pth",
            source([0] * 3, ["a"] * 3),
            model=Lookup(CLEAR),
            transform=TRANSFORM | random,
            device="cpu",
        )


def evaluated(tmp_path, data, *, stored=None, **options):
    torch.save({"state_dict": Lookup(CLEAR).state_dict(), **(stored or {})}, tmp_path / "net.pth")
    usual = {"model": Lookup(CLEAR), "transform": TRANSFORM, "device": "cpu", "checks": 0}
    return evaluate(tmp_path / "net.pth", data, **usual | options)


def test_classes_are_given_by_output(tmp_path):
    """A dict in the order of the alphabet, or of anything else, is not the order of the outputs."""
    rows = source([2, 0, 1] * 10, LABELS)

    found = evaluated(tmp_path, rows, classes={"a": 2, "b": 0, "c": 1})

    assert found.summary["accuracy"] == 1
    assert list(found.per_class.index) == ["b", "c", "a"]


@pytest.mark.parametrize("classes", ["abc", {"a", "b", "c"}, ["a", "b", "a"], {"a": 1, "b": 2}])
def test_classes_that_name_no_outputs_are_refused(tmp_path, classes):
    with pytest.raises(InputError, match="classes must"):
        evaluated(tmp_path, source([0, 1, 2] * 10, LABELS), classes=classes)


@pytest.mark.parametrize(
    "theirs",
    [
        {"mean": [127.0] * 3, "std": [1.0] * 3, "crop": None},
        {"mean": [0.5] * 3, "std": [0.5] * 3, "size": 224},
        {"mean": [0.5] * 3, "std": [0.5] * 3},
    ],
)
def test_a_transform_of_another_program_is_told_and_not_followed(tmp_path, theirs):
    rows = source([0, 1, 2] * 10, LABELS)

    found = evaluated(tmp_path, rows, stored={"transform": theirs}, transform=None)

    assert found.summary["transform"]["origin"] == "default"
    (told,) = [one for one in found.summary["warnings"] if "images are prepared" in one]
    assert told.startswith("the checkpoint says how images are prepared, but not as evalkit writes")
    assert "mean" in told


def test_a_transform_of_another_library_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"made by evalkit\.transforms, .* got Compose"):
        evaluated(tmp_path, source([0], ["a"]), transform=Compose([]))


class Rows(Dataset):
    """A Dataset whose images name a row of the model; altered ones are another every time."""

    classes = ("a", "b", "c")

    def __init__(self, *, is_altered=False):
        self.is_altered = is_altered
        self.asked = 0

    def __len__(self):
        return 30

    def __getitem__(self, position):
        self.asked += self.is_altered
        return torch.full((3, 2, 2), (position + self.asked) % 3, dtype=torch.uint8), position % 3


def test_a_dataset_in_memory_and_its_subset(tmp_path):
    for data in (Rows(), Subset(Rows(), range(9)), ConcatDataset([Rows(), Rows()])):
        found = evaluated(tmp_path, data, classes=["a", "b", "c"])

        assert (found.summary["accuracy"], found.summary["samples"]) == (1, len(data))
        assert found.summary["warnings"] == []


def test_a_dataset_that_alters_its_images_is_told(tmp_path):
    found = evaluated(tmp_path, Rows(is_altered=True), classes=["a", "b", "c"], verify=3)

    (told,) = found.summary["warnings"][-1:]
    assert told.startswith("the data give other pixels when a sample is asked for again (")
    assert "precision" not in {one["id"] for one in found.summary["checks"]}


def test_a_reason_that_many_images_share_is_said_once(tmp_path):
    def load(position, _mode):
        raise UnreadableError("gone" if position else "empty")

    rows = replace(source([0] * 4, ["a"] * 4), load=load)

    with pytest.raises(InputError, match=r"cannot: 0 \(empty\), 1, 2, 3 \(gone\): mend them"):
        evaluated(tmp_path, rows)


@pytest.mark.parametrize(
    "named",
    [
        {"class_to_idx": {"a": 1, "b": 2, "c": 3}},
        {"class_to_idx": {"a": 0, "b": 0, "c": 1}},
        {"classes": ["a", "a", "b"]},
    ],
)
def test_names_that_tell_no_output_are_not_passed_over(tmp_path, named):
    """The classes would be taken in the order of the data, and the file said to name none."""
    path = tmp_path / "net.pth"
    torch.save({"state_dict": Lookup(CLEAR).state_dict(), **named}, path)
    rows = source([0, 1, 2] * 10, LABELS)
    options = {"model": Lookup(CLEAR), "transform": TRANSFORM, "device": "cpu", "checks": 0}

    with pytest.raises(InputError, match=f"a name for every output, .* got {next(iter(named))}="):
        evaluate(path, rows, **options)

    assert evaluate(path, rows, classes=["a", "b", "c"], **options).summary["accuracy"] == 1


def test_standard_error_may_be_closed(tmp_path):
    checkpoint = noise.write_checkpoint(tmp_path / "net.pth")
    command = [
        *(sys.executable, "-m", "evalkit", "evaluate", "--checkpoint", str(checkpoint)),
        *("--data", "noise:noise", "--model", "noise:conv_net", "--device", "cpu"),
        *("--checks", "0", "--out", str(tmp_path / "out")),
    ]
    environment = os.environ | {"PYTHONPATH": str(Path(noise.__file__).parent)}

    ended = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", *command], env=environment, check=False
    )

    assert ended.returncode == 0
    assert (tmp_path / "out" / "summary.json").exists()


def test_ctrl_c_before_there_is_a_command_is_one_line(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("evalkit.cli.main", interrupted)

    with pytest.raises(SystemExit) as ended:
        entry_point()

    assert (ended.value.code, capsys.readouterr().err) == (130, "evalkit: interrupted\n")
