import gzip
import os
import shlex
import subprocess
import sys

import pytest
import torch
from checkpoint_files import small_net
from image_files import CLASSES, ColourNet, coloured, write_folders

from evalkit.checkpoint import save_checkpoint
from evalkit.cli import main
from evalkit.transforms import evaluation

MODEL = "image_files:colour_net"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A current directory with a checkpoint and a data folder: what a user has."""
    transform = evaluation(resize=None, crop=8).as_dict()
    save_checkpoint(tmp_path / "net.pth", ColourNet(), classes=CLASSES, transform=transform)
    write_folders(tmp_path / "data", {"blue": 4, "green": 3, "red": 3})
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def evalkit(monkeypatch, capfd):
    """Run the command in this process -> exit code, standard output, standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["evalkit", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, *capfd.readouterr()

    return run


def refused(evalkit, project, **options):
    """The one line that a bad option ends with; everything else is right."""
    right = {"checkpoint": "net.pth", "model": MODEL, "data": "data", "out": "report"}
    options = right | {name.replace("_", "-"): value for name, value in options.items()}
    before = sorted(project.rglob("*"))
    arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    code, output, line = evalkit("evaluate", *arguments)

    assert code == 2
    assert output == ""
    assert line.endswith("\n")
    assert sorted(project.rglob("*")) == before  # nothing was written
    return line.removesuffix("\n")


def test_the_whole_line(evalkit, project):
    code, output, errors = evalkit(
        "evaluate", "--checkpoint", "net.pth", "--model", MODEL, "--data", "data",
        "--out", "deep/report", "--batch-size", "3", "--workers", "1", "--device", "cpu",
    )  # fmt: skip

    assert (code, errors) == (0, "")
    assert output.startswith("10 samples, 3 classes\n\naccuracy")
    assert output.endswith("\nwritten to deep/report\n")
    files = {path.name for path in (project / "deep/report").iterdir()}
    assert {
        "per_class.csv", "confusion_matrix.csv", "summary.json", "predictions.parquet",
    } <= files  # fmt: skip


def test_model_of_the_current_directory(evalkit, project):
    (project / "own.py").write_text(
        "from image_files import colour_net\n\ndef net():\n    return colour_net()\n"
    )

    for place in ("own", "own.py"):
        code, _output, errors = evalkit(
            "evaluate", "--checkpoint", "net.pth", "--model", f"{place}:net", "--data", "data",
            "--out", "report",
        )  # fmt: skip
        assert (code, errors) == (0, "")
    sys.modules.pop("own", None)


def test_classes_from_a_file(evalkit, project):
    torch.save(ColourNet().state_dict(), project / "plain.pth")
    (project / "classes.txt").write_text("blue\ngreen\nred\n")

    code, output, _errors = evalkit(
        "evaluate", "--checkpoint", "plain.pth", "--model", MODEL, "--data", "data", "--out",
        "report", "--classes", "classes.txt", "--on-unreadable", "skip", "--precision", "bf16",
    )  # fmt: skip

    assert code == 0
    assert "10 samples, 3 classes" in output


def write_gzip(path):
    path.write_bytes(gzip.compress(b"x" * 100))


def write_truncated(path):
    torch.save(small_net().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-200])


