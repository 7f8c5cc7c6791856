"""Every command where something around it is wrong: locale, home, output, folder, names.

Whatever happens, it ends by itself, with a defined exit code and without a traceback.
"""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

torch = pytest.importorskip("torch")
from PIL import Image  # noqa: E402 - with torch, from the extra

from evalkit import save_checkpoint  # noqa: E402

DEFINED = {0, 1, 2, 3, 141}
CLASSES = ["=cat", "hünd\n", "鳥"]
NET = """
from torch import nn
def net():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
"""
AWKWARD = " a\n'name\" -" + "n" * 150
NOT_UTF8 = os.fsdecode(b"n\xffme")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return made_in(tmp_path_factory.mktemp("place"))


def made_in(folder):
    """A folder with all that the commands are given."""
    names = [CLASSES[index % 3] for index in range(60)]
    frame = pd.DataFrame({"label": names, "prediction": names[:50] + names[:10]})
    frame["path"] = [f"{index}.png" for index in range(60)]
    frame.to_csv(folder / "a.csv", index=False)
    frame.assign(prediction=names).to_csv(folder / "b.csv", index=False)
    for index, name in enumerate(CLASSES):
        (folder / "data" / name).mkdir(parents=True)
        image = Image.new("RGB", (8, 8), (80 * index, 0, 0))
        image.save(folder / "data" / name / "0.png")
    (folder / "net.py").write_text(NET)
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 3)
    )
    save_checkpoint(folder / "c.pth", model, classes=sorted(CLASSES))
    gpudiag("snapshot", "--no-torch", "--output", str(folder / "s.json"))
    return folder


def commands(place):
    """Every command that answers at once, on what lies in *place*."""
    table, other, checkpoint, snapshot = (
        str(place / name) for name in ("a.csv", "b.csv", "c.pth", "s.json")
    )
    net, data = str(place / "net.py") + ":net", str(place / "data")
    return {
        "diagnose": ("gpudiag", "diagnose", "--no-torch"),
        "diagnose a file": ("gpudiag", "diagnose", "--snapshot", snapshot),
        "snapshot": ("gpudiag", "snapshot", "--no-torch"),
        "devices": ("gpudiag", "devices"),
        "processes": ("gpudiag", "processes"),
        "explain": ("gpudiag", "explain", "GD202"),
        "diff": ("gpudiag", "diff", snapshot, snapshot),
        "fleet": ("gpudiag", "fleet", snapshot),
        "report": ("evalkit", "report", table, "--out"),
        "compare": ("evalkit", "compare", table, other, "--key", "path"),
        "inspect": ("evalkit", "inspect", checkpoint),
        "convert": ("evalkit", "convert", checkpoint),
        "evaluate": (
            *("evalkit", "evaluate", "--checkpoint", checkpoint, "--model", net),
            *("--data", data, "--device", "cpu", "--out"),
        ),
    }


NAMES = tuple(commands(Path()))
WRITES = {"report": "out", "convert": "out.pth", "evaluate": "out"}


def arguments(name, place, out):
    """The whole command line of a command, with what it writes in the folder *out*."""
    program, *rest = commands(place)[name]
    written = [str(out / WRITES[name])] if name in WRITES else []
    return [sys.executable, "-m", program, *rest, *written]


def gpudiag(*rest):
    assert_told(run([sys.executable, "-m", "gpudiag", *rest]), {0})


def run(command, **options):
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "check": False} | options
    return subprocess.run(command, timeout=120, **options)  # noqa: PLW1510 - check is in options


def assert_told(done, codes=DEFINED):
    """It ended as it may, with at most one line about what went wrong."""
    said = (done.stderr or b"").decode(errors="replace")
    assert done.returncode in codes, said
    assert "Traceback" not in said
    assert "internal error" not in said


@pytest.mark.parametrize("name", NAMES)
def test_the_plainest_locale(name, place, tmp_path):
    done = run(arguments(name, place, tmp_path), env=os.environ | {"LC_ALL": "C"})

    assert_told(done, {0, 1})
    assert done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_terminal_that_knows_ascii_alone(name, place, tmp_path):
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

    done = run(arguments(name, place, tmp_path), env=os.environ | plain)

    assert_told(done, {2} if name == "evaluate" else {0, 1})  # names of folders cannot be read
    assert done.stdout or done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("name", NAMES)
def test_no_home_no_user_no_terminal(name, place, tmp_path):
    bare = {"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)}

    done = run(arguments(name, place, tmp_path), env=bare, stdin=subprocess.DEVNULL)

    assert_told(done, {0, 1})


@pytest.mark.parametrize("name", NAMES)
def test_a_reader_that_has_gone_away(name, place, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = run(arguments(name, place, tmp_path), stdout=writing)
    finally:
        os.close(writing)

    assert_told(done, {141})
    assert done.stderr == b""


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_standard_output_is_closed(name, place, tmp_path):
    command = arguments(name, place, tmp_path)

    done = run(["sh", "-c", 'exec "$@" >&-', "sh", *command])

    assert_told(done)


@pytest.mark.parametrize("name", NAMES)
def test_standard_output_is_full(name, place, tmp_path):
    with Path("/dev/full").open("wb") as full:
        done = run(arguments(name, place, tmp_path), stdout=full)

    assert_told(done, {3})
    assert done.stderr.count(b"\n") == 1
    assert b"No space left on device" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_working_folder_is_gone(name, place, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    script = 'rmdir "$PWD"; exec "$@"'

    done = run(["sh", "-c", script, "sh", *arguments(name, place, tmp_path)], cwd=gone)

    assert_told(done, {0, 1, 2})


def test_awkward_names_of_files(tmp_path):
    folder = tmp_path / AWKWARD
    folder.mkdir()
    place = made_in(folder)

    for name in NAMES:
        assert_told(run(arguments(name, place, folder)), {0, 1})


@pytest.mark.slow
def test_names_of_files_that_are_not_utf_8(tmp_path):
    (tmp_path / "made").mkdir()
    made_in(tmp_path / "made")
    place = (tmp_path / "made").rename(tmp_path / NOT_UTF8)

    for name in NAMES:
        done = run(arguments(name, place, place))

        assert_told(done, {0, 1, 2})
        assert done.returncode < 2 or done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("name", sorted(WRITES))
def test_nothing_can_be_written_there(name, place):
    done = run(arguments(name, place, Path("/proc/self/no-such")))

    assert_told(done, {2, 3})
    assert done.stderr.count(b"\n") == 1
