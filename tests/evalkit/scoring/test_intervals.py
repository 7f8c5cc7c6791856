import numpy as np
import pytest
import scipy.stats

from evalkit.errors import InputError
from evalkit.scoring.intervals import f1_interval, mean_interval, wilson


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_wilson_agrees_with_scipy(level):
    cases = [(k, n) for n in (1, 2, 7, 50, 1000) for k in {0, 1, n // 2, n - 1, n}]

    low, high = wilson(*np.array(cases).T, level=level)

    for (k, n), ours in zip(cases, zip(low, high, strict=True), strict=True):
        theirs = scipy.stats.binomtest(k, n).proportion_ci(level, method="wilson")
        assert ours == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_wilson_touches_the_ends_exactly():
    low, high = wilson([0, 3], [3, 3])

    assert low[0] == 0.0
    assert high[1] == 1.0
    assert 0 < low[1] < high[0] < 1


def test_without_trials_there_is_no_interval():
    assert np.isnan(wilson(0, 0)).all()
    assert np.isnan(f1_interval(0, 0, 0)).all()


def test_f1_holds_the_score_and_stays_in_range():
    hits, support, predicted = (
        np.array([0, 3, 10, 99]),
        np.array([5, 4, 10, 100]),
        np.array([0, 9, 10, 120]),
    )
    f1 = 2 * hits / (support + predicted)

    low, high = f1_interval(hits, support, predicted)

    assert ((low >= 0) & (low <= f1) & (f1 <= high) & (high <= 1)).all()


def test_f1_covers_as_often_as_it_says():
    """A class of 50 in 5,000 with F1 near 0.76, 4,000 draws: 95 % within sampling error."""
    rng = np.random.default_rng(1)
    cells = np.array([38, 12, 12, 4938]) / 5000  # hits, misses, false alarms, others
    draws = rng.multinomial(5000, cells, size=4000)
    hits, misses, alarms = draws[:, :3].T

    low, high = f1_interval(hits, hits + misses, hits + alarms)

    truth = 2 * 38 / 100
    assert np.mean((low <= truth) & (truth <= high)) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(
    ("arguments", "level", "fault"),
    [
        ((3, 2), 0.95, "between 0 and trials, got 3 successes in 2 trials"),
        (([1, -1], 2), 0.95, "got -1 successes in 2 trials"),
        ((1, 2), 95, "level must be between 0 and 1, got 95"),
    ],
)
def test_rejects_impossible_counts(arguments, level, fault):
    with pytest.raises(InputError, match=fault):
        wilson(*arguments, level=level)


@pytest.mark.parametrize(("samples", "least"), [(50, 0.90), (500, 0.93)])
def test_the_interval_of_a_mean_loss_holds_it(samples, least):
    """Losses of a calibrated model, of which few are large."""
    rng = np.random.default_rng(0)

    def losses(number):
        confidence = np.clip(rng.beta(4, 1, number), 0.2, 1 - 1e-4)
        right = rng.random(number) < confidence
        return -np.log(np.where(right, confidence, (1 - confidence) / 2))

    truth = losses(1_000_000).mean()
    held = 0
    for _ in range(1_000):
        drawn = losses(samples)
        low, high = mean_interval(float(drawn.sum()), float((drawn**2).sum()), samples)
        held += low <= truth <= high

    assert least <= held / 1_000 <= 0.97


def test_a_mean_of_one_loss_or_of_none_has_no_interval():
    assert np.isnan(mean_interval(0.5, 0.25, 1)).all()
    assert np.isnan(mean_interval(0.0, 0.0, 10)).all()
