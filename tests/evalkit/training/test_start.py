import json
import os
import subprocess
import sys

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from evalkit import save_checkpoint
from evalkit.errors import InputError
from evalkit.training import find_head, start
from evalkit.transforms import evaluation

TIMM = "timm:test_resnet"
ABSENT = ("torchvision:resnet18", "timm:resnet10t")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A cache of torch.hub, and a network that is down."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    checkpoints = tmp_path / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    return checkpoints


def same(one, other, *, but=()):
    """Whether two models have the same values, those of some layers left out."""
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(
        torch.equal(mine, theirs)
        for (name, mine), (_, theirs) in pairs
        if not name.startswith(tuple(but))
    )


def test_fresh():
    begun = start("torchvision:squeezenet1_1", num_classes=3)

    assert find_head(begun.model).num_classes == 3
    assert (begun.report, begun.new_head) == (None, False)


def test_torchvisions_own_weights_come_from_its_cache(hub):
    weights = torchvision.models.MobileNet_V3_Small_Weights.DEFAULT
    theirs = torchvision.models.mobilenet_v3_small()
    torch.save(theirs.state_dict(), hub / weights.url.rpartition("/")[2])

    begun = start("torchvision:mobilenet_v3_small", num_classes=3, pretrained=True)
    whole = start("torchvision:mobilenet_v3_small", num_classes=1000, pretrained=True)

    assert same(begun.model, theirs, but=["classifier.3"])
    assert begun.model.classifier[3].weight.shape == (3, 1024)
    assert begun.new_head
    assert begun.transform == evaluation()
    assert same(whole.model, theirs)
    assert not whole.new_head


@pytest.fixture(scope="module")
def one_in_the_cache(tmp_path_factory):
    """A model of timm whose weights are in the hub's cache, and what training starts from.

    In a process of its own: the hub's client reads its settings when it is imported.
    """
    folder = tmp_path_factory.mktemp("hub")
    theirs = timm.create_model("test_resnet")
    snapshot = "0" * 40
    place = folder / "hub" / f"models--timm--{theirs.pretrained_cfg['architecture']}.r160_in1k"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(snapshot)
    (place / "snapshots" / snapshot).mkdir(parents=True)
    save_file(theirs.state_dict(), place / "snapshots" / snapshot / "model.safetensors")
    program = (
        "import json\n"
        "from evalkit.errors import InputError\n"
        "from evalkit.training import start\n"
        f"begun = start({TIMM!r}, num_classes=3, pretrained=True)\n"
        "said = [begun.model.conv1[0].weight.double().sum().item(), "
        "begun.model.fc.weight.shape[0], begun.new_head, begun.transform.crop]\n"
        f"for spec in {ABSENT!r}:\n"
        "    try: start(spec, num_classes=3, pretrained=True)\n"
        "    except InputError as error: said.append(str(error))\n"
        "print(json.dumps(said))"
    )
    places = {"TORCH_HOME": str(folder), "HF_HOME": str(folder), "HF_HUB_OFFLINE": "1"}

    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **places, "https_proxy": "http://127.0.0.1:9"},
    )

    return theirs, json.loads(done.stdout.splitlines()[-1])


def test_timms_own_weights_come_from_its_cache(one_in_the_cache):
    theirs, (total, outputs, new_head, crop, *_errors) = one_in_the_cache

    assert total == theirs.conv1[0].weight.double().sum().item()
    assert (outputs, new_head, crop) == (3, True, [160, 160])


def test_without_a_network_and_a_cache(one_in_the_cache):
    _theirs, (*_values, of_torchvision, of_timm) = one_in_the_cache

    for line, spec in zip((of_torchvision, of_timm), ABSENT, strict=True):
        assert line.startswith(
            f"pretrained weights of '{spec}' must be in {spec.partition(':')[0]}'s cache or "
            "downloadable, got '"
        )
        assert line.endswith(
            "': download them where there is a network and give the file by init_from"
        )


def small(num_classes=4):
    """A model of one's own, named by the spec below."""
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4, num_classes))


@pytest.fixture
def spec(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def small(num_classes=4):\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4, num_classes))\n"
    )
    return "mine.py:small"


