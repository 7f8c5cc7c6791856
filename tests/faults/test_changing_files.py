"""Files that change or vanish between the moment they were listed and the moment they are read.

Every file is counted once: as a sample, or by its name and the reason why it is none.
"""

import os
import re
import shutil

import pytest

torch = pytest.importorskip("torch")

from image_files import colour_net, coloured, write_checkpoint, write_folders  # noqa: E402
from training_runs import write_split  # noqa: E402

from evalkit import evaluate  # noqa: E402
from evalkit.data import open_data  # noqa: E402
from evalkit.errors import InputError  # noqa: E402
from evalkit.training.job import prepare  # noqa: E402
from evalkit.training.recipe import Recipe  # noqa: E402
from evalkit.transforms import evaluation  # noqa: E402

TRANSFORM = evaluation(resize=None, crop=None, mean=(0.0,) * 3, std=(1.0,) * 3)
RECIPE = Recipe(epochs=3, batch_size=8, flip=0, random_area=None)


def cut_off(path):
    path.write_bytes(path.read_bytes()[:60])


def folder_instead(path):
    path.unlink()
    path.mkdir()


def loop_of_links(path):
    path.unlink()
    path.symlink_to(path.name)


def pipe_instead(path):
    path.unlink()
    os.mkfifo(path)


def device_instead(path):
    path.unlink()
    path.symlink_to("/dev/zero")


def page_instead(path):
    path.write_bytes(b"<!DOCTYPE html><html><body>log in</body></html>")


CHANGES = {
    "0.png": (lambda path: path.unlink(), "there is no such file"),
    "1.png": (cut_off, "image file is truncated"),
    "2.png": (lambda path: path.write_bytes(b""), "the file is empty"),
    "3.png": (folder_instead, "Is a directory"),
    "4.png": (loop_of_links, "Too many levels of symbolic links"),
    "5.png": (pipe_instead, "it is no file, but a pipe, a socket or a device"),
    "6.png": (device_instead, "it is no file, but a pipe, a socket or a device"),
    "7.png": (page_instead, "the file is no image of a known format"),
}


@pytest.fixture
def checkpoint(tmp_path):
    return write_checkpoint(tmp_path / "net.pth", TRANSFORM)


@pytest.fixture
def listed(tmp_path):
    """Images that were listed, after which all of one class vanished and most of another's."""
    data = write_folders(tmp_path / "data", {"blue": 10, "green": 5, "red": 9})
    source = open_data(data)
    for name, (change, _reason) in CHANGES.items():
        change(data / "blue" / name)
    shutil.rmtree(data / "green")
    coloured("red", 99).save(data / "blue/8.png")  # another image: it is read as it is now
    return source


def test_an_evaluation_names_every_file_that_changed_and_counts_the_others(checkpoint, listed):
    found = evaluate(checkpoint, listed, model=colour_net(), device="cpu", on_unreadable="skip")

    reasons = {one["path"]: one["reason"] for one in found.summary["unreadable"]}
    gone = {f"green/{number}.png": "there is no such file" for number in range(5)}
    assert reasons == gone | {f"blue/{name}": reason for name, (_, reason) in CHANGES.items()}
    assert found.summary["samples"] == 2 + 9
    assert found.summary["samples"] + len(reasons) == found.summary["reading"]["files"]


def test_an_evaluation_that_may_leave_nothing_out_lists_them_all(checkpoint, listed, tmp_path):
    with pytest.raises(InputError, match="got 13 of 24 in ") as error:
        evaluate(checkpoint, listed, model=colour_net(), device="cpu", out=tmp_path / "out")

    for name, (_, reason) in CHANGES.items():
        # The next ones may have the same reason, which is said once.
        assert re.search(rf"blue/{name}(, [\w/.]+)* \({re.escape(reason)}\)", str(error.value))


def job(data, out, **choices):
    usual = {"recipe": RECIPE, "device": "cpu", "workers": 0}
    return prepare(data, "training_runs:tiny_net", out=out, **usual | choices)


@pytest.mark.parametrize("on_unreadable", ["fail", "skip"])
@pytest.mark.parametrize("part", ["train", "val"])
def test_a_file_that_vanishes_while_a_training_runs_ends_it_by_name(tmp_path, part, on_unreadable):
    data = write_split(tmp_path / "data")
    epochs = job(data, tmp_path / "run", on_unreadable=on_unreadable).epochs()
    next(epochs)

    (data / part / "left/3.png").unlink()
    with pytest.raises(InputError) as error:
        list(epochs)

    assert f"left/3.png ({CHANGES['0.png'][1]})" in str(error.value)
    assert "got 1 of " in str(error.value)


def test_a_training_goes_on_once_the_file_is_back(tmp_path):
    data = write_split(tmp_path / "data")
    kept = data / "train/left/3.png"
    epochs = job(data, tmp_path / "run").epochs()
    next(epochs)
    content = kept.read_bytes()
    kept.unlink()
    with pytest.raises(InputError):
        list(epochs)

    kept.write_bytes(content)
    resumed = job(data, tmp_path / "run", resume=True)

    assert len(list(resumed.epochs())) == 2
    assert len(resumed.former) == 1


def test_a_training_goes_on_with_a_file_that_was_mended(tmp_path):
    data = write_split(tmp_path / "data")
    broken = data / "val/left/3.png"
    content = broken.read_bytes()
    cut_off(broken)
    with pytest.raises(InputError, match=r"left/3\.png \(image file is truncated\)"):
        list(job(data, tmp_path / "run", checkpoint_every=1).epochs())

    broken.write_bytes(content)
    resumed = job(data, tmp_path / "run", checkpoint_every=1, resume=True)

    assert len(list(resumed.epochs())) == RECIPE.epochs


def test_an_evaluation_is_not_gone_on_with_when_a_file_has_another_size(checkpoint, tmp_path):
    data = write_folders(tmp_path / "data", {"blue": 5, "green": 4, "red": 520})
    cut_off(data / "red/99.png")  # the last one, in the second part: the first is kept
    choices = {"model": colour_net(), "device": "cpu", "out": tmp_path / "out"}
    with pytest.raises(
        InputError, match=r"red/99\.png \(image file is truncated\): mend .* is kept"
    ):
        evaluate(checkpoint, data, **choices)

    coloured("red", 3, size=(40, 40)).save(data / "blue/0.png")

    with pytest.raises(InputError, match=r"data sizes .* instead of"):
        evaluate(checkpoint, data, resume=True, **choices)
