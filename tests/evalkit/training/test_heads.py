"""Heads of every classifier of torchvision, of every family of timm, and of models of one's own."""

import copy
import re

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.overrides import TorchFunctionMode

from evalkit.errors import InputError
from evalkit.training import Head, find_head, freeze_backbone, replace_head

NAMES = torchvision.models.list_models(module=torchvision.models)
SLOW_START = {"googlenet": {"init_weights": False}, "inception_v3": {"init_weights": False}}
# By hand, from each paper's last layer in torchvision's source: what find_head must come to.
EXPECTED = {
    "alexnet": ("classifier.6",),
    "convnext": ("classifier.2",),
    "densenet": ("classifier",),
    "efficientnet": ("classifier.1",),
    "googlenet": ("fc", "aux2.fc2", "aux1.fc2"),
    "inception": ("fc", "AuxLogits.fc"),
    "maxvit": ("classifier.5",),
    "mnasnet": ("classifier.1",),
    "mobilenet_v2": ("classifier.1",),
    "mobilenet_v3": ("classifier.3",),
    "regnet": ("fc",),
    "resnet": ("fc",),
    "resnext": ("fc",),
    "shufflenet": ("fc",),
    "squeezenet": ("classifier.1",),
    "swin": ("head",),
    "vgg": ("classifier.6",),
    "vit": ("heads.head",),
    "wide_resnet": ("fc",),
}


