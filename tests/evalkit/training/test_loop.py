"""The loop and what its steps are made of."""

from dataclasses import replace

import layouts
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from training_runs import FULL, TinyNet, differences, write_split

from evalkit.data import open_data
from evalkit.errors import InputError
from evalkit.training import averaged_model, fit
from evalkit.training.job import prepare
from evalkit.training.loader import TrainingBatches
from evalkit.training.order import Order
from evalkit.training.recipe import Recipe
from evalkit.training.validate import ValidationBatches, validate


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_split(tmp_path_factory.mktemp("loop") / "data", counts=(17, 7))


def positions(keys):
    return [position for _epoch, position in keys]


@given(
    samples=st.integers(1, 200),
    batch_size=st.integers(1, 40),
    parts=st.integers(1, 3),
    size=st.integers(1, 3),
    epoch=st.integers(1, 5),
)
@settings(deadline=None, max_examples=60)
def test_ranks_and_parts_divide_the_steps_that_one_process_would_do(
    samples, batch_size, parts, size, epoch
):
    steps = -(-samples // batch_size)
    if samples // steps < parts * size:
        return
    whole = Order(samples=samples, batch_size=batch_size, seed=1)
    shares = [replace(whole, parts=parts, rank=rank, ranks=size) for rank in range(size)]
    divided = [list(share.keys(epoch)) for share in shares]

    assert sorted(np.concatenate([whole.step(epoch, n) for n in range(steps)])) == [*range(samples)]
    for number in range(steps):
        mine = [
            divided[rank][number * parts + part] for part in range(parts) for rank in range(size)
        ]
        assert [p for keys in mine for p in positions(keys)] == whole.step(epoch, number).tolist()
        lengths = {len(keys) for keys in mine}
        assert 0 < max(lengths) - min(lengths) + 1 <= 2
    sizes = {whole.size(number) for number in range(steps)}
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= batch_size


def test_another_epoch_has_another_order_and_another_seed_as_well():
    order = Order(samples=50, batch_size=50, seed=1)

    orders = [order.step(1, 0), order.step(2, 0), replace(order, seed=2).step(1, 0)]
    assert len({tuple(one) for one in orders}) == 3
    assert order.step(1, 0).tolist() == orders[0].tolist()


def test_a_step_that_is_smaller_than_its_parts():
    with pytest.raises(InputError) as error:
        Order(samples=10, batch_size=4, seed=0, parts=2, ranks=2)

    assert str(error.value) == (
        "a step must have a sample for every process and every part, got steps of 3 samples "
        "(batch_size 4, 10 samples) for 2 x 2: enlarge batch_size"
    )


def seen(data, *, workers, batch_size, epoch=1):
    """What the model would see of every sample, by position."""
    source = open_data(data / "train")
    batches = TrainingBatches(
        source,
        FULL.training_transform(TinyNet.transform),
        source.classes,
        order=Order(samples=len(source), batch_size=batch_size, seed=5),
        workers=workers,
    )
    parts = [part for step in batches.steps(epoch) for part in step.parts]
    return {
        position: pixels
        for part in parts
        for position, pixels in zip(part.positions, part.inputs, strict=True)
    }


def test_what_a_random_transform_does_depends_on_seed_epoch_and_sample_alone(data):
    before = torch.get_rng_state()
    here = seen(data, workers=0, batch_size=34)
    assert torch.equal(torch.get_rng_state(), before)

    elsewhere = seen(data, workers=3, batch_size=5)
    later = seen(data, workers=0, batch_size=34, epoch=2)

    assert all(torch.equal(here[position], elsewhere[position]) for position in range(34))
    assert sum(torch.equal(here[position], later[position]) for position in range(34)) < 4


def test_a_step_in_parts_is_the_same_step(data, tmp_path):
    recipe = Recipe(epochs=2, batch_size=12, image_size=8, flip=0, learning_rate=0.01)
    kept = {}
    for parts in (1, 3):
        out = tmp_path / str(parts)
        ready = prepare(
            data,
            "training_runs:plain_net",
            out=out,
            recipe=replace(recipe, accumulate=parts),
            device="cpu",
            workers=0,
        )
        records = list(ready.epochs())
        kept[parts] = torch.load(out / "last.pth", weights_only=True)["state_dict"], records

    for key, value in kept[1][0].items():
        torch.testing.assert_close(kept[3][0][key], value, rtol=0, atol=1e-6)
    losses = [[record.train_loss for record in kept[parts][1]] for parts in (1, 3)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_batches_of_any_loader_are_put_together_to_steps():
    """Three batches in steps of two: the last one is a step by itself."""
    model = nn.Linear(2, 2, bias=False)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    steps = []
    sgd.register_step_post_hook(lambda *_: steps.append(1))
    batches = [(torch.ones(4, 2), torch.zeros(4, dtype=torch.int64))] * 3

    (record,) = fit(model, batches, validation=batches, optimizer=sgd, epochs=1, accumulate=2)

    assert len(steps) == 2
    assert record.samples_per_second > 0


def test_the_average_is_validated_and_the_model_is_trained():
    torch.manual_seed(0)
    model = nn.Linear(2, 2)
    average = averaged_model(model, decay=0.999)
    batch = torch.eye(2), torch.tensor([0, 1])
    sgd = torch.optim.SGD(model.parameters(), lr=1.0)

    records = list(
        fit(model, [batch] * 5, validation=[batch], optimizer=sgd, epochs=3, average=average)
    )

    scores = validate(average.module, [batch], device="cpu")
    assert records[-1].validation_loss == scores.loss
    assert validate(model, [batch], device="cpu").loss < scores.loss


def test_validation_shares_are_disjoint_and_complete(data):
    source = open_data(data / "val")

    def labels(rank, ranks):
        batches = ValidationBatches(
            source,
            TinyNet.transform,
            source.classes,
            batch_size=4,
            workers=1,
            rank=rank,
            ranks=ranks,
        )
        return sum(len(labels) for _pixels, labels in batches)

    assert [labels(rank, 3) for rank in range(3)] == [5, 5, 4]
    assert labels(0, 1) == 14


def test_classes_by_output_are_read_by_their_values(data):
    """What ImageFolder calls class_to_idx need not be in the order of its values."""
    source = open_data(data / "val")
    first, *others = source.classes
    by_name = {first: len(others), **{name: output for output, name in enumerate(others)}}
    training = TrainingBatches(
        source, TinyNet.transform, by_name, order=Order(samples=14, batch_size=14, seed=1)
    )

    (batch,) = ValidationBatches(source, TinyNet.transform, by_name, batch_size=14, workers=1)

    expected = [by_name[name] for name in source.labels]
    assert batch[1].tolist() == expected
    (step,) = training.steps(1)
    (part,) = step.parts
    assert sorted(part.labels.tolist()) == sorted(expected)
    assert part.labels.tolist() == [expected[position] for position in part.positions]


def test_the_log_has_a_row_for_every_epoch_with_every_rate(data, tmp_path):
    recipe = replace(FULL, epochs=3, backbone_rate=0.001)
    ready = prepare(
        data, "training_runs:tiny_net", out=tmp_path, recipe=recipe, device="cpu", workers=0
    )
    records = list(ready.epochs())

    log = pd.read_csv(tmp_path / "log.csv")
    assert log["epoch"].tolist() == [1, 2, 3]
    assert log["train_loss"].tolist() == [record.train_loss for record in records]
    assert len(log["learning_rates"][0].split()) == len(records[0].learning_rates) == 4
    assert differences(list(records[0].learning_rates), [0.001, 0.001, 0.01, 0.01]) == []
    assert (log["peak_memory_bytes"] > 2**20).all()


def test_the_same_seed_is_the_same_training_with_any_number_of_workers(data, tmp_path):
    kept = []
    for workers in (0, 2):
        out = tmp_path / str(workers)
        ready = prepare(
            data, "training_runs:tiny_net", out=out, recipe=FULL, device="cpu", workers=workers
        )
        list(ready.epochs())
        kept.append(torch.load(out / "last.pth", weights_only=True)["state_dict"])

    assert differences(*kept) == []


@pytest.mark.parametrize("innermost", [True, False])
def test_convolutions_learn_with_the_channels_innermost_where_that_is_asked_for(innermost):
    model = layouts.Laid()
    average = averaged_model(model, decay=0.5)
    images, labels = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8), torch.arange(6) % 4
    records = fit(
        model,
        [(images, labels)],
        validation=[(images, labels)],
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        epochs=2,
        average=average,
        channels_last=innermost,
        prepare=lambda pixels: pixels.float() / 255,
    )

    assert len(list(records)) == 2
    assert set(model.seen) == {innermost}
    for one in (model, average.module):
        weight = one.convolution.weight
        assert weight.is_contiguous(memory_format=torch.channels_last) == innermost


def test_a_model_that_does_not_take_the_layout_is_told_what_to_leave_out():
    batch = torch.rand(4, 3, 8, 8), torch.arange(4) % 3
    model = layouts.Viewing()
    records = fit(
        model,
        [batch],
        validation=[batch],
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        epochs=1,
        channels_last=True,
    )

    with pytest.raises(
        InputError,
        match=r"^model Viewing must .* got RuntimeError: view size .*: leave channels_last out$",
    ):
        next(records)


def test_both_layouts_learn_the_same():
    images, labels = torch.rand(16, 3, 8, 8), torch.arange(16) % 4
    losses = []
    for innermost in (True, False):
        torch.manual_seed(0)
        model = layouts.Laid()
        losses.append(
            [
                record.train_loss
                for record in fit(
                    model,
                    [(images, labels)],
                    validation=[(images, labels)],
                    optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
                    epochs=5,
                    channels_last=innermost,
                )
            ]
        )

    np.testing.assert_allclose(*losses, rtol=1e-5)
    assert losses[0][-1] < losses[0][0]
