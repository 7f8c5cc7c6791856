import math

import pytest
import torch

from evalkit.errors import InputError
from evalkit.training import schedule

STEPS = 10


def optimizer(*rates):
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": rate} for rate in rates]
    return torch.optim.SGD(groups, lr=1.0)


def rates_of(plan, optimizer, steps):
    """The rate of the first group at each step."""
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        plan.step()
    return rates


def cosine(steps):
    return [(1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("constant", [1.0] * 10),
        ("cosine", cosine(10)),
        ("linear", [1 - step / 10 for step in range(10)]),
        ("step", [1.0] * 3 + [0.1] * 3 + [0.01] * 3 + [0.001]),
    ],
)
def test_without_warm_up(name, expected):
    sgd = optimizer(1.0)

    assert rates_of(schedule(sgd, name, steps=10), sgd, 10) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("constant", [1.0] * 6),
        ("cosine", cosine(6)),
        ("linear", [1 - step / 6 for step in range(6)]),
        ("step", [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]),
    ],
)
def test_with_warm_up_the_rest_is_what_it_would_be_alone(name, expected):
    sgd = optimizer(1.0)

    rates = rates_of(schedule(sgd, name, steps=10, warm_up=4), sgd, 10)

    assert rates == pytest.approx([0.01 + 0.99 * step / 4 for step in range(4)] + expected)


def test_every_group_keeps_its_share():
    sgd = optimizer(1.0, 0.01)
    plan = schedule(sgd, "cosine", steps=10, warm_up=3)

    for _ in range(10):
        first, second = (group["lr"] for group in sgd.param_groups)
        assert second == pytest.approx(0.01 * first)
        sgd.step()
        plan.step()


@pytest.mark.parametrize("name", ["constant", "cosine", "linear", "step"])
@pytest.mark.parametrize("at", [0, 1, 2, 3, 4, 9])
def test_resumed_at_any_step_it_goes_on_bit_for_bit(name, at):
    sgd = optimizer(0.3, 0.1)
    plan = schedule(sgd, name, steps=10, warm_up=3)
    rates_of(plan, sgd, at)
    saved = sgd.state_dict(), plan.state_dict()
    expected = rates_of(plan, sgd, 10 - at)

    other = optimizer(0.3, 0.1)
    resumed = schedule(other, name, steps=10, warm_up=3)
    other.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])

    assert rates_of(resumed, other, 10 - at) == expected


def test_a_name_that_is_none():
    with pytest.raises(InputError) as error:
        schedule(optimizer(1.0), "cosin", steps=10)

    assert str(error.value) == (
        "schedule must be one of constant, cosine, linear, step, got 'cosin'"
    )


@pytest.mark.parametrize(("warm_up", "steps"), [(-1, 10), (10, 10), (0, 0)])
def test_a_warm_up_that_does_not_fit(warm_up, steps):
    with pytest.raises(InputError) as error:
        schedule(optimizer(1.0), steps=steps, warm_up=warm_up)

    assert str(error.value) == (
        f"warm_up must be from 0 to one below steps, got {warm_up} of {steps} steps"
    )
