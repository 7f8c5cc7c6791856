import hashlib
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import sklearn.datasets
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, f1_score

from evalkit.checkpoint import load_checkpoint
from evalkit.demo import demonstrate
from evalkit.demo.demonstrate import run
from evalkit.demo.digits import CLASSES, file_names, load_digits, split
from evalkit.demo.net import DigitsNet, digits_net
from evalkit.errors import InputError


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """One whole demonstration: the folder, and what was returned."""
    folder = tmp_path_factory.mktemp("demo") / "demo-report"
    threads = torch.get_num_threads()
    evaluation = run(folder)
    assert torch.get_num_threads() == threads
    return folder, evaluation


def test_digits_are_those_of_scikit_learn():
    theirs = sklearn.datasets.load_digits()

    ours = load_digits()

    np.testing.assert_array_equal(ours.labels, theirs.target)
    np.testing.assert_array_equal(ours.images, np.rint(theirs.images * 255 / 16))


def test_split_is_stratified_disjoint_and_complete():
    labels = load_digits().labels

    parts = split(labels, seed=0)

    assert sorted(parts["train"] + parts["val"]) == list(range(1797))
    for digit in range(10):
        held_out = np.sum(labels[parts["val"]] == digit) / np.sum(labels == digit)
        assert 0.19 < held_out < 0.21
    assert parts == split(labels, seed=0)
    assert parts != split(labels, seed=1)


def test_net_normalises_with_the_figures_of_the_training_digits():
    digits = load_digits()
    pixels = digits.images[split(digits.labels, seed=demonstrate.SEED)["train"]] / 255

    assert DigitsNet.transform.mean == (pytest.approx(pixels.mean(), abs=0.001),)
    assert DigitsNet.transform.std == (pytest.approx(pixels.std(), abs=0.001),)


def test_accuracy(demo):
    _folder, evaluation = demo

    assert evaluation.summary["accuracy"] >= 0.98
    assert evaluation.summary["samples"] == 359
    assert evaluation.summary["warnings"] == []


def test_folder_holds_images_checkpoint_and_tables_and_nothing_else(demo):
    folder, _evaluation = demo

    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}

    images = set(file_names(load_digits().labels, seed=demonstrate.SEED))
    assert len(images) == 1797
    assert images < files
    assert {*demonstrate.RESULTS, "checkpoint.pth", ".evalkit-demo"} == files - images
    assert {
        "checkpoint.pth", "per_class.csv", "confusion_matrix.csv", "summary.json",
        "predictions.parquet",
    } <= files  # fmt: skip
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_images_are_the_digits(demo):
    folder, _evaluation = demo
    digits = load_digits()

    for name, position in file_names(digits.labels, seed=demonstrate.SEED).items():
        assert name.split("/")[1] == str(digits.labels[position])
        with Image.open(folder / name) as image:
            np.testing.assert_array_equal(np.asarray(image), digits.images[position])


def test_checkpoint_is_as_data_parallel_leaves_it(demo):
    folder, _evaluation = demo

    tree = torch.load(folder / "checkpoint.pth", weights_only=True)

    assert list(tree) == ["epoch", "arch", "state_dict", "best_acc1", "optimizer"]
    assert list(tree["state_dict"]) == [f"module.{key}" for key in digits_net().state_dict()]
    assert tree["best_acc1"] > 98
    with pytest.raises(RuntimeError, match=r"Missing key\(s\)"):
        digits_net().load_state_dict(tree["state_dict"])


def test_a_plain_loop_over_the_files_finds_the_same_accuracy(demo):
    folder, evaluation = demo
    model, report = load_checkpoint(folder / "checkpoint.pth", digits_net())
    model.eval()

    labels, predictions = [], []
    for name in CLASSES:
        for path in sorted((folder / "val" / name).iterdir()):
            with Image.open(path) as image, torch.inference_mode():
                pixels = torch.tensor(np.asarray(image), dtype=torch.float32) / 255
            normal = (pixels - DigitsNet.transform.mean[0]) / DigitsNet.transform.std[0]
            predictions.append(int(model(normal[None, None]).argmax()))
            labels.append(int(name))

    assert report.prefixes == ("module.",)
    assert accuracy_score(labels, predictions) == pytest.approx(evaluation.summary["accuracy"])
    macro = f1_score(labels, predictions, average="macro")
    assert macro == pytest.approx(evaluation.summary["macro"]["f1"], abs=1e-12)


def test_tables_on_disk(demo):
    folder, evaluation = demo

    summary = json.loads((folder / "summary.json").read_text())
    assert summary == evaluation.summary
    assert summary["checkpoint"]["path"] == str(folder / "checkpoint.pth")
    assert summary["command"] == f"evalkit demo --out {folder}"
    sha256 = hashlib.sha256((folder / "checkpoint.pth").read_bytes()).hexdigest()
    assert summary["checkpoint"]["sha256"] == sha256
    assert summary["checkpoint"]["matched_fraction"] == 1.0
    confusion = pd.read_csv(folder / "confusion_matrix.csv", index_col="true")
    assert confusion.to_numpy().sum() == 359
    per_class = pd.read_csv(folder / "per_class.csv")
    assert per_class["class"].tolist() == list(range(10))
    assert per_class["support"].sum() == 359
    predictions = pd.read_parquet(folder / "predictions.parquet")
    assert (folder / "val" / predictions["path"][0]).is_file()
    assert (predictions["label"] == predictions["prediction"]).mean() == summary["accuracy"]


def test_a_former_demonstration_is_replaced(demo):
    folder, evaluation = demo
    (folder / "per_class.csv").write_text("scribbled on")

    again = run(folder)

    assert (folder / "per_class.csv").read_text().startswith("class,precision,")
    assert again.summary["accuracy"] == evaluation.summary["accuracy"]  # seeded
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def message_of(out):
    with pytest.raises(InputError) as error:
        run(out, epochs=1)
    return str(error.value)


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")

    assert message_of(tmp_path) == (
        "out must be a new or empty folder, or hold only a former demonstration, got "
        f"{tmp_path} with thesis.tex: choose another"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_files_put_into_a_demonstration_are_left_alone(tmp_path):
    (tmp_path / ".evalkit-demo").touch()
    (tmp_path / "train" / "7").mkdir(parents=True)
    (tmp_path / "train" / "7" / "my own seven.png").touch()

    assert message_of(tmp_path) == (
        "out must be a new or empty folder, or hold only a former demonstration, got "
        f"{tmp_path} with train/7/my own seven.png: choose another"
    )


def test_out_that_is_a_file(tmp_path):
    out = tmp_path / "file"
    out.touch()

    assert message_of(out) == (
        f"out must be a folder, got {out}: {out} is a file; choose another name"
    )


def test_an_interrupted_demonstration_leaves_nothing_behind(tmp_path):
    out = tmp_path / "new" / "demo-report"
    command = [sys.executable, "-m", "evalkit", "demo", "--out", str(out)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(300):
            if out.parent.exists() and list(out.parent.glob(".demo-report.*/train/0/*.png")):
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _out, stderr = process.communicate(timeout=60)

    assert stderr.strip() == "evalkit: interrupted"
    assert process.returncode == 130
    assert not out.exists()
    assert list(out.parent.iterdir()) == []
