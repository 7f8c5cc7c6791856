import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from evalkit.errors import InputError
from evalkit.training import fit, seed_everything


def draw():
    return random.random(), np.random.rand(), torch.rand(2).tolist()  # noqa: NPY002


def test_one_seed_for_all_generators():
    seed_everything(3)
    first, other = draw(), draw()
    seed_everything(3)

    assert draw() == first
    assert first != other
    seed_everything(4)
    assert draw() != first


class Noise(TensorDataset):
    """What a random augmentation draws inside a worker."""

    def __getitem__(self, index):
        return torch.tensor([random.random(), np.random.rand(), torch.rand(()).item()])  # noqa: NPY002


def test_workers_of_a_loader_follow_the_seed_and_differ_from_each_other():
    def one_epoch():
        seed_everything(3)
        loader = DataLoader(Noise(torch.zeros(8)), batch_size=1, num_workers=2)
        return torch.cat(list(loader))

    first = one_epoch()

    assert torch.equal(first, one_epoch())
    assert len(first.unique(dim=0)) == 8


def test_deterministic_refuses_what_varies():
    program = (
        "import os, torch; from evalkit.training import seed_everything; "
        "seed_everything(1, deterministic=True); "
        "print(torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark, "
        "os.environ['CUBLAS_WORKSPACE_CONFIG'])"
    )
    environment = {k: v for k, v in os.environ.items() if k != "CUBLAS_WORKSPACE_CONFIG"}

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )

    assert done.stdout == "True False :4096:8\n"


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seed_out_of_range(seed):
    with pytest.raises(InputError) as error:
        seed_everything(seed)

    assert str(error.value) == f"seed must be from 0 to 4294967295, got {seed}"


def two_clouds(samples=64):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(samples) % 2
    inputs = torch.randn(samples, 4, generator=generator) + 3 * labels[:, None]
    return TensorDataset(inputs, labels)


def trained(epochs, seed=0, rate=0.1):
    seed_everything(seed)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    loader = DataLoader(
        two_clouds(), 16, shuffle=True, generator=torch.Generator().manual_seed(seed)
    )
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.5, total_iters=4 * epochs)
    records = fit(
        model,
        loader,
        validation=DataLoader(two_clouds(), 64),
        optimizer=optimizer,
        epochs=epochs,
        schedule=schedule,
    )
    return model, records


def test_one_record_per_epoch_and_it_learns():
    _model, records = trained(epochs=5)
    records = list(records)

    assert [record.epoch for record in records] == [1, 2, 3, 4, 5]
    assert records[-1].train_loss < records[0].train_loss
    assert records[-1].validation_loss < records[0].validation_loss
    assert records[-1].validation_accuracy > 0.95
    assert records[-1].learning_rate == pytest.approx(0.05)
    assert all(record.samples_per_second > 0 for record in records)


def test_losses_are_means_over_samples_not_over_batches():
    """Batches of 3 and 1: the mean of their means would weigh the last sample threefold."""
    model = nn.Linear(2, 2, bias=False)
    nn.init.eye_(model.weight)
    batches = [
        (torch.tensor([[5.0, 0.0]] * 3), torch.zeros(3, dtype=torch.int64)),
        (torch.tensor([[5.0, 0.0]]), torch.ones(1, dtype=torch.int64)),
    ]
    frozen = torch.optim.SGD(model.parameters(), lr=0.0)

    (record,) = fit(model, batches, validation=batches, optimizer=frozen, epochs=1)

    right, wrong = np.log1p(np.exp(-5.0)), np.log1p(np.exp(5.0))
    assert record.train_loss == pytest.approx((3 * right + wrong) / 4, rel=1e-5)
    assert record.validation_loss == pytest.approx((3 * right + wrong) / 4, rel=1e-5)
    assert record.validation_accuracy == 0.75


def test_same_seed_same_weights_bit_for_bit():
    one, first = trained(epochs=2)
    list(first)
    torch.rand(7)
    other, second = trained(epochs=2)
    list(second)

    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    assert all(torch.equal(left, right) for left, right in pairs)


def test_training_mode_is_back_after_validation():
    model, records = trained(epochs=2)

    next(records)
    assert model.training
    before = model[1].running_mean.clone()
    next(records)

    assert not torch.equal(model[1].running_mean, before)


def test_a_loss_that_is_no_number_ends_the_training():
    _model, records = trained(epochs=3, rate=1e30)

    with pytest.raises(InputError, match=r"^loss must be a finite number, got (nan|inf) in epoch"):
        list(records)


def test_no_training_samples():
    model = nn.Linear(2, 2)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)

    with pytest.raises(InputError) as error:
        list(fit(model, [], validation=[], optimizer=sgd, epochs=1))

    assert str(error.value) == "training must have samples, got none in epoch 1"
