import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from checkpoint_files import SmallNet, prefixed, same_weights, small_net
from safetensors.torch import save_model
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from evalkit.checkpoint import load_checkpoint, save_checkpoint
from evalkit.checkpoint.read import read
from evalkit.checkpoint.stored_classes import stored_classes
from evalkit.errors import InputError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.pth"


def message_of(path, model, **options):
    with pytest.raises(InputError) as error:
        load_checkpoint(path, model, **options)
    return str(error.value)


def trained(wrap=lambda model: model):
    """A net whose batch norm has moved and whose optimizer holds tensors."""
    model = wrap(small_net(seed=1))
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(2):
        model(torch.rand(4, 3, 8, 8)).sum().backward()
        optimizer.step()
    return model, optimizer


def inner(model):
    while hasattr(model, "module") or hasattr(model, "_orig_mod"):
        model = model.module if hasattr(model, "module") else model._orig_mod
    return model


WRAPS = {
    "plain": (lambda model: model, ()),
    "DataParallel": (nn.DataParallel, ("module.",)),
    "torch.compile": (lambda model: torch.compile(model, backend="eager"), ("_orig_mod.",)),
    "compile(DataParallel)": (
        lambda model: torch.compile(nn.DataParallel(model), backend="eager"),
        ("_orig_mod.module.",),
    ),
    "DataParallel(compile)": (
        lambda model: nn.DataParallel(torch.compile(model, backend="eager")),
        ("module._orig_mod.",),
    ),
    "AveragedModel": (AveragedModel, ("module.",)),
    "AveragedModel(DataParallel)": (
        lambda model: AveragedModel(nn.DataParallel(model)),
        ("module.module.",),
    ),
}


@pytest.mark.parametrize("name", WRAPS)
def test_whatever_wrapped_the_model_every_tensor_arrives(path, name):
    wrap, prefixes = WRAPS[name]
    model = wrap(small_net(seed=1))
    torch.save({"epoch": 3, "arch": "small", "state_dict": model.state_dict()}, path)

    loaded, report = load_checkpoint(path, SmallNet())

    assert same_weights(loaded, small_net(seed=1))
    assert report.prefixes == prefixes
    assert report.matched_fraction == 1
    assert report.missing == ()
    assert report.weights == "state_dict"
    assert report.warnings == ()


@pytest.mark.parametrize("name", WRAPS)
def test_a_wrapped_model_is_filled_from_a_plain_file(path, name):
    wrap, _prefixes = WRAPS[name]
    torch.save(small_net(seed=1).state_dict(), path)

    loaded, report = load_checkpoint(path, wrap(SmallNet()))

    assert same_weights(inner(loaded), small_net(seed=1))
    assert report.prefixes == ()


def test_layout_of_the_imagenet_example_after_training(path):
    model, optimizer = trained(nn.DataParallel)
    torch.save(
        {
            "epoch": 90,
            "arch": "small",
            "state_dict": model.state_dict(),
            "best_acc1": torch.tensor(76.1),
            "optimizer": optimizer.state_dict(),
        },
        path,
    )

    loaded, report = load_checkpoint(path, SmallNet())

    assert same_weights(loaded, model.module)
    assert report.kind == "torch zip"
    assert report.container == ("epoch", "arch", "state_dict", "best_acc1", "optimizer")
    assert report.candidates == {".": 0.0, "state_dict": 1.0}
    assert len(report.matched) == len(SmallNet().state_dict())


def test_raw_weights_before_averaged_ones_unless_told(path):
    model = small_net(seed=1)
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    ema.module.load_state_dict(small_net(seed=2).state_dict())
    torch.save({"model_ema": ema.state_dict(), "model": model.state_dict()}, path)

    raw, report = load_checkpoint(path, SmallNet())
    averaged, ema_report = load_checkpoint(path, SmallNet(), weights="model_ema")

    assert same_weights(raw, model)
    assert report.weights == "model"
    assert report.candidates == {"model_ema": 1.0, "model": 1.0}
    assert report.warnings == (
        (
            "the checkpoint holds several sets of weights that fit the model: 'model' was taken, "
            "not model_ema"
        ),
    )
    assert same_weights(averaged, ema.module)
    assert ema_report.prefixes == ("module.",)


def test_weights_of_a_name_that_is_not_there(path):
    torch.save({"model": small_net().state_dict(), "ema": small_net().state_dict()}, path)

    assert message_of(path, SmallNet(), weights="teacher") == (
        f"{path}: expected a set of weights named 'teacher', got model, ema: "
        "give one of these names"
    )


