"""``evalkit train`` from data to report, and what it leaves for others."""

import json
import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from training_runs import FULL, write_split

import evalkit
from evalkit.checkpoint.inspection import inspect_checkpoint
from evalkit.cli import cli
from evalkit.commands import train as command
from evalkit.demo.digits import load_digits, write_images
from evalkit.errors import InputError
from evalkit.training.job import prepare
from evalkit.training.recipe import BEST_BY, OPTIMIZERS, Recipe
from evalkit.training.schedules import SCHEDULES
from evalkit.training.splits import open_split

TESTS = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS)}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_split(tmp_path_factory.mktemp("train") / "data")


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "evalkit", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=False,
    )


def trained(data, out, recipe, model="training_runs:tiny_net", **choices):
    torch.set_num_threads(1)
    usual = {"device": "cpu", "workers": 0}
    ready = prepare(data, model, out=out, recipe=recipe, **(usual | choices))
    return ready, list(ready.epochs())


@pytest.fixture(autouse=True)
def same_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_from_folders_to_a_report_and_on_to_evaluate_without_naming_the_model(data, tmp_path):
    """A pretrained-size model, its backbone frozen, at a small size, as one command line."""
    out = tmp_path / "run"
    done = run(
        *("train", "--data", data, "--model", "torchvision:resnet18", "--out", out),
        *("--freeze-backbone", "--image-size", 32, "--epochs", 2, "--batch-size", 16),
        *("--device", "cpu", "--workers", 1),
    )
    again = evalkit.evaluate(out / "best.pth", data / "val", device="cpu").summary

    assert done.returncode == 0, done.stderr
    assert [line[:9] for line in done.stdout.splitlines()[:2]] == ["epoch 1/2", "epoch 2/2"]
    assert {path.name for path in out.iterdir()} >= {
        *("last.pth", "best.pth", "epoch_0001.pth", "epoch_0002.pth", "log.csv"),
        *("confusion_matrix.csv", "per_class.csv", "summary.json", "report.html"),
    }
    summary = json.loads((out / "summary.json").read_text())
    log = pd.read_csv(out / "log.csv")
    assert summary["accuracy"] == again["accuracy"]
    assert summary["accuracy"] == pytest.approx(log["validation_accuracy"].max())
    assert summary["model"]["spec"] == "torchvision:resnet18"
    start = evalkit.load_checkpoint(out / "epoch_0001.pth")[0].state_dict()
    end = evalkit.load_checkpoint(out / "epoch_0002.pth")[0].state_dict()
    changed = {key for key in start if not torch.equal(start[key], end[key])}
    assert changed == {"fc.weight", "fc.bias"}  # nor any statistic of batch norm


def test_handwritten_digits_are_learnt(tmp_path):
    write_images(tmp_path / "digits", load_digits(), seed=0)
    recipe = Recipe(epochs=6, learning_rate=0.01, random_area=None, flip=0, best_by="loss")

    ready, records = trained(
        tmp_path / "digits", tmp_path / "run", recipe, model="evalkit.demo.net:digits_net"
    )

    assert max(record.validation_accuracy for record in records) >= 0.98
    assert ready.report().summary["accuracy"] >= 0.98


def test_a_checkpoint_has_everything_and_plain_torch_reads_it(data, tmp_path):
    ready, _records = trained(
        data, tmp_path, replace(FULL, epochs=1, warm_up=0), command="evalkit train …"
    )
    kept = torch.load(tmp_path / "best.pth", weights_only=True)
    found = inspect_checkpoint(tmp_path / "best.pth")
    _model, report = evalkit.load_checkpoint(tmp_path / "best.pth", ready.begun.model)

    assert set(kept) == {
        *("state_dict", "state_dict_ema", "ema_updates", "optimizer", "scheduler", "scaler"),
        *("epoch", "position", "loss_sums", "rng", "classes", "transform", "model_spec"),
        *("recipe", "data", "left_out", "new_head", "command", "environment"),
    }
    assert kept["classes"] == ["left", "right"]
    assert kept["environment"]["torch"] == str(torch.__version__)
    assert {one.name for one in found.weights} == {"state_dict", "state_dict_ema"}
    assert (report.weights, report.matched_fraction) == ("state_dict", 1.0)


def test_the_moving_average_is_what_is_scored(data, tmp_path):
    recipe = replace(FULL, epochs=2, warm_up=0, ema=0.5)
    ready, records = trained(data, tmp_path, recipe)

    best = max(record.validation_accuracy for record in records)
    evaluation = ready.report()

    assert evaluation.summary["checkpoint"]["container"] == "state_dict_ema"
    assert evaluation.summary["accuracy"] == pytest.approx(best)


def test_the_newest_epochs_are_kept_and_no_more(data, tmp_path):
    trained(data, tmp_path, replace(FULL, epochs=4), keep=1)

    assert sorted(path.name for path in tmp_path.glob("*.pth")) == [
        "best.pth",
        "epoch_0004.pth",
        "last.pth",
    ]


