import math

import pytest
import torch
from torch import nn

from evalkit.errors import InputError
from evalkit.inference.hardware import computing
from evalkit.training import apply_gradients, grad_scaler

CPU = torch.device("cpu")


def one_weight(rate=1.0):
    weight = nn.Parameter(torch.zeros(1))
    return weight, torch.optim.SGD([weight], lr=rate)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(
    ("gradient", "step"),
    [(50.0, 20.0), (20.0, 20.0), (5.0, 5.0)],
    ids=["longer", "as long", "shorter"],
)
def test_the_limit_is_for_gradients_of_the_unscaled_loss(precision, gradient, step):
    """Clipped before unscaling, the step of fp16 would be 65,536 times too short."""
    weight, sgd = one_weight()
    scaler = grad_scaler(precision, CPU)

    scaler.scale(gradient * weight.sum()).backward()
    norm = apply_gradients(sgd, scaler=scaler, max_norm=20)

    assert norm.item() == pytest.approx(gradient)
    assert weight.item() == pytest.approx(-step)
    assert weight.grad is None


def test_the_norm_is_that_of_all_groups_together():
    one, other = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    sgd = torch.optim.SGD([{"params": [one]}, {"params": [other], "lr": 2.0}], lr=1.0)

    (3 * one + 4 * other).sum().backward()
    norm = apply_gradients(sgd, max_norm=1)

    assert norm.item() == pytest.approx(5)
    assert (one.item(), other.item()) == pytest.approx((-0.6, -1.6))


def test_gradients_that_overflow_are_left_out_and_the_scale_is_halved():
    weight, sgd = one_weight()
    scaler = grad_scaler("fp16", CPU)

    scaler.scale(1e38 * weight.sum()).backward()
    apply_gradients(sgd, scaler=scaler, max_norm=1)
    assert weight.item() == 0.0
    assert scaler.get_scale() == 65536 / 2
    scaler.scale(weight.sum()).backward()
    apply_gradients(sgd, scaler=scaler)

    assert weight.item() == -1.0


def test_without_a_limit_no_norm_is_computed():
    weight, sgd = one_weight()

    weight.sum().backward()

    assert apply_gradients(sgd) is None
    assert weight.item() == -1.0


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_net_learns_in_half_precision_and_keeps_its_weights_in_full(precision):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = grad_scaler(precision, CPU)
    labels = torch.arange(64) % 2
    inputs = torch.randn(64, 4) + 2 * labels[:, None]
    seen = set()

    losses = []
    for _ in range(30):
        with computing(CPU, precision):
            outputs = model(inputs)
            seen.add(outputs.dtype)
            loss = nn.functional.cross_entropy(outputs, labels)
        scaler.scale(loss).backward()
        apply_gradients(sgd, scaler=scaler, max_norm=20)
        losses.append(loss.item())

    assert seen == {torch.bfloat16 if precision == "bf16" else torch.float16}
    assert losses[-1] < losses[0] / 2
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("limit", [0.0, -1.0, math.nan])
def test_limits_that_are_none(limit):
    _weight, sgd = one_weight()

    with pytest.raises(InputError) as error:
        apply_gradients(sgd, max_norm=limit)

    assert str(error.value) == (
        f"max_norm must be above 0, got {limit}: leave it out to limit nothing"
    )


def test_a_precision_that_is_none():
    with pytest.raises(InputError) as error:
        grad_scaler("fp8", CPU)

    assert str(error.value) == "precision must be one of fp32, tf32, bf16, fp16, got 'fp8'"
