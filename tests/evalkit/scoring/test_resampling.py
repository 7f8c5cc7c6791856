import math
import time

import numpy as np
import pandas as pd
import pytest

from evalkit.errors import InputError
from evalkit.scoring.averages import averages
from evalkit.scoring.bootstrap import NO_SPREAD, UNDEFINED
from evalkit.scoring.method import Method
from evalkit.scoring.resampling import (
    Groups,
    draw,
    influence,
    resampled_intervals,
    scores_of_draws,
)
from evalkit.scoring.sparse import of_frame, sparse_confusion


def labelled(seed=0, *, classes=4, samples=300, right=0.7):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, samples)
    other = rng.integers(0, classes, samples)
    return labels, np.where(rng.random(samples) < right, labels, other)


def groups_of(labels, predictions, group, classes):
    """The cells of every group, as the tally makes them."""
    whole = sparse_confusion(labels, predictions, classes)
    position = {pair: i for i, pair in enumerate(zip(whole.labels, whole.predictions, strict=True))}
    cells = [position[pair] for pair in zip(labels, predictions, strict=True)]
    table = pd.DataFrame({"cell": cells, "group": group}).value_counts().sort_index().reset_index()
    return whole, Groups(
        table["group"].to_numpy(), table["cell"].to_numpy(), table["count"].to_numpy(),
        int(np.max(group)) + 1,
    )  # fmt: skip


def test_replicates_are_those_of_drawing_samples():
    """Mean and spread of 4,000 replicates of each kind agree within their sampling error."""
    labels, predictions = labelled()
    counts = sparse_confusion(labels, predictions, 4)
    method = Method(replicates=4000)

    ours, _ = scores_of_draws(counts, draw(counts, method=method), rule="scikit-learn")

    rng = np.random.default_rng(1)
    theirs = []
    for _ in range(4000):
        chosen = rng.integers(0, labels.size, labels.size)
        drawn = sparse_confusion(labels[chosen], predictions[chosen], 4)
        theirs.append(averages(drawn.hits, drawn.support, drawn.predicted, rule="scikit-learn"))
    for name, values in ours.items():
        expected = np.array([one[name] for one in theirs])
        spread = expected.std()
        assert values.mean() == pytest.approx(expected.mean(), abs=5 * spread / math.sqrt(4000))
        assert values.std() == pytest.approx(spread, rel=0.06)


def test_every_replicate_has_all_samples():
    counts = sparse_confusion(*labelled(), 4)

    drawn = np.concatenate(list(draw(counts, method=Method(replicates=250))))

    assert drawn.shape == (250, len(counts.counts))
    assert (drawn.sum(axis=1) == 300).all()


def test_balanced_classes_keep_their_samples():
    counts = sparse_confusion(*labelled(), 4)

    drawn = np.concatenate(list(draw(counts, method=Method(class_balanced=True))))

    for label, samples in enumerate(counts.support):
        assert (drawn[:, counts.labels == label].sum(axis=1) == samples).all()
    assert drawn.std(axis=0).min() > 0


def test_groups_come_whole():
    labels, predictions = labelled(samples=40)
    group = np.repeat(np.arange(4), 10)
    counts, groups = groups_of(labels, predictions, group, 4)

    drawn = np.concatenate(list(draw(counts, method=Method(group_column="g"), groups=groups)))

    assert set(drawn.sum(axis=1)) == {40}  # four groups of ten
    parts = [sparse_confusion(labels[group == g], predictions[group == g], 4) for g in range(4)]
    possible = sum(part.to_frame().to_numpy() for part in parts)
    assert (possible > 0).sum() == drawn.shape[1]


def test_groups_that_agree_within_themselves_widen_the_interval():
    rng = np.random.default_rng(3)
    labels = np.repeat(rng.integers(0, 3, 60), 10)
    right = np.repeat(rng.random(60) < 0.8, 10)  # a patient is right or wrong throughout
    predictions = np.where(right, labels, (labels + 1) % 3)
    counts, groups = groups_of(labels, predictions, np.repeat(np.arange(60), 10), 3)

    alone = resampled_intervals(counts)
    whole = resampled_intervals(counts, method=Method(group_column="patient"), groups=groups)

    widths = [found.high["macro.f1"] - found.low["macro.f1"] for found in (alone, whole)]
    assert widths[1] / widths[0] == pytest.approx(math.sqrt(10), rel=0.25)
    assert whole.method.endswith("the 60 groups of patient drawn with replacement")


def test_groups_of_one_sample_are_samples():
    labels, predictions = labelled()
    counts, groups = groups_of(labels, predictions, np.arange(300), 4)

    alone = resampled_intervals(counts, method=Method(replicates=4000))
    single = resampled_intervals(
        counts, method=Method(group_column="g", replicates=4000), groups=groups
    )

    for name in alone.low:
        assert single.low[name] == pytest.approx(alone.low[name], abs=0.01)
        assert single.high[name] == pytest.approx(alone.high[name], abs=0.01)


