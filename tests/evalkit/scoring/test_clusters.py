import numpy as np
import pytest

from evalkit.scoring.clusters import effective_counts, effective_trials
from evalkit.scoring.intervals import effective_wilson, f1_interval, simultaneous_level, wilson
from evalkit.scoring.resampling import Groups
from evalkit.scoring.sparse import sparse_confusion


def test_groups_of_one_are_worth_their_samples():
    rng = np.random.default_rng(0)
    hits = rng.random(500) < 0.8

    worth = effective_trials(hits, np.ones(500), kind=np.zeros(500, dtype=int), kinds=1)

    assert worth == pytest.approx([500], rel=0.01)


def test_groups_that_agree_are_worth_one_sample_each():
    hits = np.array([10, 10, 10, 0, 0] * 20)

    worth = effective_trials(hits, np.full(100, 10), kind=np.zeros(100, dtype=int), kinds=1)

    assert 95 < worth[0] < 100  # a little less, because 100 groups do not tell their spread exactly


def test_by_hand():
    """Two groups, 3 of 4 and 1 of 4: p = 1/2, between = 2 * (1 + 1), design effect 2.

    Student's quantiles for 0.95 are 2.365 for 7 degrees of freedom and 12.706 for the one.
    """
    worth = effective_trials([3, 1], [4, 4], kind=[0, 0], kinds=1)

    assert worth == pytest.approx([8 * (8 / 4) / 4 * (2.36462 / 12.7062) ** 2], rel=1e-4)


def test_perfect_groups_count_once():
    assert effective_trials([9, 9, 9], [9, 9, 9], kind=[0, 0, 1], kinds=3).tolist() == [2, 1, 0]


def test_negative_correlation_earns_nothing():
    worth = effective_trials([1] * 400, [2] * 400, kind=[0] * 400, kinds=1)

    assert 795 < worth[0] <= 800


def test_a_kind_of_few_groups_borrows_the_correlation_of_the_others():
    """Kind 0: 40 groups that agree within. Kind 1: 6 groups that chance made look independent."""
    hits = [4, 0] * 20 + [3, 3, 3, 3, 3, 3]
    kind = [0] * 40 + [1] * 6

    alone = effective_trials(hits[40:], [4] * 6, kind=[0] * 6, kinds=1)
    together = effective_trials(hits, [4] * 46, kind=kind, kinds=2)

    assert alone[0] > 14
    assert together[1] < 6


def test_intervals_of_groups_cover_as_often_as_they_say():
    """40 patients of 5 images whose accuracies vary: 2,000 draws, Wilson alone covers 0.86."""
    rng = np.random.default_rng(0)
    covered = {"groups": 0, "samples": 0}
    for _ in range(2000):
        hits = rng.binomial(5, rng.beta(2.8, 0.7, 40))
        worth = effective_trials(hits, np.full(40, 5), kind=np.zeros(40, dtype=int), kinds=1)
        low, high = effective_wilson([hits.sum() / 200], worth)
        covered["groups"] += bool(low[0] <= 0.8 <= high[0])
        low, high = wilson([hits.sum()], [200])
        covered["samples"] += bool(low[0] <= 0.8 <= high[0])

    assert 0.93 <= covered["groups"] / 2000 <= 0.97
    assert covered["samples"] / 2000 < 0.9


def test_every_score_has_its_own_groups():
    """Asymmetric: group 0 holds all samples of a, group 1 those of b, one of which is called a."""
    labels, predictions = [0, 0, 1, 1], [0, 0, 1, 0]
    counts = sparse_confusion(labels, predictions, 3)  # cells (0, 0), (1, 0), (1, 1)
    groups = Groups(np.array([0, 1, 1]), np.array([0, 1, 2]), np.array([2, 1, 1]), 2)

    found = effective_counts(counts, groups)

    assert found["accuracy"].shape == (1,)
    assert found["recall"].tolist() == [1, 1, 0]  # all samples of a class in one group
    assert found["precision"][1] == 1  # given b: one sample of group 1
    assert 0 < found["f1"][0] < 3  # two groups tell hardly anything
    assert found["f1"][2] == 0


def test_undefined_stays_undefined():
    low, high = effective_wilson([np.nan, 1.0], [0, 4])

    assert np.isnan([low[0], high[0]]).all()
    assert (low[1], high[1]) == pytest.approx([side.item() for side in wilson(4, 4)])
    assert np.isnan(f1_interval([0], [0], [0], effective=[0])).all()


@pytest.mark.parametrize("intervals", [1, 10, 1000])
def test_simultaneous_levels_multiply_to_the_level(intervals):
    assert simultaneous_level(0.95, intervals) ** intervals == pytest.approx(0.95)
    assert simultaneous_level(0.95, 0) == 0.95
