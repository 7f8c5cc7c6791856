import json

import pytest
import torch
from checkpoint_files import prefixed, same_weights, small_net
from torch import nn

from evalkit.checkpoint import build_index, fingerprint, guess, load_checkpoint
from evalkit.checkpoint.guess import guess_model
from evalkit.errors import InputError

torchvision = pytest.importorskip("torchvision")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.pth"


def meta(name, **options):
    with torch.device("meta"):
        return torchvision.models.get_model(name, weights=None, **options)


def without(monkeypatch, library):
    """As where a library is not installed."""
    found = guess._is_installed
    monkeypatch.setattr(
        guess, "_is_installed", lambda spec: not spec.startswith(library) and found(spec)
    )


# RegNet cannot be built without memory, and the largest take long.
NAMES = [
    name
    for name in torchvision.models.list_models(module=torchvision.models)
    if not name.startswith("regnet")
]


@pytest.mark.parametrize("name", NAMES)
def test_every_model_of_torchvision_is_told_from_its_keys_and_shapes(name):
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    state = prefixed("module.", meta(name, num_classes=37, **options).state_dict())

    found = guess_model({"state_dict": state})

    assert (found.spec, found.num_classes) == (f"torchvision:{name}", 37)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": prefixed("_orig_mod.module.", state), "epoch": 3},
        lambda state: {"state_dict": prefixed("model.", state)},
        lambda state: {
            "state_dict": prefixed("net.backbone.", state) | {"criterion.weight": torch.ones(7)}
        },
        lambda state: {"ema": prefixed("module.", state), "epoch": 3},
        lambda state: {
            "model": {key: value for key, value in state.items() if "num_batches" not in key}
        },
    ],
)
def test_whatever_is_around_them(wrap):
    found = guess_model(wrap(meta("resnet18", num_classes=7).state_dict()))

    assert (found.spec, found.num_classes) == ("torchvision:resnet18", 7)


def test_a_model_of_timm():
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        state = timm.create_model("convnextv2_atto", num_classes=5).state_dict()

    found = guess_model({"state_dict": state})

    assert (found.spec, found.num_classes) == ("timm:convnextv2_atto", 5)
    assert found.reason.startswith(
        f"the {len(state)} tensors of 'state_dict' have exactly the names and shapes of "
        "timm:convnextv2_atto"
    )


def test_models_with_the_same_tensors_that_compute_differently_are_listed():
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        state = timm.create_model("efficientnet_b0", num_classes=5).state_dict()

    found = guess_model(state)
    named = guess_model({"state_dict": state, "arch": "tf_efficientnet_b0"})

    assert found.spec is None
    assert "several models that may compute differently, timm:efficientnet_b0" in found.reason
    assert "timm:tf_efficientnet_b0" in found.reason
    assert found.reason.endswith(": give the one that was trained")
    assert named.spec == "timm:tf_efficientnet_b0"
    assert named.reason.endswith("timm:tf_efficientnet_b0, which the file names")


def test_rivals_of_a_model_of_torchvision_are_said(monkeypatch):
    state = meta("resnet18").state_dict()

    assert guess_model(state).reason == (
        "the 122 tensors of '.' have exactly the names and shapes of torchvision:resnet18 (and of "
        "timm:resnetblur18, which may compute differently)"
    )
    without(monkeypatch, "timm")
    assert guess_model(state).reason == (
        "the 122 tensors of '.' have exactly the names and shapes of torchvision:resnet18"
    )


def test_a_model_of_a_library_that_is_not_installed(monkeypatch):
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        state = timm.create_model("convnextv2_atto").state_dict()
    without(monkeypatch, "timm")

    assert guess_model(state).reason.endswith("timm:convnextv2_atto: pip install timm")


def test_something_close_is_named():
    state = meta("resnet50").state_dict() | {"projector.weight": torch.ones(2, 2)}

    found = guess_model(state)

    assert found.spec is None
    assert found.reason.startswith(
        "give the model, such as torchvision:resnet18; it resembles torchvision:resnet50"
    )


def test_nothing_like_it():
    found = guess_model(small_net().state_dict())

    assert (found.spec, found.reason) == (None, "give the model, such as torchvision:resnet18")


def test_loads_without_a_model_and_says_why(path):
    torch.manual_seed(1)
    model = torchvision.models.get_model("squeezenet1_1", num_classes=3)
    torch.save({"state_dict": nn.DataParallel(model).state_dict()}, path)

    loaded, report = load_checkpoint(path)

    assert same_weights(loaded, model)
    assert report.guess == (
        "the 52 tensors of 'state_dict' have exactly the names and shapes of "
        "torchvision:squeezenet1_1"
    )
    assert f"nobody named the model: {report.guess}" in report.warnings


def test_a_file_that_names_the_model_in_passing_is_not_said_to_name_none(path):
    model = torchvision.models.get_model("squeezenet1_1", num_classes=3)
    torch.save({"state_dict": model.state_dict(), "arch": "squeezenet1_1"}, path)

    _loaded, report = load_checkpoint(path)

    assert report.guess is None
    assert report.warnings == ()


def test_only_the_named_set_of_weights_is_looked_at():
    tree = {"model": meta("resnet18").state_dict(), "other": meta("squeezenet1_1").state_dict()}

    assert guess_model(tree, weights="other").spec == "torchvision:squeezenet1_1"


def test_the_shipped_index_is_small_and_complete():
    index = json.loads(
        (fingerprint.resources.files("evalkit.checkpoint") / fingerprint.INDEX).read_text()
    )
    specs = {spec for one in fingerprint.architectures() for spec in one.specs}

    known = {f"torchvision:{name}" for name in NAMES}
    assert known <= specs
    assert sum(spec.startswith("timm:") for spec in specs) > 1300
    assert index.keys() == {"torchvision", "timm", "architectures"}
    assert len(json.dumps(index)) < 300_000


def test_the_index_can_be_built_again(monkeypatch, tmp_path):
    specs = ["torchvision:alexnet", "torchvision:squeezenet1_1"]
    monkeypatch.setattr(build_index, "_specs", lambda: iter(specs))
    monkeypatch.setattr(build_index, "__file__", str(tmp_path / "build_index.py"))

    build_index.main()

    made = json.loads((tmp_path / fingerprint.INDEX).read_text())["architectures"]
    shipped = {one.names: one for one in fingerprint.architectures()}
    for names, shapes, _head, groups, _sketch in made:
        assert shipped[names].shapes == shapes
        assert groups[0][0] in specs


def test_without_a_guess_the_file_is_described(path):
    torch.save({"stem.weight": torch.ones(2, 2)}, path)

    with pytest.raises(InputError) as error:
        load_checkpoint(path)

    assert str(error.value) == (
        f"{path}: expected a model to load into, got none, and the file names none (1 tensor in "
        "'.': stem.weight): give the model, such as torchvision:resnet18"
    )
