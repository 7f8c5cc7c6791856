"""Intervals hold the truth as often as they say; docs/statistics.md has the whole table."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
COVERAGE = runpy.run_path(str(ROOT / "benchmarks" / "coverage.py"))
# 400 draws of a coverage of 0.95 have a standard error of 0.011: what is far outside is a fault.
LEAST, MOST = 0.93 - 0.03, 0.97 + 0.025
SWINGS = ("10 classes, 97 % right, 300 samples", "recall of a class")  # Wilson's, close to 1
PROMISED = {"accuracy", "recall of a class", "precision of a class", "f1 of a class", "macro.f1"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    [
        "3 classes, 100 samples",
        "10 classes, imbalanced, 500 samples",
        "10 classes, 97 % right, 300 samples",
    ],
)
def test_intervals_hold_the_truth_as_often_as_they_say(setting):
    rows = COVERAGE["run"](draws=400, settings=(setting,))

    outside = [
        row
        for row in rows
        if row["score"] in PROMISED
        and row["drawn"] in {"samples", "groups of 8"}
        and (row["setting"], row["score"]) != SWINGS
        and not LEAST <= row["coverage"] <= MOST
    ]
    assert outside == []
    assert min(row["coverage"] for row in rows) > 0.84  # nothing is far from the page


def test_the_page_has_the_table_of_the_benchmark():
    page = (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8")
    table = page.partition(COVERAGE["START"])[2].partition(COVERAGE["END"])[0]

    rows = [line.split("|")[1:4] for line in table.strip().splitlines()[2:]]
    listed = {(drawn.strip(), setting.strip()) for drawn, setting, _ in rows}
    expected = {
        (drawn, f"{setting} x 4" if drawn.startswith("groups") else setting)
        for drawn, (_, settings) in COVERAGE["DESIGNS"].items()
        for setting in settings
    }
    assert listed == expected
