import math

import numpy as np
import pytest

from evalkit.scoring.calibration import (
    BINS,
    calibration_interval,
    confidence_cells,
    expected_calibration_error,
)


def by_sorting(confidence, right):
    """Equal-mass bins as the definition has them, for samples that divide evenly."""
    order = np.argsort(confidence)
    gaps = [abs((confidence[part] - right[part]).sum()) for part in np.array_split(order, BINS)]
    return sum(gaps) / len(confidence)


@pytest.mark.parametrize("seed", range(3))
def test_is_the_equal_mass_error(seed):
    rng = np.random.default_rng(seed)
    confidence = rng.beta(5, 2, size=BINS * 2000)
    right = rng.random(confidence.size) < confidence**1.5

    ours = expected_calibration_error(confidence_cells(confidence, right))

    assert ours == pytest.approx(by_sorting(confidence, right), abs=1e-3)


def test_batches_add_up():
    rng = np.random.default_rng(0)
    confidence, right = rng.random(1000), rng.random(1000) < 0.5

    whole = confidence_cells(confidence, right)
    parts = confidence_cells(confidence[:300], right[:300]) + confidence_cells(
        confidence[300:], right[300:]
    )

    np.testing.assert_allclose(whole, parts)


def test_equal_confidences_share_a_bin():
    right = np.array([True] * 9 + [False])

    cells = confidence_cells(np.full(10, 0.9), right)

    assert expected_calibration_error(cells) == pytest.approx(0, abs=1e-12)


def test_ends_of_the_range_are_inside():
    cells = confidence_cells(np.array([0.0, 1.0]), np.array([False, True]))

    assert cells[0].sum() == 2
    assert expected_calibration_error(cells) == 0


def test_no_samples_are_undefined():
    assert math.isnan(expected_calibration_error(np.zeros((3, 10))))


@pytest.mark.parametrize("seed", range(5))
def test_the_interval_holds_the_error_also_where_confidences_pile_up_at_one(seed):
    rng = np.random.default_rng(seed)
    confidence = 1 - rng.uniform(0, 1, 2_000) ** 3 / 2
    cells = confidence_cells(confidence, rng.random(2_000) < confidence)

    low, high = calibration_interval(cells, replicates=200)

    assert low <= expected_calibration_error(cells) <= high
