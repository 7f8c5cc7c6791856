"""resnet18 with a library's own weights and a frozen backbone, from images to the report."""

import csv
import json
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

COLOURS = {"azure": (30, 60, 230), "lime": (40, 230, 40), "red": (230, 30, 30)}


def write_images(root, counts):
    """Discs of the class's colour, anywhere, of any size, in noise."""
    rng = np.random.default_rng(0)
    for part, count in counts.items():
        for name, colour in COLOURS.items():
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(60, 196, (48, 64, 3))
                y, x = np.mgrid[:48, :64]
                centre, radius = rng.integers((16, 16), (32, 48)), rng.integers(14, 24)
                disc = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2
                pixels[disc] = pixels[disc] // 5 + np.array(colour) * 4 // 5
                image = Image.fromarray(pixels.astype(np.uint8))
                image.save(root / part / name / f"{number}.jpg")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What ``evalkit train`` leaves, and the weights that it started from."""
    folder = tmp_path_factory.mktemp("fine_tuning")
    write_images(folder / "images", {"train": 24, "val": 10})
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(norm_layer=partial(nn.BatchNorm2d, momentum=1.0))
    theirs(torch.randn(32, 3, 64, 64))  # statistics of batch norm that are not those of a new one
    cache = folder / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    name = torchvision.models.ResNet18_Weights.DEFAULT.url.rpartition("/")[2]
    torch.save(theirs.state_dict(), cache / name)

    done = subprocess.run(
        [
            *(sys.executable, "-m", "evalkit", "train", "--data", "images"),
            *("--model", "torchvision:resnet18", "--pretrained", "--freeze-backbone"),
            *("--image-size", "64", "--epochs", "4", "--batch-size", "16"),
            *("--learning-rate", "0.01", "--random-area", "0.5", "--out", "run"),
            *("--device", "cpu", "--workers", "1"),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "TORCH_HOME": str(folder),
            "OMP_NUM_THREADS": "1",
            "https_proxy": "http://127.0.0.1:9",
        },
    )

    assert done.returncode == 0, done.stderr
    return folder / "run", theirs


def test_nothing_but_the_head_has_moved(run):
    out, theirs = run

    kept = torch.load(out / "best.pth", weights_only=True)

    before = theirs.state_dict()
    moved = {
        name for name, value in kept["state_dict"].items() if not torch.equal(value, before[name])
    }
    assert moved == {"fc.weight", "fc.bias"}
    assert kept["state_dict"]["fc.weight"].shape == (3, 512)
    assert kept["classes"] == ["azure", "lime", "red"]


def test_it_learns_and_the_report_says_so(run):
    out, _theirs = run

    with (out / "log.csv").open() as log:
        epochs = list(csv.DictReader(log))
    summary = json.loads((out / "summary.json").read_text())

    assert [row["epoch"] for row in epochs] == ["1", "2", "3", "4"]
    assert float(epochs[-1]["train_loss"]) < float(epochs[0]["train_loss"])
    assert summary["samples"] == 30
    assert summary["accuracy"] >= 0.8  # features of nobody's training tell colours apart
    assert summary["accuracy"] == max(float(row["validation_accuracy"]) for row in epochs)
    assert (out / "report.html").exists()
