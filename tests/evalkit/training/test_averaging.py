import pytest
import torch
from torch import nn

from evalkit.errors import InputError
from evalkit.training import averaged_model


def test_parameters_and_statistics_follow_by_one_minus_decay():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = averaged_model(model, decay=0.75)
    average.update_parameters(model)  # the first copies

    with torch.no_grad():
        model[0].weight.fill_(4.0)
        before = average.module[0].weight.clone()
        model[1].running_mean.fill_(8.0)
    average.update_parameters(model)

    torch.testing.assert_close(average.module[0].weight, 0.75 * before + 0.25 * 4.0)
    torch.testing.assert_close(average.module[1].running_mean, torch.full((2,), 2.0))


def test_the_average_is_quieter_than_what_it_averages():
    torch.manual_seed(0)
    model = nn.Linear(1, 1, bias=False)
    average = averaged_model(model, decay=0.9)
    raw, smooth = [], []
    for _ in range(300):
        nn.init.normal_(model.weight)
        average.update_parameters(model)
        raw.append(model.weight.item())
        smooth.append(average.module.weight.item())

    # The variance of an exponential average of independent values is (1-d)/(1+d) of theirs.
    assert torch.tensor(smooth[50:]).var() / torch.tensor(raw[50:]).var() == pytest.approx(
        0.1 / 1.9, rel=0.5
    )


def test_survives_a_checkpoint_bit_for_bit():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = averaged_model(model)
    average.update_parameters(model)
    average.update_parameters(model)
    other = averaged_model(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))

    other.load_state_dict(average.state_dict())

    assert other.n_averaged == 2
    assert all(
        torch.equal(one, two)
        for one, two in zip(average.state_dict().values(), other.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("decay", [0.0, 1.0, 1.5])
def test_decay_out_of_range(decay):
    with pytest.raises(InputError) as error:
        averaged_model(nn.Linear(1, 1), decay=decay)

    assert str(error.value) == f"decay must be in (0, 1), got {decay}"