class Unfilled(TorchFunctionMode):
    """Weights are made without memory, so that all 80 models are built in seconds."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        place = {"device": "meta"} if function is torch.empty else {}
        return function(*args, **{**(kwargs or {}), **place})


def built(name):
    with Unfilled():
        return torchvision.models.get_model(name, weights=None, **SLOW_START.get(name, {}))


def fresh(model, before):
    """Names of the parameters that are new."""
    return {name for name, parameter in model.named_parameters() if parameter not in before}


def within(name, head):
    return name.startswith(tuple(f"{module}." for module in head.modules))


def outputs_of(model, size):
    model = model.to("meta")
    with torch.inference_mode():
        return model(torch.empty(2, *size, device="meta"))


@pytest.mark.parametrize("name", NAMES)
def test_head_of_every_classifier_of_torchvision_is_found_and_replaced(name):
    (family,) = [
        f
        for f in EXPECTED
        if re.match(rf"{f}(\d|_|$)", name) and not name.startswith(f"{f}_resnet")
    ]
    model = built(name).eval()
    old = model.get_submodule(EXPECTED[family][0])

    head = replace_head(model, 7)

    assert head == Head(names=EXPECTED[family], num_classes=7)
    new = model.get_submodule(head.names[0])
    assert type(new) is type(old)
    assert new.weight.shape == (7, *old.weight.shape[1:])
    assert not any(module.training for module in model.modules())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_classifier_of_torchvision_then_gives_that_many_outputs(name):
    model = built(name)
    replace_head(model, 7)
    size = (3, 299, 299) if name == "inception_v3" else (3, 224, 224)

    logits = outputs_of(model.eval(), size)
    in_training = outputs_of(model.train(), size)

    assert logits.shape == (2, 7)
    several = [in_training] if isinstance(in_training, torch.Tensor) else list(in_training)
    assert [one.shape for one in several] == [(2, 7)] * len(several)


@pytest.mark.slow
@pytest.mark.parametrize("family", timm.list_modules())
def test_every_family_of_timm_then_gives_that_many_outputs(family):
    """The model with the shortest name of each, on the size of its images."""
    name = min(timm.list_models(module=family), key=lambda name: (len(name), name))
    if family == "sequencer":
        name = "sequencer2d_s"  # the others take half a minute
    with torch.device("meta"):
        model = timm.create_model(name)
    before = set(model.parameters())

    head = replace_head(model, 7)

    assert head.num_classes == model.num_classes == 7
    assert find_head(model) == head
    left = {name.partition(".")[0] for name in fresh(model, before) if not within(name, head)}
    assert left <= {"aux_head"}  # of volo: for its own recipe of training alone
    assert outputs_of(model.eval(), model.pretrained_cfg["input_size"]).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("resnet10t", ("fc",)),
        ("test_vit", ("head",)),
        ("test_convnext", ("head.fc",)),
        ("test_efficientnet", ("classifier",)),
        ("crossvit_9_240", ("head.0", "head.1")),  # their mean
        ("dpn48b", ("classifier",)),  # a convolution
    ],
)
def test_heads_of_timm(name, heads):
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=10)

    assert find_head(model) == Head(names=heads, num_classes=10)
    assert replace_head(model, 3) == Head(names=heads, num_classes=3)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        (
            "levit_128s",  # for labels and for a teacher, each with a norm before
            Head(
                names=("head.linear", "head_dist.linear"),
                num_classes=3,
                companions=("head", "head_dist"),
            ),
        ),
        (
            "efficientvit_m0",  # timm calls the linear layer its head, and renews the norm as well
            Head(names=("head.linear",), num_classes=3, companions=("head",)),
        ),
        (
            "caformer_s18",  # a hidden layer
            Head(names=("head.fc.fc2",), num_classes=3, companions=("head.fc",)),
        ),
    ],
)
def test_what_timm_makes_anew_learns_with_the_head(name, head):
    with torch.device("meta"):
        model = timm.create_model(name)
    before = set(model.parameters())

    assert replace_head(model, 3) == head

    freeze_backbone(model)
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == fresh(model, before)


def test_timm_without_a_head_gets_one():
    with torch.device("meta"):
        model = timm.create_model("resnet10t", num_classes=0)

    with pytest.raises(InputError) as error:
        find_head(model)
    assert str(error.value) == (
        "model must have a classifier, got ResNet with Identity in its place: "
        "replace_head(model, num_classes) puts one there"
    )
    assert replace_head(model, 3) == Head(names=("fc",), num_classes=3)


class HeadMadeFirst(nn.Module):
    """Made in one order, run in another, with decisions that a trace cannot follow on request."""

    def __init__(self, *, untraceable=False):
        super().__init__()
        self.head = nn.Linear(8, 4)
        self.backbone = nn.Linear(3, 8)
        self.untraceable = untraceable

    def forward(self, inputs):
        features = self.backbone(inputs)
        if self.untraceable and features.sum() > 0:
            features = features + 1
        return self.head(features).softmax(1)


def test_order_of_running_decides_not_order_of_making():
    assert find_head(HeadMadeFirst()).names == ("head",)


def test_where_a_model_cannot_be_traced_the_layer_made_last_is_taken_unless_another_is_named():
    model = HeadMadeFirst(untraceable=True)

    assert find_head(model).names == ("backbone",)
    assert replace_head(model, 2, head="head") == Head(names=("head",), num_classes=2)
    assert model(torch.zeros(5, 3)).shape == (5, 2)


def test_two_heads_of_one_size_are_both_replaced():
    class Twins(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(3, 8)
            self.left, self.right = nn.Linear(8, 4), nn.Linear(8, 4, bias=False)

        def forward(self, inputs):
            features = self.body(inputs)
            return (self.left(features) + self.right(features)) / 2

    model = Twins()

    assert replace_head(model, 2).names == ("left", "right")
    assert model.right.bias is None
    assert model(torch.zeros(1, 3)).shape == (1, 2)


def test_heads_of_different_sizes_are_not_guessed():
    class TwoTasks(nn.Module):
        def __init__(self):
            super().__init__()
            self.kind, self.colour = nn.Linear(8, 4), nn.Linear(8, 3)

        def forward(self, inputs):
            return self.kind(inputs), self.colour(inputs)

    with pytest.raises(InputError) as error:
        find_head(TwoTasks())

    assert str(error.value) == (
        "model must have outputs of one size, got 3, 4 from kind, colour: give the layer's name "
        "as head="
    )


def test_the_new_head_is_where_and_as_the_old_one_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 9, (1, 3), padding=(0, 1), bias=False))
    model.double().eval()
    model[1].weight.requires_grad = False

    replace_head(model, 5)

    new = model[1]
    assert (new.out_channels, new.kernel_size, new.padding, new.bias) == (5, (1, 3), (0, 1), None)
    assert new.weight.dtype == torch.float64
    assert new.weight.requires_grad
    assert not new.training


def test_what_a_model_keeps_of_its_inputs_is_as_before():
    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 3)
            self.register_buffer("total", torch.zeros(2))
            self.seen, self.calls = None, 0

        def forward(self, inputs):
            self.seen = self.fc(inputs)
            self.calls += 1
            self.later = 1
            self._buffers["total"] = self.total + inputs.sum(0)
            return self.seen

    model = Keeps()

    assert find_head(model).names == ("fc",)
    assert (model.seen, model.calls) == (None, 0)
    assert not hasattr(model, "later")
    assert model.total.tolist() == [0.0, 0.0]
    copy.deepcopy(model)


def test_the_new_head_of_timm_is_where_and_as_the_old_one_was_and_nothing_else_is_touched():
    model = timm.create_model("test_vit", num_classes=5).double().eval()
    model.patch_embed.float()

    replace_head(model, 3)

    assert model.head.weight.dtype == torch.float64
    assert model.patch_embed.proj.weight.dtype == torch.float32
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("wrapped", [nn.DataParallel, lambda m: torch.compile(m, backend="eager")])
def test_wrapped_models(wrapped):
    model = wrapped(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5)))

    (name,) = replace_head(model, 2).names

    assert name.endswith(".2")
    assert model(torch.zeros(6, 3)).shape == (6, 2)


def test_modes_are_as_before():
    model = torchvision.models.googlenet(init_weights=False)
    model.eval()
    model.inception5b.train()
    before = [module.training for module in model.modules()]

    find_head(model)

    assert [module.training for module in model.modules()] == before


def test_classes_derived_from_linear_count():
    class Scaled(nn.Linear):
        def forward(self, inputs):
            return 3 * super().forward(inputs)

    model = nn.Sequential(nn.Linear(3, 4), Scaled(4, 5))

    assert find_head(model) == Head(names=("1",), num_classes=5)


class Normalised(nn.Module):
    """Cosine similarity with a parameter: no layer gives the outputs."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(3, 8)
        self.prototypes = nn.Parameter(torch.ones(4, 8))

    def forward(self, inputs):
        return self.body(inputs) @ self.prototypes.T


