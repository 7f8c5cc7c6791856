import math

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from evalkit.errors import InputError
from evalkit.training import initialize, seed_everything


def test_each_kind_of_layer_gets_its_own_beginning():
    seed_everything(0)
    model = nn.Sequential(
        nn.Conv2d(64, 128, 3), nn.BatchNorm2d(128), nn.Flatten(), nn.Linear(400, 200)
    )
    for parameter in model.parameters():
        nn.init.constant_(parameter, 9.0)
    model[1].running_mean.fill_(9.0)
    model[1].num_batches_tracked.fill_(9)

    left = initialize(model)

    conv, norm, _flatten, linear = model
    assert left == ()
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / (128 * 9)), rel=0.02)
    assert linear.weight.std().item() == pytest.approx(math.sqrt(2 / (400 + 200)), rel=0.02)
    assert norm.weight.eq(1).all()
    assert not torch.cat([conv.bias, norm.bias, linear.bias, norm.running_mean]).any()
    assert norm.num_batches_tracked == 0


@pytest.mark.parametrize(
    "build",
    [
        torchvision.models.squeezenet1_1,
        lambda: timm.create_model("test_resnet"),
        lambda: nn.Sequential(nn.ConvTranspose1d(2, 3, 3), nn.GroupNorm(1, 3), nn.RMSNorm(3)),
        lambda: nn.Sequential(nn.Conv3d(2, 3, 1, bias=False), nn.BatchNorm3d(3, affine=False)),
    ],
)
def test_repeatable_and_without_a_trace_of_what_was_there(build):
    first, second = build(), build()
    for parameter in second.parameters():
        nn.init.constant_(parameter, math.nan)

    for model in (first, second):
        seed_everything(5)
        assert initialize(model) == ()

    assert all(
        torch.equal(one, other)
        for one, other in zip(
            first.state_dict().values(), second.state_dict().values(), strict=True
        )
    )


def test_what_is_left_as_it_was_is_named():
    model = nn.Sequential(nn.Embedding(3, 4), nn.MultiheadAttention(4, 2), nn.Linear(4, 2))
    before = model[0].weight.clone()

    left = initialize(model)

    assert left == ("0.weight", "1.in_proj_weight", "1.in_proj_bias")
    assert torch.equal(model[0].weight, before)


def test_given_tensors_are_set_by_the_name_of_a_layer_a_parameter_or_a_buffer():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    kernel = torch.arange(18.0, dtype=torch.float64).reshape(2, 1, 3, 3)

    initialize(
        model,
        tensors={"0": kernel, "0.bias": torch.ones(2), "1.running_var": torch.full((2,), 4.0)},
    )

    assert model[0].weight.dtype == torch.float32
    assert torch.equal(model[0].weight, kernel.float())
    assert model[0].weight.requires_grad
    assert model[0].bias.tolist() == [1.0, 1.0]
    assert model[1].running_var.tolist() == [4.0, 4.0]


def test_all_tensors_that_do_not_fit_are_told_at_once_and_nothing_is_changed():
    model = torchvision.models.resnet18(num_classes=3)
    before = model.fc.weight.clone()

    with pytest.raises(InputError) as error:
        initialize(
            model,
            tensors={
                "fc": torch.zeros(512, 3),
                "layer1.0.conv3": torch.zeros(1),
                "fc.bias": torch.zeros(3),
            },
        )

    assert str(error.value) == (
        "tensors must have the names and shapes of the model, got: 'fc.weight' has (3, 512), not "
        "(512, 3), 'layer1.0.conv3' is not there (close: layer1.0.conv2.weight, "
        "layer1.0.conv1.weight, layer4.0.conv2.weight)"
    )
    assert torch.equal(model.fc.weight, before)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            nn.LazyLinear(3),
            "model must know its shapes, got the lazy layer '1': run one batch through it",
        ),
        (
            weight_norm(nn.Linear(2, 3)),
            "model must have plain weights, got the parametrized layer '1': initialize it before "
            "the parametrization is registered",
        ),
    ],
)
def test_layers_that_cannot_be_filled_stop_it_before_anything_is_changed(layer, message):
    model = nn.Sequential(nn.Linear(2, 2), layer)
    before = model[0].weight.clone()

    with pytest.raises(InputError) as error:
        initialize(model)

    assert str(error.value) == message
    assert torch.equal(model[0].weight, before)