def test_half_precision_is_said(path):
    half = small_net(seed=1).half().state_dict()
    torch.save(half, path)

    loaded, report = load_checkpoint(path, SmallNet())

    floats = sum(tensor.is_floating_point() for tensor in half.values())
    assert report.dtype_changes == {"float16 -> float32": floats}
    assert loaded.fc.weight.dtype is torch.float32
    assert torch.equal(loaded.fc.weight, half["fc.weight"].float())


def test_nan_in_the_weights_is_loaded_as_it_is(path):
    model = small_net(seed=1)
    with torch.no_grad():
        model.fc.weight[0, 0] = float("nan")
    torch.save(model.state_dict(), path)

    loaded, _report = load_checkpoint(path, SmallNet())

    assert loaded.fc.weight[0, 0].isnan()


def test_another_head_is_named_with_the_number_of_classes_in_the_file(path):
    torch.save(prefixed("module.", small_net(num_classes=20).state_dict()), path)

    assert message_of(path, SmallNet(num_classes=10)) == (
        f"{path}: expected a head of 10 classes as the model has it, got one of 20 classes in the "
        "file (fc): build the model for 20 classes (on the command line: name them with "
        "--classes), or give allow_partial=0.9007 to keep the model's own head"
    )


def test_another_head_may_be_kept_out_on_request(path):
    torch.save(small_net(seed=1, num_classes=20).state_dict(), path)
    model = small_net(seed=2)
    own_head = model.fc.weight.clone()

    loaded, report = load_checkpoint(path, model, allow_partial=0.8)

    assert torch.equal(loaded.fc.weight, own_head)
    assert torch.equal(loaded.stem.weight, small_net(seed=1).stem.weight)
    assert report.mismatched == {"fc.weight": ((20, 4), (10, 4)), "fc.bias": ((20,), (10,))}
    assert report.matched_fraction == 454 / 504
    assert report.warnings == (
        (
            "only 0.9007 of the model's values came from the checkpoint; without weights: "
            "fc.weight, fc.bias"
        ),
    )


def test_missing_layers_are_listed(path):
    state = small_net().state_dict()
    del state["stem.bias"], state["submodule.weight"]
    torch.save(state, path)

    assert message_of(path, SmallNet()) == (
        f"{path}: expected weights for all of SmallNet, got 0.9603 of its values: missing "
        "stem.bias, submodule.weight: give the model that was trained, or allow_partial=0.9603 if "
        "this is meant"
    )


def test_so_little_that_it_is_another_model(path):
    torch.save({"fc.weight": torch.ones(10, 4)}, path)

    assert message_of(path, SmallNet()) == (
        f"{path}: expected weights for all of SmallNet, got 0.0796 of its values: missing "
        "stem.weight, stem.bias, layer1.0.conv.weight, layer1.0.bn.weight, layer1.0.bn.bias and 10 "
        "more: give the model that was trained"
    )


def test_less_than_was_allowed(path):
    state = small_net().state_dict()
    del state["stem.weight"]
    torch.save(state, path)

    assert message_of(path, SmallNet(), allow_partial=0.9) == (
        f"{path}: expected weights for at least 0.9 of the values of SmallNet, got 0.7857: "
        "missing stem.weight: give the model that was trained"
    )


def test_nothing_matched_is_an_error_whatever_is_allowed(path):
    torch.save({"features.0.weight": torch.ones(7, 7)}, path)

    assert message_of(path, SmallNet(), allow_partial=0.001) == (
        f"{path}: expected weights for SmallNet, which has stem.weight (4, 3, 3, 3), stem.bias "
        "(4,) and 16 more, got none that fit by name and shape: '.' has features.0.weight (7, 7): "
        "give the model that was trained"
    )


def test_weights_of_a_deeper_model_that_hold_all_of_this_one(path):
    """Name by name and shape by shape the whole of resnet18 is in resnet34."""
    torch.save(small_net(blocks=4).state_dict(), path)

    assert message_of(path, SmallNet(blocks=2)) == (
        f"{path}: expected the weights of SmallNet, got those of a deeper model, with 2 blocks "
        "more: layer1.2, layer1.3: give the model that was trained, or allow_partial=1 if this is "
        "meant"
    )
    _model, report = load_checkpoint(path, SmallNet(blocks=2), allow_partial=1)
    assert report.matched_fraction == 1


