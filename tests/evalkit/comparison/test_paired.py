import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from evalkit.comparison.paired import cochran_q, equivalence, holm, mcnemar, paired_difference
from evalkit.errors import InputError


@pytest.mark.parametrize(("gained", "lost"), [(0, 1), (3, 3), (1, 9), (5, 19), (24, 0)])
def test_few_discordant_pairs_are_tested_exactly(gained, lost):
    expected = scipy.stats.binomtest(gained, gained + lost).pvalue

    assert mcnemar(gained, lost) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("gained", "lost"), [(12, 13), (10, 15), (30, 80), (1400, 1500), (25, 0)])
def test_from_25_on_the_test_is_mid_p(gained, lost):
    discordant = scipy.stats.binom(gained + lost, 0.5)
    fewer = min(gained, lost)
    expected = 2 * discordant.cdf(fewer) - discordant.pmf(fewer)

    assert mcnemar(gained, lost) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(gained, lost) == mcnemar(lost, gained)


def test_no_discordant_pair_says_nothing():
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(500, 500) == pytest.approx(1.0)


def test_a_million_discordant_pairs_are_no_trouble():
    assert mcnemar(500_000, 501_500) == pytest.approx(
        2 * scipy.stats.norm.sf(1500 / math.sqrt(1_001_500)), rel=1e-3
    )


def test_mcnemar_keeps_its_level():
    """Six discordant pairs reject 3.1 % of the time, fifty with mid-p 6.5 %, as is known."""
    for number, expected in ((6, 0.031), (20, 0.041), (50, 0.065)):
        pairs = scipy.stats.binom(number, 0.5)
        rejected = sum(pairs.pmf(k) for k in range(number + 1) if mcnemar(k, number - k) <= 0.05)
        assert rejected == pytest.approx(expected, abs=0.001)


@pytest.mark.parametrize(
    ("gained", "lost", "samples"), [(14, 6, 200), (0, 3, 50), (12, 2, 50), (40, 41, 100)]
)
def test_tangos_interval_is_where_his_score_is_196(gained, lost, samples):
    """The multinomial likelihood maximised numerically under the difference, not in closed form."""

    def score(difference):
        def log_likelihood(lost_share):
            up, same = lost_share + difference, 1 - 2 * lost_share - difference
            shares, counts = (up, lost_share, same), (gained, lost, samples - gained - lost)
            return -sum(
                n * math.log(max(p, 1e-300)) for n, p in zip(counts, shares, strict=True) if n
            )

        best = scipy.optimize.minimize_scalar(
            log_likelihood,
            bounds=(max(0, -difference), (1 - difference) / 2),
            method="bounded",
            options={"xatol": 1e-12},
        ).x
        variance = samples * (2 * best + difference * (1 - difference))
        return (gained - lost - samples * difference) / math.sqrt(variance)

    low, high = paired_difference([gained], [lost], [samples])

    assert score(low[0]) == pytest.approx(1.959964, abs=1e-3)
    assert score(high[0]) == pytest.approx(-1.959964, abs=1e-3)


def test_tango_is_antisymmetric_and_never_a_point():
    low, high = paired_difference([0, 7, 0, 5], [0, 2, 5, 0], [40, 40, 5, 5])
    swapped_low, swapped_high = paired_difference([0, 2, 5, 0], [0, 7, 0, 5], [40, 40, 5, 5])

    np.testing.assert_allclose(low, -swapped_high, atol=1e-12)
    np.testing.assert_allclose(high, -swapped_low, atol=1e-12)
    assert (low < high).all()
    assert ((low >= -1) & (high <= 1)).all()


def test_tango_without_samples_is_undefined():
    assert np.isnan(paired_difference([0], [0], [0])).all()


@pytest.mark.parametrize("shares", [(0.03, 0.02), (0.10, 0.04), (0.005, 0.005)])
def test_tango_covers_as_often_as_it_says(shares):
    up, down = shares
    draws = np.random.default_rng(0).multinomial(400, [up, down, 1 - up - down], size=4000)

    low, high = paired_difference(draws[:, 0], draws[:, 1], 400)

    covered = ((low <= up - down) & (up - down <= high)).mean()
    assert 0.93 <= covered <= 0.975


def test_equivalence_agrees_with_the_interval():
    """Two one-sided tests at 5 % reject exactly when the 90 % interval is within the margin."""
    rng = np.random.default_rng(0)
    for gained, lost in rng.integers(0, 40, size=(50, 2)):
        low, high = paired_difference([gained], [lost], [1000], level=0.9)
        within = bool(low[0] > -0.02 and high[0] < 0.02)
        assert (equivalence(int(gained), int(lost), 1000, margin=0.02) < 0.05) == within


def test_agreement_of_many_samples_is_equivalence_and_of_few_is_not():
    assert equivalence(0, 0, 1000, margin=0.01) < 0.05
    assert equivalence(0, 0, 20, margin=0.01) > 0.05
    assert math.isnan(equivalence(0, 0, 0, margin=0.01))


def test_cochran_by_hand_and_by_its_distribution():
    rng = np.random.default_rng(0)
    for models in (2, 3, 4, 5, 6):
        right = rng.random((60, models)) < np.linspace(0.6, 0.8, models)
        statistic, p_value = cochran_q(right)
        per_model, per_sample = right.sum(0), right.sum(1)
        expected = (
            (models - 1)
            * (models * (per_model**2).sum() - per_model.sum() ** 2)
            / (models * per_sample.sum() - (per_sample**2).sum())
        )
        assert statistic == pytest.approx(expected)
        assert p_value == pytest.approx(scipy.stats.chi2.sf(expected, models - 1))


def test_cochran_of_models_that_agree():
    assert cochran_q(np.ones((5, 3), dtype=bool)) == (0.0, 1.0)


def test_holm_steps_down_and_leaves_gaps():
    assert holm([0.01, np.nan, 0.04, 0.03, 0.9]) == pytest.approx(
        [0.04, np.nan, 0.09, 0.09, 0.9], nan_ok=True
    )
    assert holm([]).size == 0


@pytest.mark.parametrize(
    ("function", "arguments", "options", "fault"),
    [
        (mcnemar, (-1, 2), {}, "0 or more, got -1 gained and 2 lost"),
        (paired_difference, (3, 3, 5), {}, "at most all samples"),
        (equivalence, (1, 1, 9), {"margin": 1.0}, "between 0 and 1, got 1.0: 0.01 is one point"),
    ],
)
def test_impossible_counts_are_refused(function, arguments, options, fault):
    with pytest.raises(InputError, match=fault):
        function(*arguments, **options)