def test_a_share_of_every_class_validates_and_the_manifest_says_which(data, tmp_path):
    whole = data / "train"
    ready, _records = trained(whole, tmp_path, replace(FULL, epochs=2), val_fraction=0.25)

    written = tmp_path / "manifest.csv"
    table = pd.read_csv(written)
    again = open_split(written)
    counts = table.value_counts(["label", "split"]).to_dict()
    assert counts == {(name, "train"): 12 for name in ("left", "right")} | {
        (name, "val"): 4 for name in ("left", "right")
    }
    assert [Path(path).parts[-2:] for path in again.validation.paths] == [
        Path(path).parts[-2:] for path in ready.split.validation.paths
    ]
    assert open_split(whole, val_fraction=0.25, seed=4).validation.paths != (
        ready.split.validation.paths
    )


def test_a_manifest_with_a_split_column(data, tmp_path):
    rows = [
        (path, path.parent.name, path.parent.parent.name) for path in sorted(data.rglob("*.png"))
    ]
    table = pd.DataFrame([*rows, ("gone.png", "left", "test")], columns=["path", "label", "split"])
    table.to_csv(tmp_path / "all.csv", index=False)

    split = open_split(tmp_path / "all.csv")

    assert (len(split.train), len(split.validation)) == (32, 12)
    assert split.validation.doubts == ()  # its rows are those that are meant


def test_data_that_is_not_split_needs_a_share(data):
    with pytest.raises(InputError, match="give val_fraction to draw the validation samples"):
        open_split(data / "train")


def test_from_a_checkpoint_with_another_head(data, tmp_path):
    model = "torchvision:squeezenet1_1"
    first = evalkit.training.start(model, num_classes=5)
    evalkit.save_checkpoint(tmp_path / "five.pth", first.model, model_spec=model)
    choices = {"init_from": tmp_path / "five.pth", "model": None, "new_head": True}
    recipe = Recipe(epochs=1, batch_size=16, image_size=32, freeze_backbone=True, schedule="step")

    ready, _records = trained(data, tmp_path / "run", recipe, **choices)
    (tmp_path / "five.pth").unlink()
    again = prepare(
        data, None, out=tmp_path / "run", recipe=recipe, resume=True, device="cpu", workers=0
    )

    kept = torch.load(tmp_path / "run/last.pth", weights_only=True)
    assert kept["model_spec"] == model
    assert len(kept["state_dict"]["classifier.1.bias"]) == 2
    assert list(again.epochs()) == []
    assert again.report().summary["samples"] == len(ready.split.validation)


def test_training_ends_when_nothing_gets_better(data, tmp_path):
    recipe = replace(FULL, epochs=50, learning_rate=1e-12, patience=2, ema=None)

    _ready, records = trained(data, tmp_path, recipe)
    again, more = trained(data, tmp_path, recipe, resume=True)

    assert len(records) < 10
    assert more == []
    assert again.former == tuple(records)


def test_the_command_knows_what_the_recipe_knows():
    options = {option.name: option for option in command.train.params}
    context = command.train.make_context("train", ["--data", "images", "--out", "run"])

    assert options["schedule"].type.choices == SCHEDULES
    assert options["optimizer"].type.choices == OPTIMIZERS
    assert options["best_by"].type.choices == BEST_BY
    given = {field.name: context.params[field.name] for field in fields(Recipe)}
    assert Recipe(**given) == Recipe()


def test_tensorboard_that_is_not_installed_is_said_before_training(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # as if it could not be had
    arguments = [
        *("train", "--data", str(data), "--model", "training_runs:tiny_net", "--tensorboard"),
        *("--out", str(tmp_path / "run"), "--device", "cpu", "--workers", "0"),
    ]

    done = CliRunner().invoke(cli, arguments)

    assert isinstance(done.exception, InputError)
    assert str(done.exception).endswith("pip install tensorboard")
    assert not (tmp_path / "run").exists()


def test_a_training_that_is_complete_is_left_alone(data, tmp_path):
    out = tmp_path / "run"
    line = (
        *("train", "--data", data, "--model", "training_runs:tiny_net", "--out", out),
        *("--image-size", 8, "--epochs", 1, "--device", "cpu", "--workers", 0),
    )
    first = run(*line)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.iterdir()}

    again = run(*line, "--resume")

    assert first.returncode == 0, first.stderr
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout == (
        f"the training in {out} is complete, with 1 epoch and its report: nothing was done. For "
        f"more epochs begin another one from it: --init-from {out}/last.pth --out and another "
        "folder\n"
    )
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.iterdir()}

    (out / "report.html").unlink()  # as one that was killed before the end leaves it
    assert "written to" in run(*line, "--resume").stdout
    assert (out / "report.html").exists()