FILES = {
    "text": (
        lambda path: path.write_text("hello\n"),
        "a text file: check the path",
    ),
    "HTML": (
        lambda path: path.write_text("<!DOCTYPE html><html></html>"),
        "an HTML page, as a download that asked for a login leaves it: fetch the file itself again",
    ),
    "gzip": (
        write_gzip,
        "a gzip archive: unpack it with 'gunzip' or 'tar xzf' and give the checkpoint inside",
    ),
    "truncated": (
        write_truncated,
        "a zip file whose list of contents, at its end, is missing or damaged, as a download that "
        "broke off or a full disk leaves it: fetch or save it again",
    ),
    "empty": (
        lambda path: path.write_bytes(b""),
        "an empty file, as a save or download that broke off leaves it: fetch or save it again",
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_files_that_are_no_checkpoints(evalkit, project, kind):
    write, expected = FILES[kind]
    write(project / "bad.pth")

    line = refused(evalkit, project, checkpoint="bad.pth")

    assert line == f"evalkit: bad.pth: expected a checkpoint, got {expected}"


def test_checkpoint_that_is_not_there_or_a_directory(evalkit, project):
    assert refused(evalkit, project, checkpoint="missing.pth") == (
        "evalkit: missing.pth: expected a checkpoint file, got a path where there is none: check "
        "the path"
    )
    assert refused(evalkit, project, checkpoint="data") == (
        "evalkit: data: expected a checkpoint file, got a directory: give the file"
    )


def test_checkpoint_of_another_model(evalkit, project):
    torch.save(small_net().state_dict(), project / "other.pth")

    assert refused(evalkit, project, checkpoint="other.pth") == (
        "evalkit: other.pth: expected weights for ColourNet, which has head.weight (3, 3), "
        "head.bias (3,), got none that fit by name and shape: '.' has stem.weight (4, 3, 3, 3), "
        "stem.bias (4,) and 16 more: give the model that was trained"
    )


def test_data_that_is_none(evalkit, project):
    (project / "empty").mkdir()
    (project / "flat").mkdir()
    coloured("red", 1).save(project / "flat" / "a.png")

    assert refused(evalkit, project, data="empty") == (
        "evalkit: data must be a folder with one folder per class, got empty with nothing in "
        "it: put the images of each class into a folder of its name, or list them in a manifest"
    )
    assert refused(evalkit, project, data="flat") == (
        "evalkit: data must be a folder with one folder per class, got flat with 1 image and no "
        "folder in it: put the images of each class into a folder of its name, or list them in a "
        "manifest"
    )
    assert refused(evalkit, project, data="nowhere") == (
        "evalkit: data must be a folder of class folders, a manifest (.csv or .parquet), "
        "WebDataset tars, huggingface:PATH or package.module:function, got nowhere: a path where "
        "there is nothing"
    )


def test_labels_outside_the_classes(evalkit, project):
    (project / "list.csv").write_text("path,label\ndata/red/0.png,red\ndata/red/1.png,purple\n")

    assert refused(evalkit, project, data="list.csv") == (
        "evalkit: data must have only classes that the model knows by the checkpoint, 3 names such "
        "as blue, green, red, got 1 other in list.csv: purple: leave their samples out with "
        "--on-unknown-class skip"
    )


@pytest.mark.parametrize("spec", ["nonsense", "nonsense:net", "torchvision:resnet1800"])
def test_models_that_are_none(evalkit, project, spec):
    expected = {
        "nonsense": "model must be torchvision:NAME, timm:NAME, package.module:function or "
        "file.py:function, got 'nonsense'",
        "nonsense:net": "model must name a module that imports, got 'nonsense': "
        "ModuleNotFoundError: No module named 'nonsense'",
        "torchvision:resnet1800": "model must be one that torchvision has, got 'resnet1800': "
        "close names are resnet18, resnet101, resnet50",
    }

    assert refused(evalkit, project, model=spec) == f"evalkit: {expected[spec]}"


def test_no_model_anywhere(evalkit, project):
    code, _output, errors = evalkit(
        "evaluate", "--checkpoint", "net.pth", "--data", "data", "--out", "report"
    )

    assert code == 2
    assert errors == (
        "evalkit: net.pth: expected a model to load into, got none, and the file names none (2 "
        "tensors in 'state_dict': head.weight, head.bias): give the model, such as "
        "torchvision:resnet18\n"
    )
    assert not (project / "report").exists()


def test_unreadable_images(evalkit, project):
    (project / "data" / "red" / "1.png").write_bytes(b"")

    assert refused(evalkit, project) == (
        "evalkit: data must have images that can be read, got 1 of 10 in data that cannot: "
        "red/1.png (the file is empty): mend them, or leave them out with --on-unreadable skip"
    )


def test_out_that_is_a_file(evalkit, project):
    assert refused(evalkit, project, out="net.pth") == (
        "evalkit: out must be a folder, got net.pth: net.pth is a file; choose another name"
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
def test_options_out_of_range(evalkit, project):
    assert refused(evalkit, project, device="cuda") == (
        "evalkit: device must be one that is there, got 'cuda': torch sees none: run 'gpudiag "
        "diagnose' to see why"
    )
    assert refused(evalkit, project, allow_partial="2") == (
        "evalkit: --allow-partial must be in (0, 1], got 2.0"
    )
    assert refused(evalkit, project, weights="ema") == (
        "evalkit: net.pth: expected a set of weights named 'ema', got state_dict: give one of "
        "these names"
    )
    assert refused(evalkit, project, precision="int8") == (
        "evalkit: Invalid value for '--precision': 'int8' is not one of 'fp32', 'tf32', 'bf16', "
        "'fp16'. See 'evalkit evaluate --help'."
    )


def test_without_torch(tmp_path):
    """An import that fails is one line, whichever way it fails."""
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.13: cannot open')\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}

    done = subprocess.run(
        [sys.executable, "-m", "evalkit", "demo", "--out", str(tmp_path / "report")],
        capture_output=True, text=True, check=False, env=environment, cwd=tmp_path,
    )  # fmt: skip

    assert done.returncode == 2
    assert done.stderr == (
        "evalkit: this command needs torch, got 'libcudart.so.13: cannot open' when it was "
        "imported: pip install 'gpudiag[eval]', or run 'gpudiag diagnose' if it is installed\n"
    )
    assert not (tmp_path / "report").exists()


@pytest.mark.usefixtures("project")
def test_demo_says_what_to_try_next_and_it_works(evalkit):
    code, output, errors = evalkit("demo", "--out", "my demo")

    assert (code, errors) == (0, "")
    assert output.splitlines()[-3:] == [
        "written to my demo: images, checkpoint, tables. Next, the same with your own hands:",
        "  evalkit evaluate --checkpoint 'my demo'/checkpoint.pth --model "
        "evalkit.demo.net:digits_net --data 'my demo'/val --out my-report",
        "  evalkit report 'my demo'/predictions.parquet --out second-report",
    ]
    for line in output.splitlines()[-2:]:
        code, again, errors = evalkit(*shlex.split(line)[1:])
        assert (code, errors) == (0, "")
        assert {output.splitlines()[0], output.splitlines()[2]} <= {*again.splitlines()}
