import copy
import io
import pickle

import pytest
import timm
import torch
import torchvision
from torch import nn

from evalkit.errors import InputError
from evalkit.training import averaged_model, freeze_backbone, replace_head, unfreeze


def small_net():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 2),
    )  # fmt: skip


def trained(model, steps=3):
    """A few steps as any loop takes them, momentum and weight decay included."""
    sgd = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9, weight_decay=0.1)
    for _ in range(steps):
        model.train()
        outputs = model(torch.randn(8, 3, 32, 32))
        sgd.zero_grad()
        nn.functional.cross_entropy(outputs, torch.randint(0, 2, (8,))).backward()
        sgd.step()
    return model


def changed(model, before):
    return {
        name for name, value in model.state_dict().items() if not torch.equal(value, before[name])
    }


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize(
    ("build", "head"),
    [
        (small_net, "7"),
        (lambda: torchvision.models.mobilenet_v3_small(num_classes=2), "classifier.3"),
        (lambda: timm.create_model("test_efficientnet", num_classes=2), "classifier"),
    ],
)
def test_training_changes_the_head_and_nothing_else(build, head):
    model = build()
    freeze_backbone(model)
    before = state(model)

    trained(model)

    assert changed(model, before) == {f"{head}.weight", f"{head}.bias"}


def test_without_freezing_statistics_move_even_when_no_parameter_does():
    """The mistake that freezing parameters alone makes: this is what the test above would see."""
    model = small_net()
    for parameter in model[:7].parameters():
        parameter.requires_grad = False
    before = state(model)

    trained(model)

    assert {"1.running_mean", "1.running_var", "6.running_mean"} <= changed(model, before)


def test_frozen_norms_use_their_statistics_while_training():
    model = small_net()
    freeze_backbone(model)
    model.train()

    alone = model(torch.ones(1, 3, 32, 32))  # batch statistics of one sample would be an error
    in_company = model(torch.cat([torch.ones(1, 3, 32, 32), torch.randn(7, 3, 32, 32)]))[:1]

    torch.testing.assert_close(alone, in_company)
    assert model.training
    assert model[7].training
    assert not model[1].training


def through_torch_save(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize(
    "copied",
    [
        copy.deepcopy,
        lambda model: pickle.loads(pickle.dumps(model)),
        through_torch_save,
        lambda model: averaged_model(model).module,
    ],
)
def test_copies_stay_frozen_by_themselves(copied):
    model = small_net()
    freeze_backbone(model)

    twin = copied(model)
    unfreeze(model)
    before = state(twin)
    trained(twin)

    assert changed(twin, before) == {"7.weight", "7.bias"}
    assert model[1].train().training


def test_torch_compile_sees_frozen_norms_too():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    freeze_backbone(model)
    compiled = torch.compile(model, backend="eager")
    inputs = torch.randn(6, 3)

    compiled.train()
    outputs = compiled(inputs)

    torch.testing.assert_close(outputs, model(inputs))
    assert model[1].running_mean.abs().sum() == 0
    assert model[1].num_batches_tracked == 0


def test_keys_of_a_checkpoint_are_those_of_the_model():
    model = small_net()
    keys = list(model.state_dict())

    freeze_backbone(model)

    assert list(model.state_dict()) == keys


def test_unfreezing_gives_back_what_was_frozen_and_no_more():
    model = small_net().eval()
    model[0].bias.requires_grad = False  # somebody's own decision
    frozen = freeze_backbone(model)

    unfreeze(model.train(), parameters=frozen)

    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["0.bias"]
    assert all(module.training for module in model.modules())
    before = state(model)
    trained(model)
    assert changed(model, before) == set(before) - {"0.bias"}


def test_everything_can_be_unfrozen():
    model = small_net()
    freeze_backbone(model)

    unfreeze(model)

    assert all(p.requires_grad for p in model.parameters())


def test_freezing_twice_is_freezing_once():
    model = small_net()
    first = freeze_backbone(model)

    assert len(first) == 8
    assert freeze_backbone(model) == ()
    unfreeze(model)
    assert model[1].eval().train().training


def test_more_than_the_last_layer_may_learn():
    model = torchvision.models.mobilenet_v3_small(num_classes=2)

    freeze_backbone(model, head="classifier")

    learning = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert learning == {"classifier"}


def test_both_outputs_of_inception_go_on_learning():
    model = torchvision.models.inception_v3(init_weights=False)
    replace_head(model, 3)

    freeze_backbone(model)

    learning = [name for name, p in model.named_parameters() if p.requires_grad]
    assert learning == ["AuxLogits.fc.weight", "AuxLogits.fc.bias", "fc.weight", "fc.bias"]


def test_a_head_that_is_not_there():
    with pytest.raises(InputError) as error:
        freeze_backbone(small_net(), head="fc")

    assert str(error.value) == (
        "head must be the name of a module, got 'fc': the last ones are 5, 6, 7"
    )
