import math

import numpy as np
import pytest

from evalkit.errors import InputError
from evalkit.scoring.calibration import (
    calibration_interval,
    confidence_cells,
    expected_calibration_error,
    reliability,
)
from evalkit.scoring.selective import POINTS, area_under_risk, coverage_risk, thresholds


def answers(seed=0, *, samples=4000, honest=1.0):
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.4, 1, samples)
    return confidence, rng.random(samples) < confidence**honest


def test_risk_is_the_share_of_errors_among_the_surest():
    confidence, right = answers(samples=300)
    order = np.argsort(-confidence)
    expected = (~right[order]).cumsum() / np.arange(1, 301)

    table = coverage_risk(confidence_cells(confidence, right))

    rows = table.set_index("samples")["risk"]
    for samples, risk in rows.items():
        assert risk == pytest.approx(expected[samples - 1])
    assert table["coverage"].iloc[-1] == 1.0
    assert table["coverage"].is_monotonic_increasing
    assert ((table["risk_low"] <= table["risk"]) & (table["risk"] <= table["risk_high"])).all()


def test_the_curve_is_short_however_many_samples():
    table = coverage_risk(confidence_cells(*answers(samples=50_000)))

    assert len(table) == POINTS
    assert table["coverage"].iloc[-1] == 1.0


def test_area_under_the_curve_by_hand():
    """Confidences 0.9, 0.7, 0.5 right, wrong, right: risks 0, 1/2, 1/3."""
    cells = confidence_cells(np.array([0.9, 0.7, 0.5]), np.array([True, False, True]))

    assert area_under_risk(cells) == pytest.approx((0 + 1 / 2 + 1 / 3) / 3)
    assert math.isnan(area_under_risk(np.zeros((3, 8))))


def test_thresholds_reach_the_precision_with_most_samples():
    confidence, right = answers()
    table = thresholds(confidence_cells(confidence, right), precisions=[0.8, 0.95])

    for _, row in table.iterrows():
        chosen = confidence >= row["threshold"]
        assert right[chosen].mean() >= row["precision"]
        assert chosen.mean() == pytest.approx(row["coverage"], abs=1e-3)
        assert row["sure_threshold"] >= row["threshold"]
        assert row["sure_coverage"] <= row["coverage"]


def test_a_precision_out_of_reach_has_no_threshold():
    cells = confidence_cells(np.full(20, 0.8), np.array([True, False] * 10))

    row = thresholds(cells, precisions=[0.9]).iloc[0]

    assert math.isnan(row["threshold"])
    assert row["coverage"] == 0.0


def test_a_precision_is_a_fraction():
    with pytest.raises(InputError, match="between 0 and 1, got 95"):
        thresholds(np.zeros((3, 4)), precisions=[95])


def test_reliability_adds_up_to_the_error():
    cells = confidence_cells(*answers(honest=1.5))

    table = reliability(cells)

    assert table["samples"].sum() == 4000
    assert table["samples"].min() > 200
    error = (table["gap"].abs() * table["samples"]).sum() / 4000
    assert error == pytest.approx(expected_calibration_error(cells))
    assert (table["lowest"] <= table["confidence"]).all()
    assert (table["confidence"] <= table["highest"]).all()


def test_without_samples_tables_are_empty():
    assert reliability(np.zeros((3, 8))).empty
    assert coverage_risk(np.zeros((3, 8))).empty
    assert np.isnan(calibration_interval(np.zeros((3, 8)))).all()


@pytest.mark.slow
@pytest.mark.parametrize(("honest", "least"), [(1.5, 0.92), (2.0, 0.92)])
def test_the_interval_of_the_error_holds_it(honest, least):
    truth = expected_calibration_error(
        confidence_cells(*answers(99, samples=2_000_000, honest=honest))
    )
    held = []
    for seed in range(200):
        cells = confidence_cells(*answers(seed, samples=2000, honest=honest))
        low, high = calibration_interval(cells, replicates=300)
        assert low <= expected_calibration_error(cells) <= high
        held.append(low <= truth <= high)

    assert least <= np.mean(held) <= 0.985
