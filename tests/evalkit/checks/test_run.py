"""The checks as a user meets them: a checkpoint on disk, a command, what is printed and written."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from painted import CLASSES, RIGHT, PaintedNet, trained, write_painted

from evalkit.checkpoint import save_checkpoint
from evalkit.errors import InputError
from evalkit.run import evaluate
from evalkit.run.options import Options

PLAIN = replace(RIGHT, mean=(0.0,) * 3, std=(1.0,) * 3)
ALL = [
    "label-order", "class-names", "channel-order", "normalisation", "preset", "batch-norm",
    "repeatability", "batch-dependence",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Checkpoints and images."""
    folder = tmp_path_factory.mktemp("checks")
    net = trained()
    save_checkpoint(folder / "net.pth", net, classes=CLASSES, transform=RIGHT.as_dict())
    save_checkpoint(folder / "wrong.pth", net, classes=CLASSES, transform=PLAIN.as_dict())
    torch.save(net.state_dict(), folder / "plain.pth")
    write_painted(folder / "val", each=75, first_seed=0)
    write_painted(folder / "train", each=10, first_seed=10_000)
    return folder


def run(place, checkpoint="net.pth", **options):
    return evaluate(place / checkpoint, place / "val", model=PaintedNet(), device="cpu", **options)


def warned(evaluation):
    return [c["id"] for c in evaluation.summary["checks"] if c["verdict"] == "warning"]


def test_a_right_run_is_asked_everything_and_warned_of_nothing(place):
    evaluation = run(place)

    assert [check["id"] for check in evaluation.summary["checks"]] == ALL
    assert {check["verdict"] for check in evaluation.summary["checks"]} == {"passed"}
    assert evaluation.summary["warnings"] == []


def test_a_checkpoint_with_the_wrong_normalisation(place):
    evaluation = run(place, "wrong.pth")

    assert warned(evaluation) == ["normalisation"]
    assert any("the mean and deviation of ImageNet" in w for w in evaluation.summary["warnings"])


def test_classes_given_in_another_order_than_the_checkpoint_has(place):
    evaluation = run(place, classes=CLASSES[::-1])

    assert warned(evaluation) == ["label-order", "class-names"]
    assert (
        "the classes that were given are not in the order of the checkpoint: wedge is output 0 and "
        "was 3, stripes is output 1 and was 2, frame is output 2 and was 1 and 1 more: leave them "
        "out to take those of the checkpoint" in evaluation.summary["warnings"]
    )


def test_a_checkpoint_without_names_and_classes_in_another_order(place):
    order = (*CLASSES[1:], CLASSES[0])

    evaluation = run(place, "plain.pth", classes=order, transform=RIGHT)

    assert warned(evaluation) == ["label-order"]
    names = {check["id"]: check for check in evaluation.summary["checks"]}["class-names"]
    assert names["evidence"] == "the checkpoint does not name its classes"


def test_new_names_for_the_same_outputs_are_no_matter(place, tmp_path):
    shutil.copytree(place / "val", tmp_path / "val")
    (tmp_path / "val" / "disc").rename(tmp_path / "val" / "circle")

    evaluation = evaluate(
        place / "net.pth",
        tmp_path / "val",
        model=PaintedNet(),
        device="cpu",
        classes=("circle", *CLASSES[1:]),
    )

    assert warned(evaluation) == []


def test_no_checks(place):
    summary = run(place, "wrong.pth", checks=0).summary

    assert [check["id"] for check in summary["checks"]] == ["label-order", "class-names"]


def test_memory_or_folder_the_checks_are_the_same(place, tmp_path):
    in_memory, on_disk = run(place, "wrong.pth"), run(place, "wrong.pth", out=tmp_path / "out")

    assert in_memory.summary["checks"] == on_disk.summary["checks"]
    written = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert written["checks"] == on_disk.summary["checks"]


def test_verify_and_training_data(place, tmp_path):
    train = tmp_path / "train"
    shutil.copytree(place / "train", train)
    shutil.copy(place / "val" / "disc" / "007.png", train / "frame" / "stray.png")

    evaluation = run(place, verify=20, train_data=train)

    checks = {check["id"]: check for check in evaluation.summary["checks"]}
    assert checks["precision"]["verdict"] == "passed"
    assert checks["precision"]["samples"] == 20
    assert warned(evaluation) == ["train-test-duplicates"]
    assert checks["train-test-duplicates"]["pairs"] == [
        {"test": "disc/007.png", "train": "frame/stray.png", "exact": True}
    ]


def test_training_data_that_are_not_there_are_told_before_the_run(place, tmp_path):
    with pytest.raises(InputError, match="data must be a folder of class folders"):
        run(place, train_data=tmp_path / "nowhere")


@pytest.mark.parametrize("wrong", [{"checks": -1}, {"verify": -1}])
def test_negative_numbers(wrong):
    with pytest.raises(InputError) as error:
        Options(**wrong)

    assert str(error.value).startswith("checks and verify must be 0 or more, got ")


def test_the_command_says_it_in_the_terminal_and_in_every_report(place, tmp_path):
    code = tmp_path / "net.py"
    code.write_text(
        "from torch import nn\n"
        "class PaintedNet(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.features = nn.Sequential(\n"
        "            nn.Conv2d(3, 16, 5, stride=2), nn.BatchNorm2d(16), nn.ReLU(),\n"
        "            nn.Conv2d(16, 32, 3), nn.BatchNorm2d(32), nn.ReLU())\n"
        "        self.head = nn.Linear(32, 4)\n"
        "    def forward(self, pixels):\n"
        "        return self.head(self.features(pixels).mean((2, 3)))\n"
    )
    out = tmp_path / "out"
    command = [
        sys.executable, "-m", "evalkit", "evaluate", "--checkpoint", str(place / "wrong.pth"),
        "--data", str(place / "val"), "--model", f"{code}:PaintedNet", "--out", str(out),
        "--device", "cpu", "--verify", "5", "--train-data", str(place / "train"),
    ]  # fmt: skip

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("! on 256 images of this run, accuracy is ")
    sentence = "with the mean and deviation of ImageNet"
    assert sentence in " ".join(done.stdout.split())
    summary = json.loads((out / "summary.json").read_text())
    assert [check["id"] for check in summary["checks"]] == [
        *ALL, "precision", "train-test-duplicates",
    ]  # fmt: skip
    assert sentence in summary["warnings"][0]
    assert (out / "summary.md").read_text().startswith("## Evaluation\n\n> ⚠️ on 256 images")
    page = (out / "report.html").read_text()
    assert page.index(sentence) < page.index("balanced accuracy")