@pytest.mark.parametrize(
    ("model", "head", "message"),
    [
        (
            Normalised(),
            None,
            "model must give its outputs by a layer, got a function of 'prototypes': give the "
            "layer's name as head=",
        ),
        (
            nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)),
            None,
            "head must be a linear layer or a convolution, got BatchNorm1d '1': give the layer's "
            "name as head=",
        ),
        (
            nn.Sequential(nn.Linear(2, 3), nn.ReLU()),
            "fc",
            "head must be the name of a module, got 'fc': the last ones are 0, 1",
        ),
        (
            nn.Sequential(nn.Linear(2, 3), nn.LazyLinear(4)),
            None,
            "head must know its shape, got the lazy layer '1': run one batch through it",
        ),
        (nn.Flatten(), None, "model must have layers, got Flatten without parameters"),
        (
            nn.Linear(2, 3),
            None,
            "model must be more than its last layer, which cannot be replaced in place: put it "
            "into nn.Sequential",
        ),
    ],
)
def test_heads_that_cannot_be_found_or_replaced(model, head, message):
    with pytest.raises(InputError) as error:
        replace_head(model, 2, head=head)

    assert str(error.value) == message


def test_no_classes():
    with pytest.raises(InputError) as error:
        replace_head(nn.Sequential(nn.Linear(2, 3)), 0)

    assert str(error.value) == "num_classes must be at least 1, got 0"
