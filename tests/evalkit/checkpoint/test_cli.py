"""Checkpoints on the command line: without a model, and with trust."""

import json
import os
import sys

import pytest
import torch
from image_files import CLASSES, ColourNet, write_folders
from torch import nn

from evalkit.cli import main


@pytest.fixture
def evaluate(tmp_path, monkeypatch, capfd):
    """Run ``evalkit evaluate`` on three classes of colours -> code, standard error, summary."""
    write_folders(tmp_path / "data", {"blue": 2, "green": 2, "red": 2})
    monkeypatch.chdir(tmp_path)

    def run(*options):
        right = ["--checkpoint", "net.pth", "--data", "data", "--out", "report", "--workers", "1"]
        monkeypatch.setattr(sys, "argv", ["evalkit", "evaluate", *right, *options])
        with pytest.raises(SystemExit) as end:
            main()
        summary = tmp_path / "report" / "summary.json"
        found = json.loads(summary.read_text()) if summary.exists() else None
        return end.value.code, capfd.readouterr().err, found

    return run


def test_the_architecture_is_told_from_the_file(evaluate):
    torchvision = pytest.importorskip("torchvision")
    model = torchvision.models.get_model("squeezenet1_1", num_classes=3)
    torch.save({"state_dict": nn.DataParallel(model).state_dict(), "classes": CLASSES}, "net.pth")

    code, errors, summary = evaluate()

    assert (code, errors) == (0, "")
    assert summary["model"]["spec"] == "torchvision:squeezenet1_1"
    assert summary["checkpoint"]["guess"] in summary["warnings"][0]
    assert summary["transform"]["origin"] == "model"


def test_a_whole_module_runs_only_when_it_is_trusted(evaluate):
    torch.save({"model": ColourNet(), "classes": CLASSES}, "net.pth")

    code, errors, _none = evaluate()
    assert code == 2
    assert errors == (
        "evalkit: net.pth: expected a model to load into, got none, and the file names none (2 "
        "tensors in 'model': head.weight, head.bias): give the model, such as "
        "torchvision:resnet18; the file holds a whole module, which is the model if you wrote it "
        "and trust it (--trust)\n"
    )

    code, errors, summary = evaluate("--trust")
    assert (code, errors) == (0, "")
    assert summary["samples"] == 6
    assert summary["model"]["class"] == "ColourNet"
    assert any("the file was trusted" in warning for warning in summary["warnings"])


class Hostile:
    def __reduce__(self):
        return os.system, ("echo this must not run",)


def test_converting_tells_what_the_file_would_have_run_and_no_terminal_obeys_it(
    tmp_path, monkeypatch, capfd
):
    weights = {"fc.weight": torch.ones(2, 4)}
    torch.save({"set\x1b[31m": weights, "more": Hostile()}, tmp_path / "in.pth")
    arguments = ["convert", str(tmp_path / "in.pth"), str(tmp_path / "out.safetensors")]
    monkeypatch.setattr(sys, "argv", ["evalkit", *arguments])

    with pytest.raises(SystemExit) as end:
        main()

    said = capfd.readouterr().out
    assert end.value.code == 0
    assert "'set\\x1b[31m'" in said
    assert "\x1b" not in said
    assert "warning: the file names" in said
    assert "system" in said
    assert "must not run" not in said