def test_a_checkpoint_with_the_same_classes_is_taken_head_and_all(tmp_path, spec):
    theirs = small(2)
    prepared = evaluation(resize=8, crop=8)
    save_checkpoint(
        tmp_path / "a.pth", theirs, classes=["cat", "dog"], transform=prepared.as_dict()
    )

    begun = start(spec, num_classes=2, init_from=tmp_path / "a.pth", classes=["cat", "dog"])

    assert same(begun.model, theirs)
    assert begun.transform == prepared
    assert begun.report.matched_fraction == 1.0
    assert not begun.new_head


def test_the_head_is_replaced_when_that_is_asked_for_and_everything_else_loaded(tmp_path, spec):
    theirs = small(9)
    torch.save({"state_dict": nn.DataParallel(theirs).state_dict()}, tmp_path / "a.pth")

    begun = start(spec, num_classes=2, init_from=tmp_path / "a.pth", new_head=True)

    assert begun.model[2].weight.shape == (2, 4)
    assert torch.equal(begun.model[0].weight, theirs[0].weight)
    assert begun.report.matched_fraction == 1.0
    assert begun.report.head_size == 9
    assert begun.new_head


def test_a_head_of_the_same_size_is_replaced_too_when_asked(tmp_path, spec):
    theirs = small(2)
    save_checkpoint(tmp_path / "a.pth", theirs)

    begun = start(spec, num_classes=2, init_from=tmp_path / "a.pth", new_head=True)

    assert not torch.equal(begun.model[2].weight, theirs[2].weight)


def test_the_checkpoint_may_name_the_model(tmp_path):
    theirs = torchvision.models.squeezenet1_1(num_classes=5)
    save_checkpoint(tmp_path / "a.pth", theirs, model_spec="torchvision:squeezenet1_1")

    begun = start(None, num_classes=3, init_from=tmp_path / "a.pth", new_head=True)

    assert begun.spec == "torchvision:squeezenet1_1"
    assert find_head(begun.model).num_classes == 3
    assert same(begun.model, theirs, but=["classifier.1"])
    assert begun.transform.crop == 224


@pytest.mark.parametrize(
    ("saved", "options", "message"),
    [
        (
            {},
            {"num_classes": 3},
            "{path}: expected a head with 3 outputs, as there are classes, got 2: have it replaced "
            "(new_head=True)",
        ),
        (
            {"classes": ["cat", "dog"]},
            {"num_classes": 2, "classes": ["dog", "cat"]},
            "{path}: expected a head for the classes of the data in their order, got dog for cat, "
            "cat for dog: have the head replaced (new_head=True)",
        ),
    ],
)
def test_a_head_that_means_something_else(tmp_path, spec, saved, options, message):
    path = tmp_path / "a.pth"
    save_checkpoint(path, small(2), **saved)

    with pytest.raises(InputError) as error:
        start(spec, init_from=path, **options)

    assert str(error.value) == message.format(path=path)


def test_weights_that_do_not_fit_are_refused_though_the_head_would_be_replaced(tmp_path, spec):
    torch.save(nn.Linear(7, 7).state_dict(), tmp_path / "a.pth")

    with pytest.raises(InputError, match=r"^.*a\.pth: expected weights"):
        start(spec, num_classes=2, init_from=tmp_path / "a.pth", new_head=True)


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        (
            "torchvision:resnet18",
            {"pretrained": True, "init_from": "a.pth"},
            "pretrained or init_from must be given alone, got both (a.pth)",
        ),
        (None, {}, "model must be given unless init_from is, got none"),
        (
            "torchvision:resnet19",
            {"pretrained": True},
            "model must be one that torchvision has, got 'resnet19': close names are resnet18, "
            "resnet152, resnet101",
        ),
        (
            "evalkit.demo.net:digits_net",
            {"pretrained": True},
            "pretrained needs a model of torchvision or timm, got 'evalkit.demo.net:digits_net': "
            "give the weights by init_from",
        ),
    ],
)
def test_origins_that_cannot_be(spec, options, message):
    with pytest.raises(InputError) as error:
        start(spec, num_classes=3, **options)

    assert str(error.value) == message


def test_a_name_that_timm_does_not_have():
    with pytest.raises(InputError, match=r"^model must be one that timm has, got 'resnet10x': "):
        start("timm:resnet10x", num_classes=3, pretrained=True)
