import os
import subprocess
import sys

import pytest
import torch
from checkpoint_files import SmallNet, same_weights, small_net
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from torchvision.transforms import v2

from evalkit.checkpoint import load_checkpoint, save_checkpoint
from evalkit.checkpoint.read import read
from evalkit.errors import InputError
from evalkit.transforms import TransformSpec, evaluation


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.pth"


def test_plain_torch_reads_it_with_nothing_of_ours_imported(path):
    save_checkpoint(
        path,
        small_net(num_classes=2),
        classes=["cat", "dog"],
        transform={"resize": 256, "mean": [0.5]},
        model_spec="torchvision:resnet18",
        epoch=3,
    )
    program = (
        "import sys, torch; tree = torch.load(sys.argv[1], weights_only=True); "
        "print(sorted(tree), tree['classes'], tree['transform'], 'evalkit' in sys.modules)"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
    )

    assert done.stdout == (
        "['classes', 'epoch', 'model_spec', 'state_dict', 'transform'] ['cat', 'dog'] "
        "{'resize': 256, 'mean': [0.5]} False\n"
    )


def test_comes_back_as_it_was(path):
    save_checkpoint(path, small_net(seed=1), classes=[str(digit) for digit in range(10)])

    loaded, report = load_checkpoint(path, SmallNet())

    assert same_weights(loaded, small_net(seed=1))
    assert report.classes == tuple("0123456789")


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
def test_a_transform_is_stored_as_it_is(tmp_path, name):
    spec = evaluation(resize=40, crop=(32, 30))

    save_checkpoint(tmp_path / name, small_net(), transform=spec)

    stored = read(tmp_path / name).notes["transform"]
    assert TransformSpec.from_dict(stored) == spec


def test_a_transform_of_another_kind_is_refused(path):
    with pytest.raises(InputError) as error:
        save_checkpoint(path, small_net(), transform=v2.CenterCrop(3))

    assert str(error.value) == (
        "transform must be made by evalkit.transforms, which can be stored, got CenterCrop"
    )
    assert not path.exists()


def test_wrappers_leave_no_trace_in_the_keys(path):
    save_checkpoint(path, torch.compile(nn.DataParallel(small_net()), backend="eager"))

    state = torch.load(path, weights_only=True)["state_dict"]

    assert list(state) == list(small_net().state_dict())


def test_file_that_is_there_is_replaced_whole(path, tmp_path):
    save_checkpoint(path, small_net(seed=1))
    save_checkpoint(path, small_net(seed=2))

    loaded, _report = load_checkpoint(path, SmallNet())

    assert same_weights(loaded, small_net(seed=2))
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_are_those_of_any_new_file(path, tmp_path):
    save_checkpoint(path, small_net())
    (tmp_path / "other").touch()

    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


class Config:
    pass


def test_object_that_could_not_be_read_safely_leaves_the_old_file(path, tmp_path):
    save_checkpoint(path, small_net(seed=1))

    with pytest.raises(InputError) as error:
        save_checkpoint(path, small_net(seed=2), config=Config())

    assert str(error.value) == (
        f"{path}: expected numbers, text, tensors, lists and dicts beside the weights, got an "
        f"object of class {Config.__module__}.Config: convert it first"
    )
    loaded, _report = load_checkpoint(path, SmallNet())
    assert same_weights(loaded, small_net(seed=1))
    assert list(tmp_path.iterdir()) == [path]


def test_folder_that_does_not_exist(tmp_path):
    path = tmp_path / "runs" / "best.pth"

    with pytest.raises(InputError) as error:
        save_checkpoint(path, small_net())

    assert str(error.value) == (
        f"{path}: expected a place to write a checkpoint to, got 'No such file or directory': "
        "choose another path"
    )


def test_classes_that_repeat(path):
    with pytest.raises(InputError) as error:
        save_checkpoint(path, small_net(), classes=["cat", "cat"])

    assert str(error.value) == "classes must differ from each other, got ['cat', 'cat']"
    assert not path.exists()


def test_classes_by_output_are_written_in_order(path):
    save_checkpoint(path, small_net(), classes={"dog": 1, "cat": 0})

    assert torch.load(path, weights_only=True)["classes"] == ["cat", "dog"]


@pytest.mark.parametrize("classes", ["cat,dog", {"cat", "dog"}, {"cat": 1, "dog": 2}])
def test_classes_that_name_no_outputs(path, classes):
    with pytest.raises(InputError, match="classes must"):
        save_checkpoint(path, small_net(), classes=classes)

    assert not path.exists()


def test_safetensors_by_suffix(tmp_path):
    path = tmp_path / "best.safetensors"
    save_checkpoint(
        path,
        nn.DataParallel(small_net(seed=1, num_classes=2)),
        classes=["cat", "dog"],
        transform={"resize": 256, "mean": [0.5]},
        model_spec="torchvision:resnet18",
        epoch=3,
    )

    loaded, report = load_checkpoint(path, SmallNet(num_classes=2))

    assert set(load_file(path)) == set(small_net().state_dict())
    with safe_open(path, "pt") as file:
        assert file.metadata() == {
            "format": "pt",
            "classes": '["cat", "dog"]',
            "transform": '{"resize": 256, "mean": [0.5]}',
            "model_spec": '"torchvision:resnet18"',
            "epoch": "3",
        }
    assert same_weights(loaded, small_net(seed=1, num_classes=2))
    assert report.classes == ("cat", "dog")
    assert report.transform == {"resize": 256, "mean": [0.5]}
    assert report.model_spec == "torchvision:resnet18"
    assert list(tmp_path.iterdir()) == [path]
    (tmp_path / "other").touch()
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(4, 4, bias=False)
        self.decoder = nn.Linear(4, 4, bias=False)
        self.decoder.weight = self.encoder.weight


def test_tied_weights_in_safetensors(tmp_path):
    path, model = tmp_path / "tied.safetensors", Tied()
    save_checkpoint(path, model)

    loaded, report = load_checkpoint(path, Tied())

    assert torch.equal(loaded.decoder.weight, model.encoder.weight)
    assert report.matched_fraction == 1


def test_safetensors_hold_no_tensors_beside_the_weights(tmp_path):
    path = tmp_path / "best.safetensors"

    with pytest.raises(InputError) as error:
        save_checkpoint(path, small_net(), mean=torch.ones(3))

    assert str(error.value) == (
        f"{path}: expected numbers, text, lists and dicts beside the weights, got Object of type "
        "Tensor is not JSON serializable: convert it first, or save under another suffix than "
        ".safetensors"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_is_not_utf_8_is_refused_and_nothing_is_left(tmp_path):
    folder = tmp_path / os.fsdecode(b"n\xffme")
    folder.mkdir()

    with pytest.raises(InputError, match="expected a path in UTF-8"):
        save_checkpoint(folder / "a.pth", nn.Linear(2, 2))

    assert list(folder.iterdir()) == []
