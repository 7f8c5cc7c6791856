"""A million classes: bounded time and memory, and an output that a person can read."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch")

from image_files import CLASSES, ColourNet  # noqa: E402

from evalkit import save_checkpoint  # noqa: E402
from evalkit.training.splits import open_split  # noqa: E402
from evalkit.transforms import evaluation  # noqa: E402

CLASSES_IN_ALL = 1_000_000
MOST_GIB = 3.0  # it takes half of that
LONGEST_S = 400  # on a busy machine; an idle one needs a tenth
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Two samples per class on the average, at least one, of which seven in ten are right."""
    chance = np.random.default_rng(0)
    everyone = np.arange(CLASSES_IN_ALL)
    labels = np.concatenate([everyone, chance.integers(0, CLASSES_IN_ALL, CLASSES_IN_ALL)])
    drawn = chance.integers(0, CLASSES_IN_ALL, len(labels))
    predictions = np.where(chance.random(len(labels)) < 0.7, labels, drawn)
    names = np.array([f"class_{number}" for number in everyone])
    paths = [f"images/{number}.png" for number in range(len(labels))]
    frame = pd.DataFrame({"path": paths, "label": names[labels], "prediction": names[predictions]})
    place = tmp_path_factory.mktemp("million") / "table.csv"
    frame.to_csv(place, index=False)
    return place, float((labels == predictions).mean())


def run(*command, cwd):
    """A command's exit code, its output, and the most memory it took, in GiB."""
    said, complained = cwd / "stdout", cwd / "stderr"
    began = time.monotonic()
    with said.open("wb") as out, complained.open("wb") as err:
        child = subprocess.Popen(
            [sys.executable, "-m", *command], stdout=out, stderr=err, cwd=cwd, env=ENVIRONMENT
        )
        _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert time.monotonic() - began < LONGEST_S
    assert used.ru_maxrss / 2**20 < MOST_GIB
    return child.returncode, said.read_text(), complained.read_text()


def test_a_report_counts_all_and_shows_the_worst(table, tmp_path):
    place, accuracy = table

    code, said, complained = run("evalkit", "report", str(place), "--out", "out", cwd=tmp_path)

    assert (code, complained) == (0, "")
    assert "! more than 10,000 classes: " in said
    assert "2,000,000 samples, 1,000,000 classes" in said
    assert "the 20 worst of 1,000,000 classes; all are in per_class.csv" in said
    assert len(said.splitlines()) < 50
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["accuracy"] == pytest.approx(accuracy, abs=1e-12)
    per_class = pd.read_csv(tmp_path / "out/per_class.csv")
    assert len(per_class) == CLASSES_IN_ALL
    assert per_class["support"].sum() == summary["samples"] == 2 * CLASSES_IN_ALL
    assert pd.read_csv(tmp_path / "out/confusion_matrix.csv")["count"].sum() == summary["samples"]
    assert (tmp_path / "out/report.html").stat().st_size < 10 * 2**20


def test_a_model_for_others_is_refused_in_one_line(table, tmp_path):
    place, _ = table
    transform = evaluation(resize=None, crop=None).as_dict()
    save_checkpoint(tmp_path / "c.pth", ColourNet(), classes=CLASSES, transform=transform)
    pd.read_csv(place, usecols=["path", "label"]).to_csv(tmp_path / "manifest.csv", index=False)

    code, said, complained = run(
        *("evalkit", "evaluate", "--checkpoint", "c.pth", "--data", "manifest.csv"),
        *("--model", "image_files:colour_net", "--device", "cpu", "--out", "out"),
        cwd=tmp_path,
    )

    assert (code, said) == (2, "")
    assert complained.count("\n") == 1
    assert len(complained) < 1000
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("split", ["given", "drawn"])
def test_the_samples_of_a_training_are_split(table, tmp_path, split):
    place, _ = table
    manifest = pd.read_csv(place, usecols=["path", "label"])
    manifest = pd.concat([manifest, manifest])  # so that every class has two samples
    if split == "given":
        manifest["split"] = np.repeat(["train", "val"], len(manifest) // 2)
    manifest.to_csv(tmp_path / "manifest.csv", index=False)

    found = open_split(tmp_path / "manifest.csv", val_fraction=0.2 if split == "drawn" else None)

    assert len(found.classes) == CLASSES_IN_ALL
    assert len(found.train) + len(found.validation) == len(manifest)
    assert len(set(found.validation.labels)) == CLASSES_IN_ALL