def test_weights_of_an_extra_head_are_a_warning(path):
    state = small_net(seed=1).state_dict()
    torch.save(state | {"projector.weight": torch.ones(3, 3)}, path)

    loaded, report = load_checkpoint(path, SmallNet())

    assert same_weights(loaded, small_net(seed=1))
    assert report.unexpected == ("projector.weight",)
    assert report.warnings == (
        "the checkpoint holds 1 tensor that the model has no place for: projector.weight",
    )


def test_counters_that_old_files_lack_are_not_missed(path):
    state = small_net(seed=1).state_dict()
    torch.save({key: value for key, value in state.items() if "num_batches" not in key}, path)

    _model, report = load_checkpoint(path, SmallNet())

    assert report.matched_fraction == 1
    assert report.missing == ()


class TiedNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(4, 4, bias=False)
        self.decoder = nn.Linear(4, 4, bias=False)
        self.decoder.weight = self.encoder.weight


def test_tied_weights_of_which_safetensors_keeps_one_name(path):
    model = TiedNet()
    save_model(model, str(path))

    loaded, report = load_checkpoint(path, TiedNet())

    assert torch.equal(loaded.decoder.weight, model.encoder.weight)
    assert report.matched_fraction == 1


def test_file_without_tensors(path):
    torch.save({"epoch": 3}, path)

    assert message_of(path, SmallNet()) == (
        f"{path}: expected named tensors, got a file without any: save the model's state_dict()"
    )


@pytest.mark.parametrize("fraction", [0, -0.1, 1.1])
def test_a_share_outside_its_range(path, fraction):
    torch.save(small_net().state_dict(), path)

    message = message_of(path, SmallNet(), allow_partial=fraction)

    assert message == f"allow_partial must be in (0, 1], got {fraction}"


def test_no_model_given_and_none_named_in_the_file(path):
    torch.save(prefixed("module.", small_net().state_dict()), path)

    assert message_of(path, None) == (
        f"{path}: expected a model to load into, got none, and the file names none (18 tensors in "
        "'.': stem.weight, stem.bias, layer1.0.conv.weight and 15 more, without 'module.'): give "
        "the model, such as torchvision:resnet18"
    )


def test_no_model_given_and_the_file_names_code(path):
    """A file must not choose what is imported and called."""
    save_checkpoint(path, small_net(), model_spec="checkpoint_files:SmallNet")

    assert message_of(path, None) == (
        f"{path}: expected a model to load into, got none; the file asks for "
        "'checkpoint_files:SmallNet', which would run code that the file chose: give that model "
        "yourself if you trust it"
    )


def test_model_named_in_the_file(path):
    torchvision = pytest.importorskip("torchvision")
    model = torchvision.models.get_model("squeezenet1_1", num_classes=3)
    save_checkpoint(path, model, classes=["a", "b", "c"], model_spec="torchvision:squeezenet1_1")

    loaded, report = load_checkpoint(path)

    assert same_weights(loaded, model)
    assert report.classes == ("a", "b", "c")
    assert report.model_spec == "torchvision:squeezenet1_1"


def test_model_given_as_a_spec(path):
    torch.save(small_net(seed=1).state_dict(), path)

    loaded, _report = load_checkpoint(path, "checkpoint_files:SmallNet")

    assert same_weights(loaded, small_net(seed=1))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"classes": ["cat", "dog"]}, ("cat", "dog")),
        ({"class_names": ("cat", "dog")}, ("cat", "dog")),
        ({"class_to_idx": {"dog": 1, "cat": 0}}, ("cat", "dog")),
        ({"class_to_idx": {"dog": 1, "cat": 5}}, None),
        ({"classes": 1000}, None),
        ({"classes": ["cat", "cat"]}, None),
        ({"classes": np.array(["cat", "dog"])}, ("cat", "dog")),
        ({"classes": np.array(["cat", "dog"], dtype=object)}, ("cat", "dog")),
        ({"classes": [b"cat", b"dog"]}, ("cat", "dog")),
        ({"class_to_idx": {2: 0, 0: 1, 1: 2}}, ("2", "0", "1")),
        ({"class_to_idx": {"dog": torch.tensor(1), "cat": torch.tensor(0)}}, ("cat", "dog")),
        ({"config": {"id2label": {"1": "dog", "0": "cat"}}}, ("cat", "dog")),
        ({"idx2label": {0: "cat", 1: "dog"}}, ("cat", "dog")),
        ({"datamodule_hyper_parameters": {"classes": ["cat", "dog"]}}, ("cat", "dog")),
        ({"config": {"data": {"class_names": ["cat", "dog"]}}}, ("cat", "dog")),
        ({"args": {"classes": ["dog", "cat"]}, "class_names": ["cat", "dog"]}, ("cat", "dog")),
        ({"classes": torch.tensor([1, 0])}, None),
        ({"labels": np.array([1, 0])}, None),
        ({"args": {"classes": "classes.txt"}}, None),
        ({}, None),
    ],
)
def test_class_names_in_the_file(path, found, expected):
    torch.save({"state_dict": small_net().state_dict(), **found}, path)

    _model, report = load_checkpoint(path, SmallNet())

    assert report.classes == expected


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"classes": "cat,dog"}, "classes='cat,dog'"),
        ({"classes": {"cat", "dog"}}, "classes={'cat', 'dog'}"),
        ({"classes": [("tench", "n1"), ("ray", "n2")]}, "classes=[('tench', 'n1'), ('ray', 'n2')]"),
        ({"classes": pd.Series(["cat", "dog"])}, "classes, an object of pandas"),
        ({"classes": np.array(["cat", 2], dtype=object)}, "classes, an object of numpy.ndarray"),
        (
            {"classes": ["cat", "dog"], "class_to_idx": {"cat": 1, "dog": 0}},
            "classes=['cat', 'dog'], but class_to_idx={'cat': 1, 'dog': 0}",
        ),
    ],
)
def test_names_from_which_no_output_can_be_told(path, named, said):
    torch.save({"state_dict": small_net().state_dict(), **named}, path)

    found = stored_classes(read(path).notes)

    assert found.names is None
    assert found.fault.startswith(said)


