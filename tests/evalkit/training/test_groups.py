from collections import Counter

import pytest
import timm
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from evalkit.errors import InputError
from evalkit.training import find_head, freeze_backbone, parameter_groups


def named(model, groups):
    """Names of the parameters in each group."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {group["name"]: [names[id(p)] for p in group["params"]] for group in groups}


def test_rates_and_decay_of_a_small_net():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))

    groups = parameter_groups(model, head_lr=0.1, backbone_lr=0.01, weight_decay=0.05)

    assert named(model, groups) == {
        "backbone": ["0.weight"],
        "backbone without decay": ["0.bias", "1.weight", "1.bias"],
        "head": ["3.weight"],
        "head without decay": ["3.bias"],
    }
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [
        (0.01, 0.05),
        (0.01, 0.0),
        (0.1, 0.05),
        (0.1, 0.0),
    ]


LAYERS = (
    lambda: nn.Linear(4, 4),
    lambda: nn.Linear(4, 4, bias=False),
    lambda: nn.BatchNorm1d(4),
    lambda: nn.BatchNorm1d(4, affine=False),
    lambda: nn.LayerNorm(4),
    lambda: nn.RMSNorm(4),
    lambda: nn.GroupNorm(2, 4),
    lambda: nn.LayerNorm((4, 4)),  # a norm whose weight has two dimensions
    nn.PReLU,
    lambda: nn.Bilinear(4, 4, 4),
    lambda: nn.MultiheadAttention(4, 2),
)


@settings(max_examples=60, deadline=None)
@given(
    kinds=st.lists(st.integers(0, len(LAYERS) - 1), max_size=7),
    shared=st.booleans(),
    frozen=st.sets(st.integers(0, 30)),
)
def test_every_trainable_parameter_is_in_exactly_one_group(kinds, shared, frozen):
    """Whatever the layers are, shared between places or frozen one by one."""
    layers = [LAYERS[kind]() for kind in kinds]
    head = nn.Linear(4, 4)
    if shared:
        layers += layers[:1]
        layers.append(nn.Linear(4, 4))
        layers[-1].weight = head.weight  # tied across backbone and head
    model = nn.Sequential(*layers, head)
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(number not in frozen)
    trainable = {id(p) for p in model.parameters() if p.requires_grad}
    if not trainable:
        return

    last = str(len(model) - 1)
    groups = parameter_groups(model, head_lr=1.0, backbone_lr=0.1, head=last)

    counts = Counter(id(p) for group in groups for p in group["params"])
    assert counts == dict.fromkeys(trainable, 1)
    in_head = {id(p) for g in groups for p in g["params"] if g["lr"] == 1.0}
    assert in_head == {id(p) for p in head.parameters()} & trainable
    decayed = [p for group in groups for p in group["params"] if group["weight_decay"]]
    norms = {id(p) for m in model.modules() if "Norm" in type(m).__name__ for p in m.parameters()}
    assert all(p.ndim > 1 and id(p) not in norms for p in decayed)
    torch.optim.AdamW(groups)  # refuses a parameter that it is given twice


@pytest.mark.parametrize(
    "model",
    [
        torchvision.models.resnet18(num_classes=3),
        torchvision.models.googlenet(num_classes=3, init_weights=False),
        timm.create_model("test_vit", num_classes=3),
        timm.create_model("test_convnext", num_classes=3),
        timm.create_model("levit_128s", num_classes=3),
    ],
    ids=lambda model: type(model).__name__,
)
def test_of_the_libraries_models_nothing_is_lost_nor_doubled(model):
    groups = parameter_groups(model, head_lr=1.0, backbone_lr=0.1)

    names = named(model, groups)
    assert sorted(n for group in names.values() for n in group) == sorted(
        name for name, _ in model.named_parameters()
    )
    assert not any(n.endswith("bias") or "norm" in n for n in names["backbone"] + names["head"])
    assert sorted(names["head"]) == sorted(f"{name}.weight" for name in find_head(model).names)


def test_what_timm_exempts_is_not_decayed():
    model = timm.create_model("test_vit")

    names = named(model, parameter_groups(model, head_lr=1.0, backbone_lr=0.1))

    assert {"pos_embed", "cls_token"} <= set(names["backbone without decay"])


def test_frozen_backbones_have_no_group():
    model = torchvision.models.resnet18(num_classes=3)
    freeze_backbone(model)

    names = named(model, parameter_groups(model, head_lr=1.0, backbone_lr=0.1))

    assert names == {"head": ["fc.weight"], "head without decay": ["fc.bias"]}


def test_one_step_moves_each_group_by_its_own_rate():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    sgd = torch.optim.SGD(parameter_groups(model, head_lr=0.1, backbone_lr=0.001, weight_decay=0.0))

    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    sgd.step()

    assert model[0].weight.flatten().tolist() == pytest.approx([-0.001] * 4)
    assert model[1].weight.flatten().tolist() == pytest.approx([-0.1] * 4)


def test_nothing_to_train():
    model = nn.Linear(2, 2, bias=False)
    model.weight.requires_grad = False

    with pytest.raises(InputError) as error:
        parameter_groups(model, head_lr=1.0, backbone_lr=1.0)

    assert str(error.value) == "model must have trainable parameters, got none: unfreeze some"


def test_a_head_that_is_not_there():
    with pytest.raises(InputError) as error:
        parameter_groups(nn.Sequential(nn.Linear(2, 2)), head_lr=1.0, backbone_lr=1.0, head="fc")

    assert str(error.value) == "head must be the name of a module, got 'fc': the last ones are 0"