def test_the_seed_decides():
    counts = sparse_confusion(*labelled(), 4)

    first, again, other = (
        resampled_intervals(counts, method=Method(seed=seed)).low for seed in (1, 1, 2)
    )

    assert first == again
    assert first != other


@pytest.mark.parametrize("seed", range(4))
def test_intervals_hold_the_score_and_stay_in_range(seed):
    """Many classes of few samples, where replicates are all below the score."""
    counts = sparse_confusion(*labelled(seed, classes=40, samples=160), 45)

    found = resampled_intervals(counts, method=Method(replicates=200))

    values = averages(counts.hits, counts.support, counts.predicted, rule="scikit-learn")
    for name, value in values.items():
        assert -1 <= found.low[name] <= value <= found.high[name] <= 1
    assert found.lost_classes > 100


def test_a_perfect_score_has_no_interval_but_a_reason():
    found = resampled_intervals(sparse_confusion([0, 0, 1, 1], [0, 0, 1, 1], 2))

    assert math.isnan(found.low["macro.f1"])
    assert found.reasons["macro.f1"] == NO_SPREAD


def test_undefined_replicates_are_dropped_and_counted():
    counts = of_frame(pd.DataFrame([[3, 1], [0, 1]]))  # the only sample of 1 is often not drawn

    found = resampled_intervals(counts)

    assert 0 < found.undefined["mcc"] < 500
    assert found.low["mcc"] < found.high["mcc"]


def test_what_is_undefined_has_no_interval():
    found = resampled_intervals(sparse_confusion([0, 0, 0], [0, 0, 0], 2))

    assert found.reasons["mcc"] == UNDEFINED
    assert math.isnan(found.high["mcc"])


@pytest.mark.parametrize("method", [Method(), Method(class_balanced=True)])
def test_influence_is_the_variance_of_the_replicates(method):
    """The delta method and the replicates see the same spread where samples are many."""
    counts = sparse_confusion(*labelled(samples=20_000), 4)

    found = resampled_intervals(counts, method=method)
    replicates, _ = scores_of_draws(counts, draw(counts, method=method), rule="scikit-learn")

    for name, values in replicates.items():
        assert (found.high[name] - found.low[name]) / 3.92 == pytest.approx(values.std(), rel=0.1)
    change = influence(counts, rule="scikit-learn")["macro.f1"]
    if not method.class_balanced:
        spread = math.sqrt((counts.counts * change**2).sum())
        assert spread == pytest.approx(replicates["macro.f1"].std(), rel=0.1)


@pytest.mark.parametrize("group", [None, np.arange(20_000) % 2_000])
def test_many_cells_take_the_delta_method(monkeypatch, group):
    labels, predictions = labelled(samples=20_000)
    counts, groups = groups_of(
        labels, predictions, np.arange(20_000) if group is None else group, 4
    )
    method = Method(group_column="g") if group is not None else Method()
    groups = groups if group is not None else None
    exact = resampled_intervals(counts, method=method, groups=groups)
    monkeypatch.setattr("evalkit.scoring.resampling.CELLS_TO_RESAMPLE", 3)

    delta = resampled_intervals(counts, method=method, groups=groups)

    assert delta.method.startswith("delta method, bias from 20 replicates")
    for name in exact.low:
        assert delta.low[name] == pytest.approx(exact.low[name], abs=0.002)
        assert delta.high[name] == pytest.approx(exact.high[name], abs=0.002)


def test_all_classes_count_where_the_rule_says_so():
    labels, predictions = labelled()
    counts = sparse_confusion(labels, predictions, 8)  # four classes more than there are

    found = resampled_intervals(counts, method=Method(average_rule="all"))

    usual = resampled_intervals(counts, method=Method())
    assert found.high["macro.f1"] == pytest.approx(usual.high["macro.f1"] / 2)
    assert found.high["weighted.f1"] == pytest.approx(usual.high["weighted.f1"])


def test_imagenet_takes_less_than_two_seconds():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(1000), 50)
    near = (labels + 1 + rng.geometric(0.05, labels.size)) % 1000
    counts = sparse_confusion(labels, np.where(rng.random(labels.size) < 0.76, labels, near), 1000)

    start = time.process_time()
    resampled_intervals(counts)

    assert 9_000 < len(counts.counts) < 13_000
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("choices", "fault"),
    [
        ({"average_rule": "mean"}, "one of scikit-learn, all, with-samples, defined, got 'mean'"),
        ({"replicates": 99}, "replicates must be at least 100, got 99"),
        ({"seed": -1}, "seed must be 0 or more, got -1"),
        ({"level": 95}, "level must be between 0 and 1, got 95: 0.95 is usual"),
        (
            {"class_balanced": True, "group_column": "patient"},
            r"class_balanced and group_column exclude each other, got both: .* \(patient\)",
        ),
    ],
)
def test_other_choices_are_refused(choices, fault):
    with pytest.raises(InputError, match=fault):
        Method(**choices)