def test_the_top_of_the_file_comes_first_and_what_contradicts_it_is_told(path):
    ours, arguments = {"class_names": ["cat", "dog"]}, {"classes": ["dog", "cat"]}
    torch.save({"args": arguments, "state_dict": small_net().state_dict(), **ours}, path)

    _model, report = load_checkpoint(path, SmallNet())

    assert report.classes == ("cat", "dog")
    assert (
        "the checkpoint names its classes in two orders: class_names=['cat', 'dog'] was taken, not "
        "classes=['dog', 'cat']"
    ) in report.warnings


def test_weights_from_before_the_training_come_last(path):
    torch.save(
        {
            "initial_state_dict": small_net(seed=1).state_dict(),
            "state_dict": small_net(seed=2).state_dict(),
        },
        path,
    )

    loaded, report = load_checkpoint(path, SmallNet())

    assert report.weights == "state_dict"
    assert same_weights(loaded, small_net(seed=2))


def test_values_that_pandas_pickles_are_no_danger(path):
    torch.save({"state_dict": small_net().state_dict(), "log": pd.Series([1.0, 2.0])}, path)

    _model, report = load_checkpoint(path, SmallNet())

    assert not [warning for warning in report.warnings if "builtins" in warning]


def test_summary_is_plain(path):
    torch.save({"state_dict": prefixed("module.", small_net().state_dict())}, path)
    _model, report = load_checkpoint(path, SmallNet())

    summary = report.summary()

    assert re.fullmatch(r"[0-9a-f]{64}", summary.pop("sha256"))
    assert summary == {
        "path": str(path),
        "kind": "torch zip",
        "container": "state_dict",
        "candidates": {"state_dict": 1.0},
        "prefixes": ["module."],
        "model_prefixes": [],
        "matched_fraction": 1.0,
        "missing": [],
        "mismatched": [],
        "unexpected": [],
        "dtype_changes": {},
        "head_size": 10,
        "unknown_classes": [],
        "guess": None,
    }


def test_a_path_may_be_text(path):
    torch.save(small_net(seed=1).state_dict(), path)

    loaded, _report = load_checkpoint(str(path), SmallNet())

    assert same_weights(loaded, small_net(seed=1))
    assert isinstance(path, Path)


def test_a_scalar_in_the_place_of_a_head(path):
    torch.save(small_net().state_dict() | {"fc.bias": torch.tensor(1.0)}, path)

    assert "other shapes: fc.bias is () in the file and (10,) in the model" in (
        message_of(path, SmallNet())
    )


@pytest.mark.parametrize(
    "other", [{"LABEL_0": 0, "LABEL_1": 1}, {f"im{number}": number for number in range(9)}]
)
def test_names_that_a_model_of_hugging_face_was_given_win_over_those_it_had(other):
    config = {"label2id": other, "id2label": {0: "cat", 1: "dog"}}

    assert stored_classes({"config": config}).names == ("cat", "dog")


def test_a_list_that_counts_the_outputs_names_none():
    found = stored_classes({"classes": [0, 1, 2]})

    assert (found.names, found.fault) == (None, None)
